//! A random walk through a replay buffer beside a simple model of it, driven by bytes, for tests and
//! the fuzz target.
//!
//! The model is a client at the end of a wire. It knows what was pushed into each stream, reads what
//! arrives, loses connections in every way, and comes back. It panics if the buffer misbehaves.

mod checks;
mod moves;
mod stream;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use self::stream::{Name, StreamModel, message, name};
use super::budget::ByteBudget;
use super::loss::Loss;
use super::replay_buffer::ReplayBuffer;
use super::streams::{PRIORITY, StreamId};
use crate::frame::Message;

/// Takes the steps that `bytes` encode, then reconnects once more and reads to the end.
///
/// # Panics
///
/// If a message is lost, duplicated, reordered or sent too early, or if costs are counted wrongly.
pub fn walk(bytes: &[u8]) {
    walk_on(bytes, true);
}

/// Walks on one node, or on several. Returns what was sent.
fn walk_on(bytes: &[u8], moves: bool) -> Vec<Message> {
    let mut bytes = bytes.iter().copied();
    let start = bytes.next().unwrap_or(0);
    let mut walk = Walk::new(start & 1 == 1, if start & 2 == 2 { 4_000 } else { 1 << 30 });
    walk.moves = moves;
    while let Some(step) = bytes.next() {
        walk.step(step % 22, usize::from(bytes.next().unwrap_or(0)));
        if walk.has_ended {
            return walk.all_sent;
        }
        walk.check();
    }
    walk.finish();
    walk.all_sent
}

struct Walk {
    buffer: ReplayBuffer,
    budget: ByteBudget,
    /// Whether the session moves to other nodes.
    moves: bool,
    /// Messages that were sent in any epoch, as they were.
    all_sent: Vec<Message>,
    limit: usize,
    largest: usize,
    /// Whether the session has ended: its outbox overflowed, or its client came back too late.
    has_ended: bool,
    /// Whether the client reads numbers.
    numbered: bool,
    received: u64,
    streams: BTreeMap<StreamId, StreamModel>,
    /// Streams that have ended. The client reads a prefix of what was pushed into them.
    ended: BTreeMap<StreamId, StreamModel>,
    /// Messages that were sent in this epoch and that the client has not read.
    wire: VecDeque<Message>,
    /// Messages that were sent in this epoch.
    sent: HashSet<Name>,
    /// Priority messages that were sent in any epoch.
    sent_priority: HashSet<u32>,
    /// Those that resume a stream of this node, which the client then knows.
    replies: BTreeMap<u32, StreamId>,
    /// How far the client's network has acknowledged.
    acked: u64,
    attached: bool,
    closed_by_client: bool,
    priority: u32,
    /// Whether a heartbeat is unanswered.
    beating: bool,
    /// The position behind the last reply to a heartbeat.
    beat: u64,
    /// The epoch before the current one.
    stale: u64,
    now: Instant,
    /// Whether replies that the client had not read were evicted.
    has_evicted: bool,
}

impl Walk {
    fn new(numbered: bool, limit: usize) -> Self {
        let (mut buffer, mut budget) = (ReplayBuffer::new(0), ByteBudget::new(limit));
        buffer.attach(numbered.then_some(0), &mut budget);
        Self {
            buffer,
            budget,
            moves: false,
            all_sent: Vec::new(),
            limit,
            largest: 0,
            has_ended: false,
            numbered,
            received: 0,
            streams: BTreeMap::new(),
            ended: BTreeMap::new(),
            wire: VecDeque::new(),
            sent: HashSet::new(),
            sent_priority: HashSet::new(),
            replies: BTreeMap::new(),
            acked: 0,
            attached: true,
            closed_by_client: false,
            priority: 0,
            beating: false,
            beat: 0,
            stale: 0,
            now: Instant::now(),
            has_evicted: false,
        }
    }

    fn step(&mut self, step: u8, value: usize) {
        match step {
            0..=3 => self.push(value),
            4 => self.push_priority(),
            5 => self.beat(),
            6..=8 => self.take(value),
            9..=10 => self.read(value),
            11 if self.attached => self.acknowledge_network(value),
            12 if self.attached => self.acknowledge(value),
            13 if self.attached => self.detach(value),
            13 => self.reactivate(),
            14 => self.attach_on(if self.moves { value % 4 } else { 0 }),
            15..=16 => self.resume(value),
            17 => self.pause(value),
            18 if self.streams.len() < 4 => {
                let stream = self.buffer.stream();
                let replaced = self.streams.insert(stream, StreamModel::default());
                assert!(replaced.is_none(), "stream ids are not reused");
            }
            19 if value.is_multiple_of(4) => self.end_stream(value),
            20 if self.attached => self.age(value),
            21 if value.is_multiple_of(4) => self.restart_stream(value),
            _ => {}
        }
    }

