//! A store that hands over with holes, twice, late or not at all, forgets, and loses everything, and what a node makes of
//! it. Used by a fuzz target; not part of the API.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use super::{Following, Id, Listened, MAX_WAITING, Phase, READS, Read, Step};
use crate::adapter::{Kept, Page};
use crate::history::Position;

/// How many messages a read returns.
const PAGE: usize = 3;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What the store has of a topic, and what the node has made of it.
#[derive(Default)]
struct Topic {
    messages: Vec<Kept>,
    /// The number of the newest message that was forgotten.
    forgotten: u64,
    last: u64,
    /// What is on its way.
    sent: VecDeque<Kept>,
    id: Option<Id>,
    /// What follows has to be passed on, each once and in order, unless the node says that something is missing.
    passed: Option<Position>,
    has_missed: bool,
}

struct Model {
    following: Following<()>,
    topics: [Topic; NAMES.len()],
    epoch: u64,
    number: u64,
    reads: Vec<(Read, Option<Page>)>,
    now: Duration,
    /// The bytes of each content.
    size: usize,
}

/// Takes steps of two bytes: what happens, and a value.
///
/// # Panics
/// If a message is passed on twice, out of order, or with one before it missing of which nothing was said; or if something
/// is missing at the end, or held without bound.
pub fn walk(steps: &[u8]) {
    let mut model = Model {
        following: Following::new(),
        topics: Default::default(),
        epoch: 1,
        number: 0,
        reads: Vec::new(),
        now: Duration::ZERO,
        size: 1,
    };
    for step in steps.chunks_exact(2) {
        model.step(step[0] >> 2, usize::from(step[0] & 3) % NAMES.len(), step[1]);
        model.check();
    }
    model.settle();
}

impl Model {
    fn step(&mut self, what: u8, at: usize, value: u8) {
        match what % 16 {
            0..=3 => self.keep(at, value),
            4 | 5 => (0..=value % 4).for_each(|_| self.hand_over(at)),
            6 => drop(self.topics[at].sent.pop_front()),
            7 => self.repeat(at, value),
            8 => self.listen(at),
            9 => (0..=value % 4).for_each(|_| self.begin_read(value >= 128)),
            10 | 11 => self.end_read(usize::from(value), !value.is_multiple_of(8)),
            12 => self.interrupt(),
            13 => self.forget(at, value),
            14 => self.now += Duration::from_millis(10) * u32::from(value),
            _ => self.rarely(at, value),
        }
    }

    fn rarely(&mut self, at: usize, value: u8) {
        match value {
            0..=15 => self.lose_all(),
            16..=47 => self.ignore(at),
            // A few exceed what may wait.
            48..=63 => self.size = 600 << 10,
            64..=127 => self.size = 1,
            // One that is handed over was not kept, as after a fail-over.
            128..=143 => {
                let Topic { messages, last, .. } = &mut self.topics[at];
                let lost = messages.pop();
                *last = lost.map_or(*last, |lost| lost.previous);
            }
            144..=159 => {
                let end = self.read_after(NAMES[at], None).last;
                self.following.saw(NAMES[at], end);
            }
            _ => self.now += Duration::from_secs(1),
        }
    }

    fn keep(&mut self, at: usize, value: u8) {
        // Numbers of all topics grow together, not by one.
        self.number += 1 + u64::from(value % 3);
        let topic = &mut self.topics[at];
        let message = Kept {
            position: Position { epoch: self.epoch, number: self.number },
            previous: topic.last,
            content: Bytes::from(vec![0; self.size]),
        };
        topic.last = self.number;
        topic.messages.push(message.clone());
        topic.sent.push_back(message);
    }

    fn hand_over(&mut self, at: usize) {
        let next = self.topics[at].sent.pop_front();
        next.into_iter().for_each(|message| self.hand_over_message(at, message));
    }

    /// Hands over a message that was kept before, once more.
    fn repeat(&mut self, at: usize, value: u8) {
        let topic = &self.topics[at];
        // Not one that overtakes those before it.
        let first = topic.sent.front().map_or(u64::MAX, |next| next.position.number);
        let old = topic.messages.iter().filter(|it| it.position.number < first);
        let old: Vec<_> = old.cloned().collect();
        let chosen = old.get(usize::from(value) % old.len().max(1)).cloned();
        chosen.into_iter().for_each(|message| self.hand_over_message(at, message));
    }

    fn hand_over_message(&mut self, at: usize, message: Kept) {
        if let Some(message) = self.following.kept(NAMES[at], message) {
            self.pass(at, &message);
        }
    }

    fn pass(&mut self, at: usize, message: &Kept) {
        let topic = &mut self.topics[at];
        let position = message.position;
        if let Some(before) = topic.passed.replace(position) {
            let is_next = message.previous <= before.number && position.number > before.number;
            let is_whole = before.epoch == position.epoch && is_next;
            assert!(topic.has_missed || is_whole, "{position:?} after {before:?}");
            let is_later = before.epoch != position.epoch || position.number > before.number;
            assert!(is_later, "{position:?} after {before:?}");
        }
        topic.has_missed = false;
        self.following.passed(NAMES[at], position);
    }

