//! What a resumable session sends: everything is kept until it is known to have arrived.
//!
//! ```text
//! sent   a b c d | e f g        waiting   h i j
//!                  ^                      in paused streams, or next to be sent
//!                  acked: the client's network has everything before it
//! ```
//! An *epoch* is one connection of the session, or the life of one long-poll token. What an epoch sent
//! and the client may not have waits again when the next epoch begins, and gets new numbers when it is
//! sent again. Nothing is sent twice in one epoch.
//!
//! No number is given twice: those of an epoch are above all that were given before, and a message
//! that waits again has none. So `sent` spans the numbers of one epoch, and a number that a client saw
//! in another epoch, or in an earlier session of the same id, acknowledges nothing of it. Nor in one beside it, on a node
//! that could not be asked: its numbers are kept [apart](ReplayBuffer::keep_apart).
//!
//! The next epoch begins with all *streams* paused; each waits until it is resumed. Priority messages
//! are never paused, overtake all streams, and are not replayed.
//!
//! This is plain code: it knows no task, no socket, and no clock but the time that it is given.

mod apart;
mod arrived;
mod moved;
mod replies;
mod take;

use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use super::budget::ByteBudget;
use super::loss::Loss;
use super::priority::{Kind, PriorityQueue};
use super::sent::Sent;
use super::streams::{PRIORITY, StreamId, Streams};
use crate::frame::Message;

#[derive(Debug)]
pub(super) struct ReplayBuffer {
    /// The epoch that may send; 0 before the first one.
    epoch: u64,
    connection: Connection,
    /// Whether a superseded connection has shown since the epoch began that its client is there.
    has_conflict: bool,
    /// Whether the first message that did not arrive has counted this epoch.
    has_counted_try: bool,
    /// Whether the client reads numbers.
    numbered: bool,
    priority: PriorityQueue,
    streams: Streams,
    sent: Sent,
    next_number: u64,
    /// How far behind the numbers of another session of the same id those begin that are given here.
    gap: u64,
    /// The position before which polls have acknowledged everything.
    polled: u64,
    /// The position behind the last heartbeat reply that was sent, if the next heartbeat will prove
    /// anything about it.
    heartbeat_reply: Option<u64>,
}

/// The connection of the current epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Attached,
    /// A long-poll client between two polls, which may never come back.
    Idle,
    Lost(Loss),
}

/// The result of [`ReplayBuffer::attach`].
#[derive(Clone, Copy, Debug)]
pub(super) struct NewEpoch {
    pub(super) epoch: u64,
    /// How many messages wait in paused streams, whether they were sent before or not.
    pub(super) replayed: usize,
}

/// An acknowledgement of a position that was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnknownPosition;

impl ReplayBuffer {
    /// Creates a buffer whose numbers begin after `received`. All streams are resumed until the first
    /// epoch begins.
    pub(super) fn new(received: u64) -> Self {
        Self {
            epoch: 0,
            connection: Connection::Attached,
            has_conflict: false,
            has_counted_try: false,
            numbered: false,
            priority: PriorityQueue::default(),
            streams: Streams::default(),
            sent: Sent::default(),
            next_number: received.saturating_add(1),
            gap: 0,
            polled: 0,
            heartbeat_reply: None,
        }
    }

