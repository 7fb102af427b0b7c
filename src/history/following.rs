//! [`Following`]: up to where each topic of a shared store was passed on to the clients of this node, and what has to be
//! read of it. Plain code.
//!
//! What the store hands over may have holes. Each message says which one precedes it, so a hole is seen when the next
//! message comes; after an interruption there may be one at the end of any topic. What is missing is read, while what
//! comes of the topic waits.

mod topic;

use std::collections::VecDeque;
use std::time::Duration;

use indexmap::IndexMap;
use indexmap::map::Entry;
use smol_str::SmolStr;

pub(super) use self::topic::{Cause, Step};
use self::topic::{Phase, Topic};
use super::position::Position;
use crate::adapter::{Kept, Page};

/// The topics that this node has the store hand over. `W` is held for each topic until it is heard.
pub(super) struct Following<W> {
    topics: IndexMap<SmolStr, Topic<W>>,
    /// The topics that are to be read, in order.
    due: VecDeque<Id>,
    /// How many reads are out.
    reading: usize,
    /// How many reads have failed since one did not, and when the next may begin.
    failures: u32,
    retry_at: Duration,
    /// What waits, of all topics.
    waiting: usize,
    /// The highest number that was passed on.
    newest: u64,
    last_key: u64,
    /// Where the search for topics without subscribers goes on.
    next: usize,
}

/// One topic, for as long as it is listened to without a break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) topic: SmolStr,
    key: u64,
}

/// A read that has to be made.
#[derive(Debug, PartialEq)]
pub(super) struct Read {
    pub(super) id: Id,
    /// Where it begins. `None` asks for the head of the topic.
    pub(super) after: Option<Position>,
}

/// What became of [`Following::listen`].
pub(super) enum Listened<'a, W> {
    /// Everything from now on is passed on.
    Heard,
    /// Not yet.
    Unheard(&'a W),
    /// Not yet, and the store has to be told.
    New(Id, &'a W),
}

/// How many reads are out at once: of a store that answers, and of one that has just failed.
const READS: usize = 32;
const PROBES: usize = 4;

/// How long the next read waits after one that has failed: twice as long each time, up to the most.
const RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);

/// The most bytes that wait while topics are read. What exceeds them is read as well.
const MAX_WAITING: usize = 16 << 20;

/// How long joins wait for a topic: from then on they go on without hearing it.
pub(super) const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// For how long a topic without subscribers is listened to, and how long if there are many.
const LINGER: Duration = Duration::from_secs(10);
const SHORT_LINGER: Duration = Duration::from_secs(2);
const MANY: usize = 100_000;

/// How many topics are looked at in a row.
const SLICE: usize = 10_000;

impl<W> Following<W> {
    pub(super) fn new() -> Self {
        Self {
            topics: IndexMap::new(),
            due: VecDeque::new(),
            reading: 0,
            failures: 0,
            retry_at: Duration::ZERO,
            waiting: 0,
            newest: 0,
            last_key: 0,
            next: 0,
        }
    }

