//! The messages that one epoch of a resumable session has sent and still keeps.
//!
//! ```text
//! a b c d | e f g
//! ^         ^     ^ position
//! first     acked: the client's network has everything before it
//! ```
//! Messages before `acked` are *retained*: they no longer count against the budget of the outbox, but
//! the client may not have read them. Those behind it are *in flight*.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use super::budget::ByteBudget;
use super::streams::{PRIORITY, StreamId};
use crate::frame::Message;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
use crate::memory::Cost;

#[derive(Debug, Default)]
pub(super) struct Sent {
    messages: VecDeque<(StreamId, Message)>,
    /// The position of the first message that is kept.
    first: u64,
    acked: u64,
    /// The position at which the epoch began.
    begun: u64,
    /// The cost of the messages before `acked`.
    retained: usize,
    /// The value of `acked` at an earlier time: everything before it has been retained since then.
    retained_since: Option<(Instant, u64)>,
    /// The highest number that was evicted although the client may not have seen it. (Replies have no
    /// number. If one is lost its push times out, which the client notices.)
    evicted: u64,
    /// The cost of the messages behind `acked`.
    in_flight: usize,
}

impl Sent {
    /// The position of the first message that is kept.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The position behind the last message.
    pub(super) fn position(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    /// The cost of the messages behind `acked`.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns whether the message at `position` has arrived.
    pub(super) fn is_acked(&self, position: u64) -> bool {
        position < self.acked
    }

    /// Returns whether anything that the epoch sent has arrived.
    pub(super) fn has_acked(&self) -> bool {
        self.acked > self.begun
    }

    /// How far the client's network has acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    pub(super) fn push(&mut self, stream: StreamId, message: Message) {
        self.in_flight += message.cost().bytes();
        // Most detached sessions hold a single message, the reply to a join.
        if self.messages.capacity() == 0 {
            self.messages.reserve_exact(1);
        }
        self.messages.push_back((stream, message));
    }

    /// Records that everything before `position` has reached the client's network.
    pub(super) fn acknowledge(&mut self, position: u64, budget: &mut ByteBudget) {
        while self.acked < position.min(self.position()) {
            let (_, message) = &self.messages[(self.acked - self.first) as usize];
            budget.retain(message.cost());
            self.in_flight -= message.cost().bytes();
            self.retained += message.cost().bytes();
            self.acked += 1;
        }
        while self.retained > MAX_RETAINED {
            self.evict(self.first + 1, budget);
        }
    }

    /// Drops the messages before `position`, which the client has read.
    pub(super) fn forget(&mut self, position: u64, budget: &mut ByteBudget) {
        while self.first < position {
            let Some((_, message)) = self.messages.pop_front() else { return };
            if self.first < self.acked {
                budget.forget(message.cost());
                self.retained -= message.cost().bytes();
            } else {
                budget.release(message.cost());
                self.in_flight -= message.cost().bytes();
                self.acked += 1;
            }
            self.first += 1;
        }
        // A busy session keeps one slot, like most detached ones.
        if self.messages.is_empty() && self.messages.capacity() > 1 {
            self.messages = VecDeque::new();
        }
    }

    /// Drops the messages that a client has read that has seen the number `received`.
    pub(super) fn forget_seen(&mut self, received: u64, budget: &mut ByteBudget) {
        let is_seen = |(_, message): &(StreamId, Message)| {
            message.number() != 0 && message.number() <= received
        };
        let seen = self.messages.iter().rposition(is_seen).map_or(0, |last| last + 1);
        self.forget(self.first + seen as u64, budget);
    }

    /// Lets the messages of a stream not be replayed.
    pub(super) fn disown(&mut self, stream: StreamId) {
        for (of, _) in &mut self.messages {
            if *of == stream {
                *of = PRIORITY;
            }
        }
    }

    /// Returns whether nothing was evicted that a client that has seen `received` has not.
    pub(super) fn has_all_after(&self, received: u64) -> bool {
        received >= self.evicted
    }

    /// Evicts what has been retained for `ttl`. Called at least once per `ttl`, it evicts everything
    /// within twice that time.
    pub(super) fn age(&mut self, now: Instant, ttl: Duration, budget: &mut ByteBudget) {
        if let Some((since, acked)) = self.retained_since {
            if now.saturating_duration_since(since) < ttl {
                return;
            }
            self.evict(acked, budget);
        }
        self.retained_since = Some((now, self.acked));
    }

