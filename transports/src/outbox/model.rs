//! A walk through a session's log beside a simple model of it, driven by bytes: for the tests here and
//! for the fuzz target. No part of the API.
//!
//! The model is a client at the end of a wire. It knows what was pushed into each stream, reads what
//! arrives, loses connections in every way, and comes back. It panics if the log did what it must not.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::budget::ByteBudget;
use super::replay_buffer::{MAX_RETAINED, ReplayBuffer};
use super::streams::{PRIORITY, StreamId};
use crate::frame::Message;

/// Walks as the bytes say, then comes back once more and reads to the end.
///
/// # Panics
/// If something was lost, came twice, out of order or too early, or was counted wrongly.
pub fn walk(bytes: &[u8]) {
    let mut bytes = bytes.iter().copied();
    let start = bytes.next().unwrap_or(0);
    let mut walk = Walk::new(start & 1 == 1, if start & 2 == 2 { 4_000 } else { 1 << 30 });
    while let Some(step) = bytes.next() {
        walk.step(step % 21, usize::from(bytes.next().unwrap_or(0)));
        if walk.is_over {
            return;
        }
        walk.check();
    }
    walk.come_back();
}

struct Walk {
    log: ReplayBuffer,
    backlog: ByteBudget,
    limit: usize,
    largest: usize,
    /// Whether the session has ended: its outbox overflowed, or its client came back too late.
    is_over: bool,
    /// Whether the client reads numbers.
    numbered: bool,
    received: u64,
    streams: BTreeMap<StreamId, LaneModel>,
    /// Streams that ended: what came of them was a beginning of what they sent.
    ended: BTreeMap<StreamId, LaneModel>,
    /// What was taken on this epoch and has not been read.
    wire: VecDeque<Message>,
    /// What this epoch has written.
    written: HashSet<Name>,
    /// Control messages that have been written, on any epoch.
    said: HashSet<u32>,
    /// How far the client's network has acknowledged.
    acked: u64,
    attached: bool,
    parted: bool,
    control: u32,
    /// Whether a heartbeat is unanswered.
    beating: bool,
    /// Attachments that are over.
    stale: u64,
    now: Instant,
    /// Whether replies that the client had not read were given up.
    gave_up: bool,
}

/// A stream and a place in it.
type Name = (StreamId, u32);

#[derive(Default)]
struct LaneModel {
    pushed: u32,
    /// How many the client has read: all before this one.
    seen: u32,
    open: bool,
}

impl LaneModel {
    /// Of what is missing before this place, replies may have been given up.
    fn skip_given_up(&mut self, gave_up: bool, place: u32) {
        while gave_up && self.seen < place && self.seen % 3 == 2 {
            self.seen += 1;
        }
    }
}

impl Walk {
    fn new(numbered: bool, limit: usize) -> Self {
        let (mut log, mut backlog) = (ReplayBuffer::new(0), ByteBudget::new(limit));
        log.attach(numbered.then_some(0), &mut backlog);
        Self {
            log,
            backlog,
            limit,
            largest: 0,
            is_over: false,
            numbered,
            received: 0,
            streams: BTreeMap::new(),
            ended: BTreeMap::new(),
            wire: VecDeque::new(),
            written: HashSet::new(),
            said: HashSet::new(),
            acked: 0,
            attached: true,
            parted: false,
            control: 0,
            beating: false,
            stale: 0,
            now: Instant::now(),
            gave_up: false,
        }
    }

    fn step(&mut self, step: u8, value: usize) {
        match step {
            0..=3 => self.push(value),
            4 => self.push_control(),
            5 => self.beat(),
            6..=8 => self.take(value),
            9..=10 => self.read(value),
            11 if self.attached => self.pong(value),
            12 if self.attached => self.acknowledge(value),
            13 if self.attached => self.part(value),
            13 => self.return_to(),
            14 => self.attach(),
            15..=16 => self.open(value),
            17 => self.hold(value),
            18 if self.streams.len() < 4 => {
                let stream = self.log.stream();
                assert!(
                    self.streams.insert(stream, LaneModel::default()).is_none(),
                    "a stream twice"
                );
            }
            19 if value.is_multiple_of(4) => self.end_stream(value),
            20 if self.attached => self.age(value),
            _ => {}
        }
    }

    fn stream(&self, value: usize) -> Option<StreamId> {
        let index = value.checked_rem(self.streams.len())?;
        self.streams.keys().nth(index).copied()
    }

    /// A message that bears its name. Three kinds: numbered in its text, counted, and a reply.
    fn message((stream, place): Name) -> Message {
        let text = format!("{stream}:{place}");
        match place % 3 {
            0 => Message::with_placeholder(format!("null,{text}"), 0),
            1 => Message::binary(text).numbered(),
            _ => Message::text(text),
        }
    }