    /// A topic is about to have a subscriber.
    pub(super) fn listen(
        &mut self,
        topic: &str,
        now: Duration,
        gate: impl FnOnce() -> W,
    ) -> Listened<'_, W> {
        match self.topics.entry(topic.into()) {
            Entry::Occupied(known) => {
                let known = known.into_mut();
                known.used = now;
                known.gate.as_ref().map_or(Listened::Heard, Listened::Unheard)
            }
            Entry::Vacant(new) => {
                self.last_key += 1;
                let id = Id { topic: new.key().clone(), key: self.last_key };
                let gate = new.insert(Topic::new(self.last_key, now)).gate.insert(gate());
                Listened::New(id, gate)
            }
        }
    }

    /// The store hands over a topic from now on: where it ends is to be read.
    pub(super) fn listened(&mut self, id: Id) {
        if let Some(topic) = self.get(&id)
            && topic.phase == Phase::Listening
        {
            topic.phase = Phase::Due;
            self.due.push_back(id);
        }
    }

    /// The store hands over a message. Returns it if it can be passed on at once.
    pub(super) fn kept(&mut self, name: &str, message: Kept) -> Option<Kept> {
        // Nobody listens any more.
        let topic = self.topics.get_mut(name)?;
        let room = MAX_WAITING.saturating_sub(self.waiting);
        let before = topic.waiting();
        let message = topic.keep(message, room);
        self.waiting = self.waiting.saturating_sub(before).saturating_add(topic.waiting());
        if topic.phase == Phase::Idle && !topic.is_settled() {
            topic.phase = Phase::Due;
            self.due.push_back(Id { topic: name.into(), key: topic.key });
        }
        message
    }

    /// A message is passed on. Called under the topic's lock, so that a subscriber which leaves knows whether it has it.
    pub(super) fn passed(&mut self, name: &str, position: Position) {
        self.newest = self.newest.max(position.number);
        if let Some(topic) = self.topics.get_mut(name) {
            topic.last = Some(position);
        }
    }

    /// Up to where a topic was passed on. `None` if it is not heard.
    pub(super) fn last(&self, name: &str) -> Option<Position> {
        self.topics.get(name).filter(|topic| topic.gate.is_none())?.last
    }

    /// The number up to which everything of all topics was passed on, as far as this node can know.
    pub(super) fn delivered(&self) -> u64 {
        if self.due.is_empty() && self.reading == 0 {
            return self.newest;
        }
        let behind = self.topics.values().filter(|topic| topic.phase != Phase::Idle);
        behind.filter_map(|topic| topic.last).map(|last| last.number).fold(self.newest, u64::min)
    }

    /// The store was read for something else, and a topic ends there. Returns whether it is to be read, as another epoch has
    /// begun: what is still handed over of the old one is not passed on any more.
    pub(super) fn saw(&mut self, name: &str, end: Position) -> bool {
        let Some(topic) = self.topics.get_mut(name) else { return false };
        let is_other = topic.last.is_some_and(|last| last.epoch != end.epoch);
        let is_due = is_other && topic.phase == Phase::Idle;
        if is_due {
            topic.phase = Phase::Due;
            self.due.push_back(Id { topic: name.into(), key: topic.key });
        }
        is_due
    }

    /// Of any topic the newest messages may not have been handed over.
    pub(super) fn interrupted(&mut self, now: Duration) {
        (self.failures, self.retry_at) = (0, now);
        for (name, topic) in &mut self.topics {
            match topic.phase {
                // It is read anyway.
                Phase::Listening | Phase::Due => {}
                Phase::Idle => {
                    topic.phase = Phase::Due;
                    self.due.push_back(Id { topic: name.clone(), key: topic.key });
                }
                Phase::Reading | Phase::Passing => topic.is_read_again = true,
            }
        }
    }

    /// Returns the next read to make, if there is one and not too many are out.
    pub(super) fn next_read(&mut self, now: Duration) -> Option<Read> {
        let most = if self.failures == 0 { READS } else { PROBES };
        if now < self.retry_at || self.reading >= most {
            return None;
        }
        loop {
            let id = self.due.pop_front()?;
            let Some(topic) = self.get(&id).filter(|topic| topic.phase == Phase::Due) else {
                continue;
            };
            topic.begin_read();
            let after = topic.last;
            self.reading += 1;
            return Some(Read { id, after });
        }
    }

    /// A read has ended: with the page, or `None` if it has failed. What follows from it is in [`step`](Self::step).
    pub(super) fn finish_read(&mut self, id: &Id, page: Option<Page>, now: Duration) {
        self.reading = self.reading.saturating_sub(1);
        if page.is_some() {
            self.failures = 0;
        } else {
            self.failures = self.failures.saturating_add(1);
            let pause = RETRY.saturating_mul(1 << (self.failures - 1).min(8)).min(LONGEST_RETRY);
            self.retry_at = now.saturating_add(pause);
        }
        let Some(topic) = self.get(id) else { return };
        let before = topic.waiting();
        match page {
            Some(page) => topic.take_page(page, now),
            None => topic.fail(now),
        }
        let after = topic.waiting();
        self.waiting = self.waiting.saturating_sub(before).saturating_add(after);
    }

    /// Returns what to do next with a topic whose read has ended, until there is nothing.
    pub(super) fn step(&mut self, id: &Id) -> Option<Step<W>> {
        let topic = self.get(id)?;
        let before = topic.waiting();
        let step = topic.step();
        let (after, is_due) = (topic.waiting(), step.is_none() && topic.end_steps());
        self.waiting = self.waiting.saturating_sub(before).saturating_add(after);
        if is_due {
            self.due.push_back(id.clone());
        }
        step
    }

    /// Returns topics that may have had no subscriber for a while, to be looked at by the caller. To be called every second.
    pub(super) fn quiet(&mut self, now: Duration) -> Vec<SmolStr> {
        let has_many = self.topics.len() > MANY;
        let (linger, slice) = if has_many { (SHORT_LINGER, 10 * SLICE) } else { (LINGER, SLICE) };
        let mut quiet = Vec::new();
        for _ in 0..slice.min(self.topics.len()) {
            self.next = if self.next == 0 { self.topics.len() } else { self.next } - 1;
            let topic = self.topics.get_index(self.next);
            quiet.extend(
                topic
                    .filter(|(_, topic)| now.saturating_sub(topic.used) >= linger)
                    .map(|(name, _)| name.clone()),
            );
        }
        quiet
    }

    /// A quiet topic has a subscriber.
    pub(super) fn is_used(&mut self, name: &str, now: Duration) {
        self.topics.get_mut(name).into_iter().for_each(|topic| topic.used = now);
    }

    /// A quiet topic has no subscriber. Returns whether it is not listened to any more: unless it is about to have one.
    pub(super) fn ignore(&mut self, name: &str, now: Duration) -> bool {
        let is_quiet = |topic: &Topic<W>| now.saturating_sub(topic.used) >= SHORT_LINGER;
        if !self.topics.get(name).is_some_and(is_quiet) {
            return false;
        }
        let topic = self.topics.swap_remove(name);
        let waiting = topic.map_or(0, |topic| topic.waiting());
        self.waiting = self.waiting.saturating_sub(waiting);
        true
    }

    /// When the next read may begin, if reads wait for that.
    pub(super) fn retries_in(&self, now: Duration) -> Option<Duration> {
        let pause = self.retry_at.saturating_sub(now);
        (self.is_due() && !pause.is_zero()).then_some(pause)
    }

    /// Returns whether a read may be due.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    fn get(&mut self, id: &Id) -> Option<&mut Topic<W>> {
        self.topics.get_mut(&id.topic).filter(|topic| topic.key == id.key)
    }
}

#[cfg(any(test, feature = "unstable-internals"))]
#[doc(hidden)]
pub mod model;
#[cfg(test)]
mod tests;