    /// Lets the numbers of the next epoch begin after `received`.
    pub(super) fn begin_after(&mut self, received: u64) {
        self.next_number = self.next_number.max(received.saturating_add(1));
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn is_attached(&self) -> bool {
        self.connection == Connection::Attached
    }

    /// Returns whether a client that reads numbers, and has seen `received`, can go on without a gap.
    pub(super) fn has_all_after(&self, received: Option<u64>) -> bool {
        // A number that was not given here says nothing of what was.
        let received = received.map(|number| if number < self.next_number { number } else { 0 });
        received.is_none_or(|received| self.sent.has_all_after(received))
    }

    /// Begins an epoch, unless the client would miss messages.
    ///
    /// `received` is the last number that the client has seen, if it reads numbers. If it does not,
    /// what its network acknowledged may still have been lost behind that: when the client closed the
    /// connection itself, or seems to be alive elsewhere.
    pub(super) fn attach(
        &mut self,
        received: Option<u64>,
        budget: &mut ByteBudget,
    ) -> Option<NewEpoch> {
        if !self.has_all_after(received) {
            return None;
        }
        match received {
            // A number that was not given here acknowledges nothing.
            Some(received) if received >= self.next_number => {
                self.next_number = self.number_behind(received);
            }
            Some(received) => self.sent.forget_seen(received, budget),
            None if self.connection == Connection::Lost(Loss::Cut) => {
                self.sent.forget(self.sent.acked(), budget);
            }
            None => {}
        }
        budget.release(self.priority.clear());
        self.streams.end_epoch(self.read_to(), |position| self.sent.is_acked(position));
        let sent = self.sent.restart(budget);
        budget.release(self.streams.pause_all(sent));
        self.heartbeat_reply = None;
        self.has_counted_try = false;
        self.epoch += 1;
        self.connection = Connection::Attached;
        self.numbered = received.is_some();
        Some(NewEpoch { epoch: self.epoch, replayed: self.streams.paused() })
    }

    /// Records that the connection of `epoch` is lost. The first report counts.
    pub(super) fn detach(&mut self, epoch: u64, loss: Loss) {
        if epoch == self.epoch {
            self.connection = match self.connection {
                Connection::Attached => Connection::Lost(loss),
                // Nobody knows what the client did with the last answer.
                Connection::Idle => Connection::Lost(Loss::GivenUp),
                lost @ Connection::Lost(_) => lost,
            };
        }
    }

    /// Supersedes the connection without another one. Returns `false` if it was lost already.
    pub(super) fn end_epoch(&mut self) -> bool {
        let has_connection = self.loss().is_none();
        self.detach(self.epoch, Loss::Cut);
        self.epoch += u64::from(has_connection);
        has_connection
    }

    /// How the connection of the current epoch was lost, if it was.
    pub(super) fn loss(&self) -> Option<Loss> {
        match self.connection {
            Connection::Lost(loss) => Some(loss),
            Connection::Attached | Connection::Idle => None,
        }
    }

    /// Records that the connection of `epoch` is lost after a time in which a message could arrive.
    pub(super) fn count_try(&mut self, epoch: u64) {
        if epoch == self.epoch && !mem::replace(&mut self.has_counted_try, true) {
            self.sent.count_try();
        }
    }

    /// Returns whether one message is sent on each connection, and arrives on none.
    pub(super) fn is_stuck(&self) -> bool {
        self.sent.is_stuck()
    }

    /// Records that the connection of `epoch` is idle, and may be lost.
    pub(super) fn set_idle(&mut self, epoch: u64) {
        if epoch == self.epoch && self.is_attached() {
            self.connection = Connection::Idle;
        }
    }

    /// Records that the connection of `epoch` is in use after all.
    pub(super) fn set_active(&mut self, epoch: u64) {
        if epoch == self.epoch {
            self.connection = Connection::Attached;
        }
    }

    /// Records that the client of `epoch` is there, although a newer epoch may have taken over.
    pub(super) fn report_conflict(&mut self, epoch: u64) {
        self.has_conflict |= epoch != self.epoch;
    }

    /// Returns whether there was a conflict since the last call.
    pub(super) fn take_conflict(&mut self) -> bool {
        mem::take(&mut self.has_conflict)
    }

    /// Creates a stream, which is paused until it is resumed.
    pub(super) fn stream(&mut self) -> StreamId {
        self.streams.add()
    }

    /// Lets a stream discard volatile messages that outlive the connection they were meant for.
    pub(super) fn discard_volatile(&mut self, stream: StreamId) {
        self.streams.discard_volatile(stream);
    }

    /// Pushes a message. Returns `false` if it is not needed: its stream has ended or discards it.
    pub(super) fn push(&mut self, stream: StreamId, message: Message) -> bool {
        if stream == PRIORITY {
            self.push_priority(message, Kind::Plain);
            return true;
        }
        let is_lost = self.loss().is_some();
        self.streams.push(stream, message, is_lost)
    }

    /// Before the first epoch there is nothing to overtake, and everything keeps its order.
    fn push_priority(&mut self, message: Message, kind: Kind) {
        if self.epoch == 0 {
            self.streams.push_priority(message);
        } else {
            self.priority.push(message, kind);
        }
    }

    /// Pushes the reply to a heartbeat. phoenix.js sends the next heartbeat after it has read this
    /// reply, and everything that was sent before it.
    ///
    /// The heartbeat of another client may be a timer. A client that reads numbers proves with them
    /// what it has read, so its heartbeat counts as a sign of its network.
    pub(super) fn push_heartbeat_reply(&mut self, message: Message, budget: &mut ByteBudget) {
        if let Some(position) = self.heartbeat_reply.take() {
            if self.numbered {
                self.sent.acknowledge(position, budget);
            } else {
                self.sent.forget(position, budget);
            }
        }
        self.push_priority(message, Kind::HeartbeatReply);
    }

    /// Records that no heartbeat proves anything about what was sent so far: a poll may be answered
    /// with it again.
    pub(super) fn ignore_heartbeat(&mut self) {
        self.heartbeat_reply = None;
    }

    /// Resumes a stream in `epoch` with a reply that goes before it. Returns `false`, and does
    /// nothing, if that epoch is over.
    ///
    /// What is left of streams that have ended goes before the reply, which may answer the next join
    /// of their topic.
    pub(super) fn resume(&mut self, stream: StreamId, epoch: u64, reply: Message) -> bool {
        let is_current = epoch == self.epoch;
        if is_current {
            self.push_leftovers();
            self.streams.resume(stream, self.read_to());
            self.push_priority(reply, Kind::ResumeReply(stream));
        }
        is_current
    }

    /// Pauses a stream until it is resumed.
    pub(super) fn pause(&mut self, stream: StreamId, budget: &mut ByteBudget) {
        budget.release(self.streams.pause(stream));
    }

    /// Pushes the last message of a stream that the client has asked to end: it does not wait for the
    /// stream to be resumed.
    pub(super) fn push_last(&mut self, stream: StreamId, message: Message) -> bool {
        let to = if self.streams.is_paused(stream) { PRIORITY } else { stream };
        self.push(to, message)
    }

    /// Ends a stream. What waits in it is lost if it is paused.
    pub(super) fn end_stream(&mut self, stream: StreamId, budget: &mut ByteBudget) {
        budget.release(self.streams.end(stream));
    }

    /// Ends a stream, and creates another under its id.
    pub(super) fn restart_stream(&mut self, stream: StreamId, budget: &mut ByteBudget) {
        self.end_stream(stream, budget);
        self.push_leftovers();
        self.sent.disown(stream);
        self.priority.disown(stream);
        self.streams.insert(stream);
    }

    /// Sends the messages of streams that have ended before everything else that waits.
    fn push_leftovers(&mut self) {
        // Before the first epoch everything keeps its order.
        if self.epoch > 0 {
            for message in self.streams.take_leftovers() {
                self.push_priority(message, Kind::Plain);
            }
        }
    }

    /// The position behind the last message that was sent.
    pub(super) fn position(&self) -> u64 {
        self.sent.position()
    }

    /// How far the client's network has acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.sent.acked()
    }