    fn admit(&mut self, message: &Message) -> bool {
        self.largest = self.largest.max(message.cost());
        self.is_over = !self.backlog.add(message.cost());
        !self.is_over
    }

    fn push(&mut self, value: usize) {
        let Some(stream) = self.stream(value) else { return };
        let model = self.streams.entry(stream).or_default();
        let message = Self::message((stream, model.pushed));
        model.pushed += 1;
        if self.admit(&message) {
            assert!(self.log.push(stream, message), "a stream that lives takes messages");
        }
    }

    fn next_control(&mut self) -> Message {
        self.control += 1;
        Message::text(format!("{PRIORITY}:{}", self.control))
    }

    fn push_control(&mut self) {
        let message = self.next_control();
        if self.admit(&message) {
            self.log.push(PRIORITY, message);
        }
    }

    /// A client sends a heartbeat when it has read the reply to the last, and not before.
    fn beat(&mut self) {
        if self.attached && !self.beating {
            self.beating = true;
            self.control += 1;
            let message = Message::text(format!("{PRIORITY}:{}:beat", self.control));
            if self.admit(&message) {
                self.log.push_heartbeat_reply(message, &mut self.backlog);
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
        let under_way = self.log.under_way();
        let mut batch = VecDeque::new();
        let any = self.log.take(chunk, window, |message| batch.push_back(message.clone()));
        assert_eq!(any, !batch.is_empty());
        let (mut cost, mut ordinary) = (0, false);
        for message in batch {
            let name @ (stream, place) = name(&message);
            if stream == PRIORITY {
                assert!(!ordinary, "control goes first");
                assert!(self.said.insert(place), "control is not repeated");
            } else {
                assert!(cost < chunk && under_way + cost < window, "more than may be under way");
                ordinary = true;
                cost += message.cost();
                let open = self.streams.get(&stream).is_none_or(|model| model.open);
                assert!(open, "{name:?} came before its stream was opened");
                assert!(self.written.insert(name), "{name:?} twice on one epoch");
            }
            self.wire.push_back(message);
        }
    }

    /// The client reads so many.
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
            assert!(message.number() > self.received, "{} again", message.number());
            self.received = message.number();
        }
        if stream == PRIORITY {
            if message.rest().ends_with(b":beat") {
                self.beating = false;
            }
            return;
        }
        let ended = &mut self.ended;
        let model = self.streams.get_mut(&stream).or_else(|| ended.get_mut(&stream));
        let model = model.expect("a stream that there was");
        model.skip_given_up(self.gave_up, place);
        assert!(place <= model.seen, "{stream}:{place} came, {} is missing", model.seen);
        let again = place < model.seen;
        assert!(!(again && self.numbered && takes_number), "{stream}:{place} came twice");
        model.seen += u32::from(!again);
    }

    /// The position behind so much of the wire.
    fn position(&self, value: usize) -> u64 {
        let on_the_wire = value.checked_rem(self.wire.len() + 1).unwrap_or(0);
        self.log.position() - (self.wire.len() - on_the_wire) as u64
    }

    /// The client's network has so much, whether the client has read it or not.
    fn pong(&mut self, value: usize) {
        let position = self.position(value);
        self.acked = self.acked.max(position);
        self.log.pong(position, &mut self.backlog);
    }

    /// A poll: the client has read so much. One that reads numbers may not have: they will tell.
    fn acknowledge(&mut self, value: usize) {
        let position = self.position(if self.numbered { value } else { 0 });
        let unknown = self.log.position() + 1 + value as u64;
        assert!(self.log.acknowledge(unknown, &mut self.backlog).is_err());
        assert!(self.log.acknowledge(position, &mut self.backlog).is_ok());
        let unacknowledged = self.log.unacknowledged().count() as u64;
        let expected = self.log.position() - position.max(self.acked);
        assert_eq!(unacknowledged, expected, "a poll is answered with all that is left");
        self.acked = self.acked.max(position);
    }

    /// The connection ends. A client that closes it throws away what it has not read; one that is
    /// cut off has read what its network had.
    fn part(&mut self, value: usize) {
        let epoch = self.log.epoch();
        let parted = value.is_multiple_of(2);
        if !parted {
            self.read_ponged();
        }
        // The first word counts.
        self.log.detach(epoch, parted);
        self.log.detach(epoch, !parted);
        self.log.detach(epoch - 1, !parted);
        self.attached = false;
        self.parted = parted;
    }

    /// A poll that comes after all: nothing was lost but time.
    fn return_to(&mut self) {
        if !self.parted {
            self.log.return_to(self.stale);
            assert!(!self.log.is_attached());
            self.log.return_to(self.log.epoch());
            assert!(self.log.is_attached());
            self.attached = true;
        }
    }

    fn read_ponged(&mut self) {
        let count = self.acked.saturating_sub(self.read_to());
        self.read(count as usize);
    }

