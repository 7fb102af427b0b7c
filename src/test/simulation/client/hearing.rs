//! What a client makes of what it receives.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tower_channels_transports::Close;

use super::{Client, Join};
use crate::test::Message;
use crate::test::simulation::record::Record;
use crate::test::simulation::{PATIENCE, TOPICS, view};

impl Client {
    /// Reads what has come. Returns whether the connection is open, or it is away.
    pub(in crate::test::simulation) fn read(&mut self, record: &mut Record) -> bool {
        if self.away.is_some() {
            return true;
        }
        let mut context = Context::from_waker(Waker::noop());
        match self.inner.poll_take(&mut context) {
            Poll::Ready((messages, close)) => self.hear_all(messages, close, record),
            Poll::Pending => true,
        }
    }

    /// Waits for something.
    pub(super) async fn wait(
        &mut self,
        record: &mut Record,
        is_done: impl Fn(&Self) -> bool,
    ) -> bool {
        let until = Instant::now() + PATIENCE;
        while !is_done(self) {
            let received = timeout_at(until, poll_fn(|cx| self.inner.poll_take(cx))).await;
            let (messages, close) = received.expect("something has taken too long");
            if !self.hear_all(messages, close, record) {
                return false;
            }
        }
        true
    }

    pub(super) async fn answer(
        &mut self,
        topic: usize,
        reference: &str,
        record: &mut Record,
    ) -> bool {
        self.answer_after(topic, reference, Instant::now(), record).await
    }

    /// Waits for an answer. `since` is when the client has heard the channel last.
    pub(super) async fn answer_after(
        &mut self,
        topic: usize,
        reference: &str,
        since: Instant,
        record: &mut Record,
    ) -> bool {
        let until = Instant::now() + PATIENCE;
        loop {
            let received = timeout_at(until, poll_fn(|cx| self.inner.poll_take(cx))).await;
            let (mut messages, close) = received.expect("an answer has taken too long");
            let is_answer = |it: &Message| it.reference.as_deref() == Some(reference);
            let Some(at) = messages.iter().position(is_answer) else {
                if !self.hear_all(messages, close, record) {
                    return false;
                }
                continue;
            };
            let after = messages.split_off(at + 1);
            let answer = messages.pop().expect("it was found");
            if !self.hear_all(messages, None, record) {
                return false;
            }
            self.hear_answer(topic, &answer, since, record);
            return self.hear_all(after, close, record);
        }
    }

    fn hear_answer(&mut self, topic: usize, answer: &Message, since: Instant, record: &mut Record) {
        let body: Value = answer.payload.parse().expect("JSON");
        record.notice(self.number, topic, body.to_string());
        let status = body["status"].as_str();
        // What the channel tracks for the client. What it has asked for last may be lost with an old session.
        let tracked = body["response"][1]["v"].as_u64();
        let response = &body["response"];
        let (mut arrival, number) = (response[0].as_str(), response[2].as_u64());
        let heard = self.topics[topic].join.as_ref().map(|join| join.heard);
        let is_repeated = arrival == Some("resumed");
        if is_repeated && number > heard {
            // The first answer to arrive of those that this channel has given.
            arrival = response[3].as_str();
        }
        match arrival {
            Some("joined") => {
                let it = &mut self.topics[topic];
                if let Some(join) = it.join.take() {
                    assert!(!self.is_deposited, "{} was not left in the store", self.key);
                    assert!(self.may_lose_channels, "{} has lost its channel", self.key);
                    record.finish(join.span, since);
                }
                it.untrack();
                it.view.clear();
                let reference = answer.reference.clone().expect("an answer has a ref");
                let span = record.begin(topic, self.number, self.at, self.is_exact);
                // What was sent since that join follows.
                let span = if is_repeated { span.returned() } else { span };
                let heard = number.expect("a number");
                it.join = Some(Join { reference, span, heard });
            }
            Some("resumed") => {
                let join = self.topics[topic].join.as_mut().expect("it was joined");
                if join.span.at() != self.at {
                    // It has begun anew on another node while this one could not be asked, and did not know that.
                    assert!(self.may_lose_channels, "{} resumes an old session", self.key);
                    let span = record.begin(topic, self.number, self.at, self.is_exact);
                    let old = std::mem::replace(&mut join.span, span.returned());
                    record.finish(old, since);
                    self.topics[topic].set_tracked(tracked);
                }
            }
            Some(moved @ ("moved" | "moved with a gap")) => {
                let has_gap = moved != "moved";
                let may_have_gap = self.may_lose_channels || record.was_broken();
                assert!(!has_gap || may_have_gap, "{} has a gap", self.key);
                let reference = answer.reference.clone().expect("an answer has a ref");
                let it = &mut self.topics[topic];
                it.view.clear();
                it.set_tracked(tracked);
                let join = it.join.as_mut().expect("it was joined");
                join.reference = reference;
                join.heard = number.expect("a number");
                record.move_on(&mut join.span, self.at, self.is_exact, has_gap);
            }
            // The channel may just have ended.
            _ => assert!(status == Some("ok") || self.may_lose_channels, "{body}"),
        }
    }

    fn hear_all(
        &mut self,
        messages: Vec<Message>,
        close: Option<Close>,
        record: &mut Record,
    ) -> bool {
        for message in messages {
            self.hear(&message, record);
        }
        if close.is_some() {
            record.trace(format_args!("{} closed", self.key));
            if self.expects_restart && self.is_resumable {
                self.inner.drop_connection();
                self.away = Some((Instant::now(), false));
                return true;
            }
            if self.expects_restart {
                self.may_close.get_or_insert_with(Instant::now);
            }
            let Some(since) = self.may_close else {
                panic!("{} was disconnected: {close:?}", self.key);
            };
            self.finish_all(since, record);
        }
        close.is_none()
    }

    pub(super) fn finish_all(&mut self, at: Instant, record: &mut Record) {
        let at = self.returning.map_or(at, |since| since.min(at));
        let joins = self.topics.iter_mut().filter_map(|topic| topic.join.take());
        joins.for_each(|join| record.finish(join.span, at));
    }

    fn hear(&mut self, message: &Message, record: &mut Record) {
        record.trace(format_args!("{} hears {message}", self.key));
        let topic = TOPICS.iter().position(|name| *name == message.topic);
        let topic = topic.expect("a topic");
        record.notice(self.number, topic, message.event.as_str());
        let it = &mut self.topics[topic];
        let Some(join) = &mut it.join else {
            panic!("{} has not joined: {message}", self.key);
        };
        let payload: Value = message.payload.parse().expect("JSON");
        match &*message.event {
            "n" => {
                let number = payload["k"].as_u64().expect("a number");
                record.receive(&mut join.span, number as usize);
            }
            "presence_state" => it.view = view::read(&payload),
            "presence_diff" => {
                let before: Vec<_> = it.view.keys().cloned().collect();
                view::change(&mut it.view, &payload);
                let gone = before.iter().filter(|key| !it.view.contains_key(*key));
                gone.for_each(|key| record.check_leave(topic, key));
            }
            "phx_error" | "phx_close" if message.join_ref.as_ref() == Some(&join.reference) => {
                let is_gap = message.event == "phx_error";
                let may_be_told = self.may_lose_channels || record.was_broken();
                assert!(!is_gap || self.is_exact && may_be_told, "{}: {message}", self.key);
                let join = it.join.take().expect("it is joined");
                record.finish(join.span, Instant::now());
                it.untrack();
            }
            "phx_error" | "phx_close" => {}
            _ => panic!("{}: unexpected {message}", self.key),
        }
    }
}