    fn stream(&self, value: usize) -> Option<StreamId> {
        let index = value.checked_rem(self.streams.len())?;
        self.streams.keys().nth(index).copied()
    }

    fn admit(&mut self, message: &Message) -> bool {
        self.largest = self.largest.max(message.cost().bytes());
        self.has_ended = !self.budget.try_acquire(message.cost());
        !self.has_ended
    }

    fn push(&mut self, value: usize) {
        let Some(stream) = self.stream(value) else { return };
        let model = self.streams.entry(stream).or_default();
        let message = message((stream, model.pushed));
        model.pushed += 1;
        if self.admit(&message) {
            assert!(self.buffer.push(stream, message), "a stream takes messages until it ends");
        }
    }

    fn next_priority(&mut self) -> Message {
        self.priority += 1;
        Message::text(format!("{PRIORITY}:{}", self.priority))
    }

    fn push_priority(&mut self) {
        let message = self.next_priority();
        if self.admit(&message) {
            self.buffer.push(PRIORITY, message);
        }
    }

    /// A client sends a heartbeat when it has read the reply to the last, or by the clock if it reads
    /// numbers.
    fn beat(&mut self) {
        if self.attached && (self.numbered || !self.beating) {
            self.beating = true;
            if self.numbered {
                self.acked = self.acked.max(self.beat);
            }
            self.priority += 1;
            let message = Message::text(format!("{PRIORITY}:{}:beat", self.priority));
            if self.admit(&message) {
                self.buffer.push_heartbeat_reply(message, &mut self.budget);
            }
        }
    }

    fn take(&mut self, value: usize) {
        let (chunk, window) = match value % 4 {
            0 => (usize::MAX, usize::MAX),
            1 => (0, usize::MAX),
            2 => (300, 900),
            _ => (value * 8, value * 32),
        };
        let in_flight = self.buffer.in_flight();
        let mut batch = VecDeque::new();
        let any = self.buffer.take(chunk, window, |message| batch.push_back(message.clone()));
        assert_eq!(any, !batch.is_empty());
        let first = self.buffer.position() - batch.len() as u64;
        let (mut cost, mut has_ordinary) = (0, false);
        for (position, message) in (first + 1..).zip(batch) {
            let name @ (stream, place) = name(&message);
            if is_beat(&message) {
                self.beat = position;
            }
            if stream == PRIORITY {
                assert!(!has_ordinary, "priority messages go first");
                assert!(self.sent_priority.insert(place), "priority messages are not replayed");
            } else if self.streams.get(&stream).is_none_or(|model| model.is_leftover(place)) {
                // It may go before a reply.
                assert!(self.sent.insert(name), "{name:?} was sent twice in one epoch");
            } else {
                assert!(cost < chunk && in_flight + cost < window, "more than may be in flight");
                has_ordinary = true;
                cost += message.cost().bytes();
                let is_resumed = self.streams.get(&stream).map(|model| model.is_resumed);
                assert_eq!(is_resumed, Some(true), "{name:?} came before its stream was resumed");
                assert!(self.sent.insert(name), "{name:?} was sent twice in one epoch");
            }
            self.all_sent.push(message.clone());
            self.wire.push_back(message);
        }
    }

    /// The client reads `count` messages.
    fn read(&mut self, count: usize) {
        if !self.attached {
            return;
        }
        for _ in 0..count.min(self.wire.len()) {
            let Some(message) = self.wire.pop_front() else { return };
            self.see(&message);
        }
    }

    fn see(&mut self, message: &Message) {
        let (stream, place) = name(message);
        let takes_number = message.takes_number();
        assert_eq!(message.number() != 0, self.numbered && takes_number, "a number");
        if self.numbered && takes_number {
            assert!(message.number() > self.received, "number {} came again", message.number());
            self.received = message.number();
        }
        if stream == PRIORITY {
            self.beating &= !is_beat(message);
            let resumed = self.replies.get(&place).and_then(|it| self.streams.get_mut(it));
            resumed.into_iter().for_each(|stream| stream.is_known = true);
            return;
        }
        let ended = &mut self.ended;
        let model = self.streams.get_mut(&stream).or_else(|| ended.get_mut(&stream));
        let model = model.expect("a message of a known stream");
        model.read(place, !(self.numbered && takes_number), self.has_evicted);
    }

    /// The position behind some of the messages on the wire.
    fn position(&self, value: usize) -> u64 {
        let on_the_wire = value.checked_rem(self.wire.len() + 1).unwrap_or(0);
        self.buffer.position() - (self.wire.len() - on_the_wire) as u64
    }

    /// The client's network acknowledges messages that the client may not have read.
    fn acknowledge_network(&mut self, value: usize) {
        let position = self.position(value);
        self.acked = self.acked.max(position);
        self.buffer.acknowledge_network(position, &mut self.budget);
    }