    fn listen(&mut self, at: usize) {
        if let Listened::New(id, ()) = self.following.listen(NAMES[at], self.now, || ()) {
            self.topics[at].id = Some(id.clone());
            self.following.listened(id);
        }
    }

    fn ignore(&mut self, at: usize) {
        self.now += Duration::from_secs(11);
        if self.following.ignore(NAMES[at], self.now) {
            let topic = &mut self.topics[at];
            (topic.id, topic.passed, topic.has_missed) = (None, None, false);
        }
    }

    /// Begins a read, whose result is that of its beginning or of its end.
    fn begin_read(&mut self, is_prompt: bool) {
        let Some(read) = self.following.next_read(self.now) else { return };
        let page = is_prompt.then(|| self.read(&read));
        self.reads.push((read, page));
        assert!(self.reads.len() <= READS, "too many reads");
    }

    fn read(&self, read: &Read) -> Page {
        self.read_after(&read.id.topic, read.after)
    }

    fn read_after(&self, topic: &str, after: Option<Position>) -> Page {
        let at = NAMES.iter().position(|name| *name == topic).expect("a topic");
        let Topic { messages, forgotten, last, .. } = &self.topics[at];
        let position = |number| Position { epoch: self.epoch, number };
        // An empty topic of which nothing is known ends before everything that will come.
        let last = position(if *last == 0 { self.number } else { *last });
        let Some(after) = after else {
            let newest = messages.last().cloned().into_iter().collect();
            return Page { messages: newest, is_complete: true, last };
        };
        let is_known = after.epoch == self.epoch;
        let later = messages.iter().filter(|it| is_known && it.position.number > after.number);
        Page {
            messages: later.take(PAGE).cloned().collect(),
            is_complete: is_known && (*forgotten..=last.number).contains(&after.number),
            last,
        }
    }

    fn end_read(&mut self, which: usize, is_ok: bool) {
        if self.reads.is_empty() {
            return;
        }
        let (read, page) = self.reads.swap_remove(which % self.reads.len());
        let page = is_ok.then(|| page.unwrap_or_else(|| self.read(&read)));
        let at = NAMES.iter().position(|name| *name == read.id.topic).expect("a topic");
        let is_present = self.topics[at].id.as_ref() == Some(&read.id);
        self.following.finish_read(&read.id, page, self.now);
        while let Some(step) = self.following.step(&read.id) {
            assert!(is_present, "a step of a topic that is not listened to any more");
            match step {
                Step::Pass(message) => self.pass(at, &message),
                Step::Miss(_) => self.topics[at].has_missed = true,
                Step::Heard(()) => {
                    // From here on nothing may be missing.
                    let last = self.following.last(NAMES[at]).expect("it is heard");
                    self.topics[at].passed = Some(last);
                    self.topics[at].has_missed = false;
                }
            }
        }
    }

    fn interrupt(&mut self) {
        for topic in &mut self.topics {
            topic.sent.clear();
        }
        self.following.interrupted(self.now);
    }

    fn forget(&mut self, at: usize, value: u8) {
        let topic = &mut self.topics[at];
        let count = usize::from(value % 4).min(topic.messages.len());
        for message in topic.messages.drain(..count) {
            topic.forgotten = message.position.number;
        }
    }

    fn lose_all(&mut self) {
        self.epoch += 1;
        self.number = 0;
        for topic in &mut self.topics {
            topic.messages.clear();
            (topic.forgotten, topic.last) = (0, 0);
        }
    }

    fn check(&self) {
        assert!(self.following.waiting <= MAX_WAITING, "{} bytes wait", self.following.waiting);
        let waiting: usize = self.following.topics.values().map(super::Topic::waiting).sum();
        assert_eq!(self.following.waiting, waiting);
        let delivered = self.following.delivered();
        let behind = self.following.topics.values().filter(|topic| topic.phase != Phase::Idle);
        for last in behind.filter_map(|topic| topic.last) {
            assert!(delivered <= last.number, "{delivered} is behind {last:?}");
        }
    }

    /// The store works again, and everything is quiet.
    fn settle(&mut self) {
        self.size = 1;
        self.now += Duration::from_secs(2);
        self.interrupt();
        let mut rounds = 0;
        loop {
            self.begin_read(false);
            if self.reads.is_empty() {
                break;
            }
            self.end_read(0, true);
            rounds += 1;
            assert!(rounds < 10_000, "it reads for ever");
        }
        for (topic, name) in self.topics.iter().zip(NAMES) {
            if topic.id.is_none() {
                continue;
            }
            let last = self.following.last(name).expect("everything is heard");
            assert_eq!(last.epoch, self.epoch, "{name}");
            let newest = topic.messages.last().map(|message| message.position.number);
            assert!(newest.is_none_or(|newest| newest <= last.number), "{name}: {newest:?}");
            let passed = topic.passed.expect("it was heard");
            let is_missing = passed.epoch != last.epoch
                || topic.messages.iter().any(|it| it.position.number > passed.number);
            assert!(topic.has_missed || !is_missing, "{name}: {passed:?} of {last:?}");
        }
        assert_eq!(self.following.waiting, 0, "something waits");
    }
}