    /// Records that everything before `position` has arrived, at least at the client's transport.
    pub(super) fn acknowledge(
        &mut self,
        position: u64,
        budget: &mut ByteBudget,
    ) -> Result<(), UnknownPosition> {
        if position > self.position() {
            return Err(UnknownPosition);
        }
        // Before the first epoch the outbox has one connection, and no other will need this.
        if self.epoch == 0 {
            self.sent.forget(position, budget);
            return Ok(());
        }
        let before = self.sent.acked();
        self.sent.acknowledge(position, budget);
        self.polled = self.polled.max(position);
        // A client that reads numbers proves with them what it has seen; this was its transport. If it
        // does not, the next acknowledgement shows that it has handled the last answer: phoenix.js
        // polls again before it dispatches an answer, and may stop in between.
        if !self.numbered && position > before {
            self.sent.forget(before, budget);
        }
        Ok(())
    }

    /// Records that everything before `position` has reached the client's network. It is retained for
    /// a while, as the client may not have read it.
    pub(super) fn acknowledge_network(&mut self, position: u64, budget: &mut ByteBudget) {
        self.sent.acknowledge(position, budget);
    }

    /// Records that the client itself has read everything that was sent.
    pub(super) fn acknowledge_all(&mut self, budget: &mut ByteBudget) {
        self.sent.forget(self.position(), budget);
    }

    /// Evicts what has been retained for `ttl`; see [`Sent::age`].
    pub(super) fn age(&mut self, now: Instant, ttl: Duration, budget: &mut ByteBudget) {
        self.sent.age(now, ttl, budget);
    }

    /// What this epoch sent and the client's transport has not acknowledged.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = &Message> {
        self.sent.unacknowledged()
    }

    /// Drops everything that no client will receive: nothing more is sent, and only before the first
    /// epoch a client may still ask for what was.
    pub(super) fn clear(&mut self, budget: &mut ByteBudget) {
        budget.release(self.priority.clear());
        budget.release(self.streams.clear());
        if self.epoch > 0 {
            self.acknowledge_all(budget);
        }
    }
}

#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
mod inspect;
#[cfg(test)]
mod tests;