    /// Evicts the retained messages before `position`.
    fn evict(&mut self, position: u64, budget: &mut ByteBudget) {
        while self.first < position.min(self.acked) {
            let Some((_, message)) = self.messages.pop_front() else { return };
            self.evicted = self.evicted.max(message.number());
            budget.forget(message.cost());
            self.retained -= message.cost().bytes();
            self.first += 1;
        }
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
    }

    /// Counts a connection that is lost although there was time to deliver something as a try of the
    /// first message that did not arrive.
    pub(super) fn count_try(&mut self) {
        if let Some(index) = self.first_in_flight() {
            self.messages[index].1.add_try();
        }
    }

    /// How often the first message in flight was tried before.
    pub(super) fn tries(&self) -> Option<u8> {
        self.first_in_flight().map(|index| self.messages[index].1.tries())
    }

    /// Returns whether the first message in flight was tried too often. A small one is not to blame.
    pub(super) fn is_stuck(&self) -> bool {
        self.first_in_flight().is_some_and(|index| {
            let (_, message) = &self.messages[index];
            message.tries() >= MAX_TRIES && message.cost().bytes() > LARGE
        })
    }

    /// The index of the first message in flight that the next epoch sends again.
    fn first_in_flight(&self) -> Option<usize> {
        let acked = (self.acked - self.first) as usize;
        let mut in_flight = self.messages.iter().enumerate().skip(acked);
        in_flight.find(|(_, (stream, _))| *stream != PRIORITY).map(|(index, _)| index)
    }

    /// Takes all messages out for the next epoch, without their numbers. All of them count against
    /// the budget again.
    pub(super) fn restart(&mut self, budget: &mut ByteBudget) -> VecDeque<(StreamId, Message)> {
        let position = self.position();
        let acked = (self.acked - self.first) as usize;
        let mut messages = mem::take(&mut self.messages);
        for (index, (_, message)) in messages.iter_mut().enumerate() {
            if index < acked {
                budget.restore(message.cost());
            }
            message.set_number(0);
        }
        *self = Self {
            first: position,
            acked: position,
            begun: position,
            evicted: self.evicted,
            ..Self::default()
        };
        messages
    }

    /// The highest number that was evicted although the client may not have seen it.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Returns the messages that `keeps` selects, and how many of these are before `acked`. Each has the lowest number
    /// that shows that it has arrived: its own, or that of a later message.
    pub(super) fn export(
        &self,
        keeps: impl Fn(StreamId, &Message) -> bool,
    ) -> (Vec<(StreamId, Message)>, usize) {
        let (mut exported, mut kept_acked) = (Vec::new(), 0);
        let (acked, mut number) = ((self.acked - self.first) as usize, 0);
        for (index, (stream, message)) in self.messages.iter().enumerate().rev() {
            if message.number() != 0 {
                number = message.number();
            }
            if keeps(*stream, message) {
                let mut message = message.clone();
                message.set_number(number);
                exported.push((*stream, message));
                kept_acked += usize::from(index < acked);
            }
        }
        exported.reverse();
        (exported, kept_acked)
    }

    /// Keeps messages that another node has sent, of which the first `acked` have reached the client's network.
    pub(super) fn import(
        &mut self,
        messages: Vec<(StreamId, Message)>,
        acked: usize,
        evicted: u64,
        budget: &mut ByteBudget,
    ) {
        self.evicted = evicted;
        for (index, (stream, message)) in messages.into_iter().enumerate() {
            let cost = message.cost();
            budget.import(cost);
            self.push(stream, message);
            if index < acked {
                budget.retain(cost);
                self.in_flight -= cost.bytes();
                self.retained += cost.bytes();
                self.acked += 1;
            }
        }
    }

    /// The messages that the client's transport has not acknowledged.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = &Message> {
        let acked = (self.acked - self.first) as usize;
        self.messages.iter().skip(acked).map(|(_, message)| message)
    }

    /// The cost of the messages in flight and of those retained, both computed from scratch.
    #[cfg(any(test, fuzzing, feature = "unstable-internals"))]
    pub(super) fn costs(&self) -> (usize, usize) {
        let acked = (self.acked - self.first) as usize;
        let retained = self.messages.iter().take(acked).map(|(_, message)| message.cost());
        let in_flight = self.unacknowledged().map(Message::cost).sum::<Cost>();
        (in_flight.bytes(), retained.sum::<Cost>().bytes())
    }
}

/// How many bytes are retained at most after the client's network has acknowledged them.
pub(crate) const MAX_RETAINED: usize = 256 * 1024;

/// The size above which a message may never arrive: as much as is in flight on the slowest line.
const LARGE: usize = 32 * 1024;

/// How many connections may be lost over one message.
const MAX_TRIES: u8 = 3;
