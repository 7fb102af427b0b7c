//! [`Client`]: a client, and what it knows.

mod coming;
mod hearing;

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::node::{LEAVE_GRACE, Node, Origin, User};
use super::record::{Reach, Record, Span};
use super::view::View;
use super::{SLOW, TOPICS};
use crate::Endpoint;
use crate::test;

pub(super) struct Client {
    number: u64,
    /// Its presence key.
    pub(super) key: String,
    /// Its socket id.
    pub(super) user: &'static str,
    /// Where it is.
    pub(super) at: Origin,
    is_resumable: bool,
    /// Whether the node on which it was last has ended.
    is_on_dead_node: bool,
    /// Whether its session was left in the store.
    is_deposited: bool,
    /// Whether its node is shutting down.
    expects_restart: bool,
    /// Since when it has been away, while it joins its topics again.
    returning: Option<Instant>,
    /// The number of its last join.
    joins: u64,
    /// Whether it is told if something is missing.
    is_exact: bool,
    inner: test::Client<User>,
    /// Since when it is away, and whether it has said that it goes.
    away: Option<(Instant, bool)>,
    pub(super) topics: [Topic; TOPICS.len()],
    /// Whether its channels may end for a gap, and its session.
    may_lose_channels: bool,
    /// Since when it may be disconnected.
    may_close: Option<Instant>,
    /// Who has disconnected it.
    closed_by: Option<Origin>,
}

/// What a client knows of a topic.
#[derive(Default)]
pub(super) struct Topic {
    /// `None` unless it is joined.
    join: Option<Join>,
    /// The meta that the client tracks.
    tracked: Option<u64>,
    /// Since when it tracks one.
    tracked_since: Option<Instant>,
    pub(super) view: View,
}

struct Join {
    reference: String,
    span: Span,
    /// Which of the client's joins it has heard an answer to last.
    heard: u64,
}

impl Topic {
    fn set_tracked(&mut self, meta: Option<u64>) {
        self.tracked = meta;
        self.tracked_since = meta.map(|_| Instant::now());
    }

    fn untrack(&mut self) {
        (self.tracked, self.tracked_since) = (None, None);
    }
}

/// How long a presence is tracked before everyone has heard of it, and of what was before.
const SETTLED: Duration = SLOW.saturating_mul(4);

/// What a client may track, as far as the others can know.
pub(super) enum Tracked {
    Nothing,
    Meta(u64),
    /// Its session may have ended without its knowing.
    Unknown,
}

impl Client {
    pub(super) async fn connect(
        node: &Node,
        number: u64,
        user: &'static str,
        is_resumable: bool,
        record: &Record,
    ) -> Self {
        let key = format!("c{number}");
        record.trace(format_args!("{key} comes to {:?} {user} {is_resumable}", node.origin()));
        let session = format!("session-{number:020}");
        let all = [("name", user), ("key", &key), ("session", &session), ("received", "0")];
        let params = if is_resumable { &all[..] } else { &all[..2] };
        // A disconnect of its user may come late, and meet it while it connects.
        let inner = loop {
            match test::connect(&node.endpoint, params).await {
                Ok(inner) => break inner,
                Err(refused) => {
                    assert_eq!(
                        refused.status_code(),
                        StatusCode::SERVICE_UNAVAILABLE,
                        "{refused:?}"
                    );
                    sleep(Duration::from_millis(100)).await;
                }
            }
        };
        Self {
            number,
            user,
            at: node.origin(),
            is_resumable,
            is_on_dead_node: false,
            is_deposited: false,
            expects_restart: false,
            returning: None,
            joins: 0,
            is_exact: is_resumable && node.ends_channels,
            inner,
            away: None,
            topics: Default::default(),
            may_lose_channels: !record.is_whole(),
            may_close: record.was_disconnected(user).then(Instant::now),
            closed_by: None,
            key,
        }
    }

    /// Joins a topic unless it is joined. As all that follow, returns whether the connection is open, or it is away.
    pub(super) async fn join(&mut self, topic: usize, record: &mut Record) -> bool {
        if self.away.is_some() || self.topics[topic].join.is_some() {
            return true;
        }
        let reference = self.send_join(topic);
        self.answer(topic, &reference, record).await
    }

    pub(super) async fn leave(&mut self, topic: usize, record: &mut Record) -> bool {
        let Some(reference) = self.push(topic, "phx_leave", json!({})) else { return true };
        self.topics[topic].untrack();
        // The end of the channel follows the answer.
        self.answer(topic, &reference, record).await
            && self.wait(record, |it| it.topics[topic].join.is_none()).await
    }

    pub(super) async fn say(&mut self, topic: usize, spares: bool, record: &mut Record) -> bool {
        let (event, reach) = match spares {
            true => ("say_from", Reach::Except(self.number)),
            false => ("say", Reach::All),
        };
        let number = record.send(topic, self.at, reach);
        let payload = json!({ "k": number });
        let Some(reference) = self.push(topic, event, payload) else {
            record.doubt();
            return true;
        };
        let is_answered = self.answer(topic, &reference, record).await;
        if !is_answered || self.topics[topic].join.is_none() {
            record.doubt();
        }
        is_answered
    }

    pub(super) async fn track(&mut self, topic: usize, meta: u64, record: &mut Record) -> bool {
        let event = if self.topics[topic].tracked.is_some() { "update" } else { "track" };
        let Some(reference) = self.push(topic, event, json!({ "v": meta })) else { return true };
        let is_answered = self.answer(topic, &reference, record).await;
        let it = &mut self.topics[topic];
        if it.join.is_some() && it.tracked.replace(meta).is_none() {
            it.tracked_since = Some(Instant::now());
        }
        is_answered
    }

