//! [`Rings`]: the newest messages of each topic, in memory. Plain code.
//!
//! Numbers come from one counter, so that a topic of which nothing is known has a position, too: all of its messages have
//! a higher number than the counter has now.

#[cfg(feature = "unstable-internals")]
pub(crate) mod store;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use smol_str::SmolStr;

use super::position::Position;
use crate::adapter::{Keep, Kept, Page, Since};
use crate::payload::{ALLOCATION, heap_size};

/// What is kept of all topics.
pub(super) struct Rings {
    epoch: u64,
    /// The last number that was given.
    last: u64,
    topics: HashMap<SmolStr, Ring>,
    /// By topic pattern.
    groups: Vec<Group>,
    /// What everything takes, and may take.
    bytes: usize,
    limit: usize,
    /// How many topics were forgotten for others since [`take_displaced`](Self::take_displaced).
    displaced: u64,
}

/// The topics of one pattern.
struct Group {
    keep: Keep,
    /// By their last numbers: those that have been quiet for longest come first.
    order: BTreeMap<u64, SmolStr>,
    /// Up to this last number the topics are empty, by age.
    emptied: u64,
    /// The last number of a topic that was forgotten as a whole.
    forgotten: u64,
}

/// What is kept of one topic. It may be empty: its last position is known all the same.
struct Ring {
    messages: VecDeque<Message>,
    /// Those of the contents.
    bytes: usize,
    /// The last number that was forgotten: that before the first message.
    evicted: u64,
    last: u64,
    /// When the last message came.
    written: Duration,
}

struct Message {
    number: u64,
    content: Bytes,
    /// When it came.
    at: Duration,
}

/// For how long the last position of a topic is known after its messages.
const QUIET: Duration = Duration::from_secs(24 * 60 * 60);

/// How many quiet topics a write looks after, beside its own: more than it can have made.
const SWEEP: usize = 4;

impl Rings {
    /// Creates empty rings for the topics of patterns, which are named by their places in `groups`.
    pub(super) fn new(epoch: u64, limit: usize, groups: impl Iterator<Item = Keep>) -> Self {
        let groups = groups.map(Group::new).collect();
        Self { epoch, last: 0, topics: HashMap::new(), groups, bytes: 0, limit, displaced: 0 }
    }

    /// Returns how many bytes everything takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns of how many topics something is known.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.topics.len()
    }

    /// Returns how many topics were forgotten for others since the last call.
    pub(super) fn take_displaced(&mut self) -> u64 {
        std::mem::take(&mut self.displaced)
    }

    /// Keeps a message. Returns its position and the number of the one before it.
    pub(super) fn append(
        &mut self,
        topic: &SmolStr,
        group: usize,
        content: Bytes,
        now: Duration,
    ) -> (Position, u64) {
        self.last += 1;
        let number = self.last;
        let Group { keep, order, forgotten, .. } = &mut self.groups[group];
        let ring = self.topics.entry(topic.clone()).or_insert_with(|| {
            self.bytes = self.bytes.saturating_add(ring_cost(topic));
            Ring::new(*forgotten, now)
        });
        let previous = ring.last;
        // The name in the order is the same one.
        let name = order.remove(&previous).unwrap_or_else(|| topic.clone());
        order.insert(number, name);
        self.bytes = self.bytes.saturating_add(cost(&content));
        ring.push(Message { number, content, at: now });
        let freed = ring.trim(keep, now);
        self.bytes = self.bytes.saturating_sub(freed);
        self.sweep(now, SWEEP);
        self.make_room(number);
        (Position { epoch: self.epoch, number }, previous)
    }

    /// Reads up to `limit` messages of a topic, as [`HistoryStore::read`](crate::adapter::HistoryStore::read) does.
    pub(super) fn read(
        &mut self,
        topic: &str,
        group: usize,
        since: Since,
        limit: usize,
        now: Duration,
    ) -> Page {
        let Group { keep, forgotten, .. } = &self.groups[group];
        let Some(ring) = self.topics.get_mut(topic) else {
            let nothing = Ring::new(*forgotten, now);
            return nothing.read(since, limit, Position { epoch: self.epoch, number: self.last });
        };
        self.bytes = self.bytes.saturating_sub(ring.trim(keep, now));
        ring.read(since, limit, Position { epoch: self.epoch, number: ring.last })
    }

    /// Forgets what is too old of up to `limit` topics per pattern. Each write does so for a few.
    pub(super) fn sweep(&mut self, now: Duration, limit: usize) {
        for group in 0..self.groups.len() {
            for _ in 0..limit {
                if !self.empty_next(group, now) && !self.forget_next(group, now) {
                    break;
                }
            }
        }
    }

    /// Forgets the messages of the topic that has been quiet for longest, of those that have any, if they are too old.
    fn empty_next(&mut self, group: usize, now: Duration) -> bool {
        let Group { keep, order, emptied, .. } = &mut self.groups[group];
        let Some((last, topic)) = order.range(emptied.saturating_add(1)..).next() else {
            return false;
        };
        let Some(ring) = self.topics.get_mut(topic) else { return false };
        if !is_old(ring.written, keep.within, now) {
            return false;
        }
        *emptied = *last;
        self.bytes = self.bytes.saturating_sub(ring.clear());
        true
    }

    /// Forgets the topic that has been quiet for longest, if it has been for long enough.
    fn forget_next(&mut self, group: usize, now: Duration) -> bool {
        let Group { keep, order, .. } = &self.groups[group];
        let Some((&last, topic)) = order.first_key_value() else { return false };
        let within = keep.within.saturating_add(QUIET);
        let is_quiet = self.topics.get(topic).is_none_or(|ring| is_old(ring.written, within, now));
        if is_quiet {
            self.forget(group, last);
        }
        is_quiet
    }

    /// Forgets a topic as a whole.
    fn forget(&mut self, group: usize, last: u64) {
        let Group { order, forgotten, .. } = &mut self.groups[group];
        let Some(topic) = order.remove(&last) else { return };
        *forgotten = last.max(*forgotten);
        if let Some(mut ring) = self.topics.remove(&topic) {
            self.bytes = self.bytes.saturating_sub(ring.clear() + ring_cost(&topic));
        }
    }

    /// Forgets the topics that have been quiet for longest until the rest fits, and of the topic that was written last
    /// all but its newest message if it is the only one.
    fn make_room(&mut self, newest: u64) {
        while self.bytes > self.limit {
            let oldest = |(at, group): (usize, &Group)| {
                group.order.first_key_value().map(|(last, _)| (*last, at))
            };
            let Some((last, group)) = self.groups.iter().enumerate().filter_map(oldest).min()
            else {
                return;
            };
            if last != newest {
                self.forget(group, last);
                self.displaced += 1;
                continue;
            }
            let topic = self.groups[group].order.get(&newest);
            let ring = topic.and_then(|topic| self.topics.get_mut(topic));
            match ring.filter(|ring| ring.messages.len() > 1).and_then(Ring::pop) {
                Some(freed) => self.bytes = self.bytes.saturating_sub(freed),
                None => return,
            }
        }
    }
}

