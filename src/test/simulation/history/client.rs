//! [`Client`]: a client, and up to where it has each topic.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};
use tower_channels_transports::Close;

use super::truth::Truth;
use super::{TOPICS, payload};
use crate::Endpoint;
use crate::history::Position;
use crate::test::{self, Message};

pub(super) struct Client {
    number: u64,
    /// The node on which it is.
    pub(super) at: u64,
    /// Whether it wants positions, and remembers them.
    has_positions: bool,
    has_session: bool,
    inner: test::Client<u64>,
    is_away: bool,
    joins: u64,
    /// Whether its session has ever begun anew, while an older one may live: that may come back, with what it had.
    has_older: bool,
    topics: [Topic; TOPICS.len()],
}

#[derive(Default)]
struct Topic {
    /// Whether it wants to be in the topic.
    wants: bool,
    is_joined: bool,
    reference: String,
    /// Its number of the join to which it has heard an answer.
    heard: u64,
    position: Option<Position>,
    /// How many of the messages that were kept it has, or has been told that they are missing. `None` if it was told that
    /// something is missing, and not yet where it goes on.
    count: Option<usize>,
    /// Whether it has yet to be told that something is missing: a client without positions is told a while later.
    is_untold: bool,
    /// Whether it was told of a gap behind what waited for it.
    may_skip: bool,
}

/// How long a join may take: it waits for a topic, and for a read.
const PATIENCE: Duration = Duration::from_secs(8);

impl Client {
    pub(super) async fn connect(endpoint: &Endpoint<u64>, at: u64, number: u64) -> Self {
        let (has_positions, has_session) = [(true, false), (true, true), (false, true)]
            [usize::try_from(number % 3).expect("small")];
        let key = number.to_string();
        let session = format!("session-{number:020}");
        let mut params = vec![("key", &*key)];
        if has_positions {
            params.push(("positions", "refs"));
        }
        if has_session {
            params.extend([("session", &*session), ("received", "0")]);
        }
        let inner = test::connect(endpoint, &params).await.expect("accepted");
        let topics = Default::default();
        Self {
            number,
            at,
            has_positions,
            has_session,
            inner,
            is_away: false,
            joins: 0,
            has_older: false,
            topics,
        }
    }

    pub(super) fn is_away(&self) -> bool {
        self.is_away
    }

    pub(super) fn wants(&self, topic: usize) -> bool {
        self.topics[topic].wants
    }

    pub(super) fn has_joined(&self, topic: usize) -> bool {
        self.topics[topic].is_joined
    }

    /// Whether its channel has ended without its wanting that.
    pub(super) fn has_lost(&self, topic: usize) -> bool {
        let it = &self.topics[topic];
        !self.is_away && it.wants && !it.is_joined
    }

    /// Loses its connection.
    pub(super) fn detach(&mut self) {
        if self.is_away {
            return;
        }
        self.inner.drop_connection();
        self.is_away = true;
        if !self.has_session {
            self.topics.iter_mut().for_each(|topic| topic.is_joined = false);
        }
    }

    /// Its node has ended.
    pub(super) fn lose_node(&mut self, nowhere: &Endpoint<u64>) {
        self.detach();
        self.inner.let_go(nowhere);
    }