    pub(super) async fn untrack(&mut self, topic: usize, record: &mut Record) -> bool {
        let Some(reference) = self.push(topic, "untrack", json!({})) else { return true };
        self.topics[topic].untrack();
        self.answer(topic, &reference, record).await
    }

    /// Loses its connection, or closes it. Returns whether its session outlives it.
    pub(super) fn detach(&mut self, closes: bool, record: &mut Record) -> bool {
        if self.away.is_some() {
            return true;
        }
        if !self.read(record) {
            return false;
        }
        if closes {
            self.inner.close_connection();
        } else {
            self.inner.drop_connection();
        }
        self.away = Some((Instant::now(), closes));
        if !self.is_resumable {
            self.finish_all(Instant::now(), record);
        }
        self.is_resumable
    }

    /// Its node has ended, in order or not. Returns whether it may come back to another.
    pub(super) fn lose_node(
        &mut self,
        in_order: bool,
        nowhere: &Endpoint<User>,
        record: &mut Record,
    ) -> bool {
        self.is_deposited = in_order && record.is_whole() && self.may_close.is_none();
        // Its session may be one that it has not heard of.
        self.is_deposited &= !self.may_lose_channels;
        self.away.get_or_insert_with(|| (Instant::now(), false));
        self.inner.let_go(nowhere);
        // What it tracked goes with the node, and perhaps its session.
        (self.is_on_dead_node, self.may_lose_channels) = (true, true);
        if !self.is_resumable {
            self.finish_all(Instant::now(), record);
        }
        self.is_resumable
    }

    /// Somebody disconnects a user.
    pub(super) fn be_disconnected(&mut self, user: &str, by: Origin) {
        if self.user == user {
            self.may_close.get_or_insert_with(Instant::now);
            self.may_lose_channels = true;
            self.closed_by.get_or_insert(by);
        }
    }

    /// A node shuts down.
    pub(super) fn expect_restart(&mut self, node: Origin) {
        self.expects_restart |= self.at == node;
    }

    /// Something breaks.
    pub(super) fn trouble(&mut self) {
        (self.may_lose_channels, self.is_deposited) = (true, false);
    }

    fn send_join(&mut self, topic: usize) -> String {
        self.joins += 1;
        self.inner.send_join(TOPICS[topic], json!(self.joins))
    }

    /// Pushes to a topic if it is joined, and returns the ref.
    fn push(&mut self, topic: usize, event: &str, payload: Value) -> Option<String> {
        let is_open = self.away.is_none() && self.topics[topic].join.is_some();
        is_open.then(|| self.inner.send(TOPICS[topic], event, payload))
    }

    /// The topics on which its presence must be seen all the time by those who have seen it.
    pub(super) fn stays(&self) -> Vec<(usize, String)> {
        let has_closed = self.away.is_some_and(|(_, has_closed)| has_closed);
        if has_closed || self.may_lose_channels || self.may_close.is_some() {
            return Vec::new();
        }
        let is_old = |it: &Topic| it.tracked_since.is_some_and(|since| since.elapsed() > SETTLED);
        let topics = self.topics.iter().enumerate();
        let stay = topics.filter(|(_, it)| it.tracked.is_some() && is_old(it));
        stay.map(|(topic, _)| (topic, self.key.clone())).collect()
    }

    /// Whether a session of it may be on a node where it is not: one that has begun anew elsewhere since, where it is gone;
    /// or anyone, if the node was not told.
    pub(super) fn may_be_anywhere(&self, is_untold: bool) -> bool {
        self.is_resumable && (is_untold || self.away.is_some() && self.may_lose_channels)
    }

    pub(super) fn is_on_dead_node(&self) -> bool {
        self.is_on_dead_node
    }

    /// Everything was found to be whole.
    pub(super) fn begin_era(&mut self, record: &Record) {
        if self.away.is_none() {
            (self.may_lose_channels, self.may_close) = (false, None);
        }
        self.closed_by.take_if(|by| self.away.is_none() || record.has_ended(by.number));
    }

    /// Its spans.
    pub(super) fn spans(&self) -> impl Iterator<Item = &Span> {
        // What waits for a client that is away is not known.
        let joins = self.topics.iter().filter_map(|topic| topic.join.as_ref());
        joins.filter(|_| self.away.is_none()).map(|join| &join.span)
    }

    pub(super) fn is_away(&self) -> bool {
        self.away.is_some()
    }

    pub(super) fn has_joined(&self, topic: usize) -> bool {
        self.topics[topic].join.is_some()
    }

    /// Returns whether it may have been disconnected, and whether it must.
    pub(super) fn is_closed(&self, record: &Record) -> (bool, bool) {
        let must = self.closed_by.is_some_and(|by| !record.has_ended(by.number));
        (self.may_close.is_some(), must)
    }

    /// What it tracks, once everything is mended.
    pub(super) fn tracked(&self, topic: usize) -> Tracked {
        let Some(meta) = self.topics[topic].tracked else { return Tracked::Nothing };
        if self.is_on_dead_node {
            return Tracked::Nothing;
        }
        match self.away {
            None => Tracked::Meta(meta),
            Some(_) if self.may_lose_channels => Tracked::Unknown,
            Some((since, true)) if since.elapsed() > LEAVE_GRACE => Tracked::Nothing,
            Some((_, true)) => Tracked::Unknown,
            Some((_, false)) => Tracked::Meta(meta),
        }
    }
}