impl Group {
    fn new(keep: Keep) -> Self {
        Self { keep, order: BTreeMap::new(), emptied: 0, forgotten: 0 }
    }
}

impl Ring {
    /// Creates the empty ring of a topic of which messages up to the number `forgotten` may have been kept.
    fn new(forgotten: u64, now: Duration) -> Self {
        let messages = VecDeque::new();
        Self { messages, bytes: 0, evicted: forgotten, last: forgotten, written: now }
    }

    fn push(&mut self, message: Message) {
        (self.last, self.written) = (message.number, message.at);
        self.bytes = self.bytes.saturating_add(message.content.len());
        self.messages.push_back(message);
    }

    /// Forgets what exceeds `keep`. Returns how many bytes that took.
    fn trim(&mut self, keep: &Keep, now: Duration) -> usize {
        let mut freed: usize = 0;
        while let Some(first) = self.messages.front() {
            let is_alone = self.messages.len() == 1;
            let is_too_much = self.messages.len() > keep.messages || self.bytes > keep.bytes;
            if !is_old(first.at, keep.within, now) && (is_alone || !is_too_much) {
                break;
            }
            freed = freed.saturating_add(self.pop().unwrap_or(0));
        }
        freed
    }

    /// Forgets everything. Returns how many bytes that took.
    fn clear(&mut self) -> usize {
        let mut freed: usize = 0;
        while let Some(bytes) = self.pop() {
            freed = freed.saturating_add(bytes);
        }
        self.messages = VecDeque::new();
        freed
    }

    /// Forgets the oldest message. Returns how many bytes it took.
    fn pop(&mut self) -> Option<usize> {
        let Message { number, content, .. } = self.messages.pop_front()?;
        self.evicted = number;
        self.bytes = self.bytes.saturating_sub(content.len());
        Some(cost(&content))
    }

    fn read(&self, since: Since, limit: usize, last: Position) -> Page {
        let known = |position: Position| position.epoch == last.epoch;
        let place = |number| self.messages.partition_point(|message| message.number <= number);
        let (range, is_complete) = match since {
            Since::After(position) => {
                let start =
                    if known(position) { place(position.number) } else { self.messages.len() };
                let end = start.saturating_add(limit).min(self.messages.len());
                let numbers = self.evicted..=last.number;
                (start..end, known(position) && numbers.contains(&position.number))
            }
            Since::Before(position) => {
                let end =
                    if known(position) { place(position.number.saturating_sub(1)) } else { 0 };
                (end.saturating_sub(limit)..end, known(position) && (end > 0 || self.evicted == 0))
            }
            Since::Newest => {
                let end = self.messages.len();
                (end.saturating_sub(limit)..end, true)
            }
        };
        let before = range.start.checked_sub(1).map(|at| self.messages[at].number);
        let mut previous = before.unwrap_or(self.evicted);
        let messages = self.messages.range(range).map(|message| {
            let position = Position { number: message.number, ..last };
            let previous = std::mem::replace(&mut previous, message.number);
            Kept { position, previous, content: message.content.clone() }
        });
        Page { messages: messages.collect(), is_complete, last }
    }
}

/// Returns whether something of the time `at` is too old now.
fn is_old(at: Duration, within: Duration, now: Duration) -> bool {
    now.saturating_sub(at) >= within
}

/// What a message takes.
fn cost(content: &Bytes) -> usize {
    content.len() + size_of::<Message>() + 2 * ALLOCATION
}

/// What a topic takes beside its messages: its places in the map and in the order.
fn ring_cost(topic: &SmolStr) -> usize {
    heap_size(topic) + 2 * (size_of::<(SmolStr, Ring)>() + size_of::<(u64, SmolStr)>())
}

#[cfg(test)]
mod tests;