    /// Comes to a node. Returns whether it is there.
    pub(super) async fn come_to(&mut self, endpoint: &Endpoint<u64>, at: u64) -> bool {
        let until = Instant::now() + PATIENCE;
        while let Err(refused) = {
            let connecting = timeout_at(until, self.inner.reconnect_to(endpoint));
            connecting.await.expect("a connect has taken too long")
        } {
            assert_eq!(refused.status_code(), StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
            if Instant::now() + Duration::from_secs(1) > until {
                return false;
            }
            sleep(Duration::from_millis(100)).await;
        }
        (self.is_away, self.at) = (false, at);
        true
    }

    pub(super) async fn join(
        &mut self,
        topic: usize,
        truth: &Truth,
        may_fail: bool,
        is_traced: bool,
    ) {
        self.topics[topic].wants = true;
        if self.is_away {
            return;
        }
        self.joins += 1;
        let mut join = json!({ "k": self.joins });
        if let Some(position) = self.topics[topic].position.filter(|_| self.has_positions) {
            join["after"] = position.to_string().into();
        }
        let reference = self.inner.send_join(TOPICS[topic], join);
        self.topics[topic].reference.clone_from(&reference);
        let answer = self.answer(topic, &reference, truth, is_traced).await;
        assert!(may_fail || answer.is_some(), "client {} could not join", self.number);
    }

    pub(super) async fn leave(&mut self, topic: usize, truth: &Truth, is_traced: bool) {
        if self.is_away || !self.topics[topic].is_joined {
            return;
        }
        let reference = self.inner.send(TOPICS[topic], "phx_leave", json!({}));
        self.answer(topic, &reference, truth, is_traced).await;
        let it = &mut self.topics[topic];
        let Topic { position, count, heard, .. } = *it;
        *it = Topic { position, count, heard, ..Topic::default() };
    }

    pub(super) async fn say(&mut self, topic: usize, number: u64, truth: &Truth, is_traced: bool) {
        if self.is_away || !self.topics[topic].is_joined {
            return;
        }
        let reference = self.inner.send(TOPICS[topic], "say", payload(number));
        self.answer(topic, &reference, truth, is_traced).await;
    }

    /// Reads until an answer comes. `None` if it does not.
    async fn answer(
        &mut self,
        topic: usize,
        reference: &str,
        truth: &Truth,
        is_traced: bool,
    ) -> Option<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let received = timeout_at(until, poll_fn(|cx| self.inner.poll_take(cx))).await;
            let (messages, close) = received.expect("an answer has taken too long");
            let mut is_answered = false;
            for message in messages {
                let is_answer = message.reference.as_deref() == Some(reference);
                self.hear(&message, truth, is_traced);
                is_answered |= is_answer;
            }
            self.end(close);
            if is_answered {
                return self.topics[topic].is_joined.then_some(());
            }
            if self.is_away {
                return None;
            }
        }
    }

    /// Reads what has come.
    pub(super) fn read(&mut self, truth: &Truth, is_traced: bool) {
        if self.is_away {
            return;
        }
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready((messages, close)) = self.inner.poll_take(&mut context) {
            messages.iter().for_each(|message| self.hear(message, truth, is_traced));
            self.end(close);
        }
    }

    fn end(&mut self, close: Option<Close>) {
        if close.is_some() {
            self.detach();
        }
    }

    fn hear(&mut self, message: &Message, truth: &Truth, is_traced: bool) {
        if is_traced {
            eprintln!("  client {} on {} hears {message}", self.number, self.at);
        }
        let topic = TOPICS.iter().position(|name| *name == message.topic).expect("a topic");
        let number = self.number;
        let it = &mut self.topics[topic];
        match &*message.event {
            "phx_reply" if message.reference.as_ref() == Some(&it.reference) => {
                self.hear_joined(topic, message);
            }
            "phx_reply" => {}
            "phx_error" | "phx_close" => {
                if message.join_ref.as_ref() == Some(&it.reference) {
                    it.is_joined = false;
                }
            }
            "phx_position" => {
                let position = message.position.expect("a position");
                let count = truth.count(topic, position);
                if self.has_older && it.count.is_some_and(|before| count < before) {
                    return;
                }
                // It stands for a message of its own, or for where it begins, or goes on behind a gap.
                if let Some(before) = it.count {
                    let skipped = truth.numbers(topic);
                    let skipped = skipped.get(before..count.max(before)).unwrap_or_default();
                    let is_own = skipped.iter().all(|skipped| truth.is_from(*skipped, number));
                    let is_told = is_own || std::mem::take(&mut it.may_skip);
                    assert!(is_told, "client {number} has not received {skipped:?}");
                }
                (it.count, it.position) = (Some(count), Some(position));
            }
            "n" => {
                let text: String = message.payload.parse().expect("a text");
                let n = text.trim_matches('#').parse().expect("a number");
                let index = truth.index(topic, n);
                let index = index.unwrap_or_else(|| panic!("{message} is not kept"));
                assert!(it.is_joined, "client {number} has not joined: {message}");
                if let Some(count) = it.count {
                    if index < count && self.has_older {
                        return;
                    }
                    assert!(index >= count, "client {number}: twice, or late: {message}");
                    let all = truth.numbers(topic);
                    let skipped = &all[count..index];
                    let is_own = skipped.iter().all(|skipped| truth.is_from(*skipped, number));
                    let is_told = is_own || std::mem::take(&mut it.may_skip);
                    it.is_untold |= !is_told;
                    let may_be_told = is_told || !self.has_positions;
                    assert!(may_be_told, "client {number} has not received {skipped:?}: {message}");
                }
                it.count = Some(index + 1);
                if self.has_positions {
                    it.position = Some(message.position.expect("a position"));
                }
            }
            _ => panic!("client {number}: unexpected {message}"),
        }
    }

    fn hear_joined(&mut self, topic: usize, message: &Message) {
        let body: Value = message.payload.parse().expect("JSON");
        let it = &mut self.topics[topic];
        if body["status"] != "ok" {
            return it.is_joined = false;
        }
        let response = &body["response"];
        let mut arrival = response[0].as_str().expect("why");
        let join = response[1].as_u64().expect("a number");
        if arrival == "resumed" && join > it.heard {
            // The first answer to arrive of those that this channel has given.
            arrival = response[2].as_str().expect("why");
        }
        let is_anew = matches!(arrival, "new" | "gap" | "recovered");
        self.has_older |= self.has_session && is_anew && it.heard > 0;
        match arrival {
            "resumed" | "moved" | "recovered" => {}
            "new" | "gap" | "moved with a gap" => {
                (it.count, it.is_untold) = (None, false);
                it.may_skip = arrival == "moved with a gap";
            }
            _ => panic!("{arrival}"),
        }
        (it.is_joined, it.heard) = (true, join);
    }

    /// It has everything.
    pub(super) fn check_end(&self, truth: &Truth) {
        let number = self.number;
        assert!(!self.is_away, "client {number} is away");
        for (topic, it) in self.topics.iter().enumerate() {
            assert!(it.is_joined, "client {number} has not joined {topic}");
            assert!(!it.is_untold, "client {number} was not told of a gap in {topic}");
            let all = truth.numbers(topic);
            let missing = &all[it.count.unwrap_or(0)..];
            let is_own = missing.iter().all(|missing| truth.is_from(*missing, number));
            assert!(is_own, "client {number} has not received {missing:?} of {topic}");
        }
    }
}