    /// A poll acknowledges what the client has read. If it reads numbers, it may have read less.
    fn acknowledge(&mut self, value: usize) {
        let position = self.position(if self.numbered { value } else { 0 });
        let unknown = self.buffer.position() + 1 + value as u64;
        assert!(self.buffer.acknowledge(unknown, &mut self.budget).is_err());
        assert!(self.buffer.acknowledge(position, &mut self.budget).is_ok());
        // What a poll acknowledges has reached the page.
        let arrived = position.saturating_sub(self.read_to()) as usize;
        let arrived = self.wire.iter().take(arrived).map(name);
        for (_, reply) in arrived.filter(|(stream, _)| *stream == PRIORITY) {
            let resumed = self.replies.get(&reply).and_then(|it| self.streams.get_mut(it));
            resumed.into_iter().for_each(|stream| stream.is_known = true);
        }
        let unacknowledged = self.buffer.unacknowledged().count() as u64;
        let expected = self.buffer.position() - position.max(self.acked);
        assert_eq!(unacknowledged, expected, "a poll is answered with all that is left");
        self.acked = self.acked.max(position);
    }

    /// The connection ends. A client that closes it discards what it has not read; one that is cut off
    /// has read what its network acknowledged.
    fn detach(&mut self, value: usize) {
        let epoch = self.buffer.epoch();
        let closed_by_client = value.is_multiple_of(2);
        if !closed_by_client {
            self.read_acked();
        }
        // The first report counts.
        let loss = if closed_by_client { Loss::Closed } else { Loss::Cut };
        let other = if closed_by_client { Loss::Cut } else { Loss::GivenUp };
        self.buffer.detach(epoch, loss);
        self.buffer.detach(epoch, other);
        self.buffer.detach(epoch - 1, other);
        self.attached = false;
        self.closed_by_client = closed_by_client;
    }

    /// A poll arrives after all: nothing was lost but time.
    fn reactivate(&mut self) {
        if !self.closed_by_client {
            self.buffer.set_active(self.stale);
            assert!(!self.buffer.is_attached());
            self.buffer.set_active(self.buffer.epoch());
            assert!(self.buffer.is_attached());
            self.attached = true;
        }
    }

    fn read_acked(&mut self) {
        let count = self.acked.saturating_sub(self.read_to());
        self.read(count as usize);
    }

    /// The position up to which the client has read.
    fn read_to(&self) -> u64 {
        self.buffer.position() - self.wire.len() as u64
    }

    /// Time passes, and old retained messages are evicted. A client that reads no numbers has read
    /// them.
    fn age(&mut self, value: usize) {
        if !self.numbered {
            self.read_acked();
        }
        self.now += Duration::from_secs(value as u64);
        self.buffer.age(self.now, Duration::from_secs(90), &mut self.budget);
        self.has_evicted |= self.read_to() < self.acked;
    }

    fn resume(&mut self, value: usize) {
        let Some(stream) = self.stream(value) else { return };
        let reply = self.next_priority();
        if !self.admit(&reply) {
            return;
        }
        let cost = reply.cost();
        let stale = value % 8 == 7;
        let epoch = if stale { self.stale } else { self.buffer.epoch() };
        assert_eq!(self.buffer.resume(stream, epoch, reply), !stale);
        if stale {
            self.budget.release(cost);
        } else if let Some(model) = self.streams.get_mut(&stream) {
            model.is_resumed = true;
            self.replies.insert(self.priority, stream);
            assert!(!self.buffer.has_reply_arrived(stream), "the reply has not been sent");
        }
    }

    fn pause(&mut self, value: usize) {
        let Some(stream) = self.stream(value) else { return };
        self.buffer.pause(stream, &mut self.budget);
        self.streams.entry(stream).or_default().is_resumed = false;
    }

    fn restart_stream(&mut self, value: usize) {
        let Some(stream) = self.stream(value) else { return };
        self.buffer.restart_stream(stream, &mut self.budget);
        self.streams.entry(stream).or_default().restart();
        self.replies.retain(|_, resumed| *resumed != stream);
        assert!(!self.buffer.has_reply_arrived(stream), "the next reply has not been sent");
    }

    fn end_stream(&mut self, value: usize) {
        let Some(stream) = self.stream(value) else { return };
        self.buffer.end_stream(stream, &mut self.budget);
        self.ended.extend(self.streams.remove_entry(&stream));
        let late = message((stream, u32::MAX));
        assert!(!self.buffer.push(stream, late), "nothing follows in a stream that has ended");
    }
}

/// Returns whether this is the reply to a heartbeat.
fn is_beat(message: &Message) -> bool {
    message.rest().ends_with(b":beat")
}

#[cfg(test)]
mod tests;