    /// The position up to which the client has read.
    fn read_to(&self) -> u64 {
        self.log.position() - self.wire.len() as u64
    }

    /// Time passes, and what the network has had for long is given up. A client that reads no numbers
    /// has read it.
    fn age(&mut self, value: usize) {
        if !self.numbered {
            self.read_ponged();
        }
        self.now += Duration::from_secs(value as u64);
        self.log.age(self.now, Duration::from_secs(90));
        self.gave_up |= self.read_to() < self.acked;
    }

    /// Comes back, unless there would be a gap.
    fn attach(&mut self) {
        self.stale = self.log.epoch();
        let received = self.numbered.then_some(self.received);
        if self.log.attach(received, &mut self.backlog).is_none() {
            assert!(self.read_to() < self.acked, "a client that has read all there was may go on");
            self.is_over = true;
            return;
        }
        assert_eq!(self.log.epoch(), self.stale + 1);
        self.wire.clear();
        self.written.clear();
        self.streams.values_mut().for_each(|stream| stream.open = false);
        assert!(
            !self.streams.keys().any(|stream| self.log.is_join_acked(*stream)),
            "not joined again"
        );
        self.log.detach(self.stale, false);
        assert!(self.log.is_attached(), "an older epoch ends nothing");
        self.acked = self.log.position();
        (self.attached, self.beating) = (true, false);
    }

    fn open(&mut self, value: usize) {
        let Some(stream) = self.stream(value) else { return };
        let answer = self.next_control();
        if !self.admit(&answer) {
            return;
        }
        let cost = answer.cost();
        let stale = value % 8 == 7;
        let epoch = if stale { self.stale } else { self.log.epoch() };
        assert_eq!(self.log.resume(stream, epoch, answer), !stale);
        if stale {
            self.backlog.remove(cost);
        } else if let Some(model) = self.streams.get_mut(&stream) {
            model.open = true;
            assert!(!self.log.is_join_acked(stream), "the answer has not even left");
        }
    }

    fn hold(&mut self, value: usize) {
        let Some(stream) = self.stream(value) else { return };
        self.log.pause(stream, &mut self.backlog);
        self.streams.entry(stream).or_default().open = false;
    }

    fn end_stream(&mut self, value: usize) {
        let Some(stream) = self.stream(value) else { return };
        self.log.end_stream(stream, &mut self.backlog);
        self.ended.extend(self.streams.remove_entry(&stream));
        let late = Self::message((stream, u32::MAX));
        assert!(!self.log.push(stream, late), "nothing follows in a stream that has ended");
    }

    /// What holds after every step.
    fn check(&self) {
        let (counted, retained) = self.log.costs();
        assert_eq!(self.backlog.bytes(), counted, "the backlog is what is counted");
        assert!(retained <= MAX_RETAINED);
        assert!(counted <= self.limit + 2 * self.largest.max(MAX_RETAINED), "memory is bounded");
        assert_eq!(self.log.streams(), self.streams.len(), "nothing is left of streams that ended");
    }

    /// The client comes back, joins everything and reads all there is: nothing is missing.
    fn come_back(&mut self) {
        self.attach();
        if self.is_over {
            return;
        }
        for stream in self.streams.keys().copied().collect::<Vec<_>>() {
            let answer = Message::text(format!("{PRIORITY}:{}", u32::MAX - stream));
            self.backlog.restore(answer.cost());
            assert!(self.log.resume(stream, self.log.epoch(), answer));
            self.streams.entry(stream).or_default().open = true;
        }
        self.take(0);
        self.read(usize::MAX);
        for (stream, model) in &mut self.streams {
            model.skip_given_up(self.gave_up, model.pushed);
            assert_eq!(model.seen, model.pushed, "stream {stream} to its end");
            assert!(!self.log.is_join_acked(*stream));
        }
        self.acknowledge(0);
        self.check();
        assert!(self.streams.keys().all(|stream| self.log.is_join_acked(*stream)));
        assert!(self.numbered || self.backlog.bytes() == 0);
    }
}

fn name(message: &Message) -> Name {
    let text = str::from_utf8(message.rest()).unwrap_or_default();
    let text = text.rsplit(',').next().unwrap_or_default();
    let mut parts = text.split(':').map(|part| part.parse().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(stream), Some(place)) => (stream, place),
        _ => panic!("not a message of this walk: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same bytes in every run.
    fn bytes(seed: u64, count: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn short_walks() {
        for seed in 1..=20_000 {
            std::panic::catch_unwind(|| walk(&bytes(seed, 120)))
                .unwrap_or_else(|_| panic!("seed {seed}"));
        }
    }

    #[test]
    fn long_walks() {
        for seed in 1..=100 {
            std::panic::catch_unwind(|| walk(&bytes(seed, 20_000)))
                .unwrap_or_else(|_| panic!("seed {seed}"));
        }
    }
}
