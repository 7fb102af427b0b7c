//! [`Topic`]: what a node knows of one topic that it follows. Plain code.

use std::collections::VecDeque;
use std::time::Duration;

use super::HEARD_WITHIN;
use crate::adapter::{Kept, Page};
use crate::history::Position;

/// A topic that is listened to.
pub(super) struct Topic<W> {
    /// Of the time since it is listened to.
    pub(super) key: u64,
    /// Held until it is heard.
    pub(super) gate: Option<W>,
    begun: Duration,
    /// When it was last subscribed to.
    pub(super) used: Duration,
    pub(super) phase: Phase,
    /// Up to where it was passed on. `None` before the first read.
    pub(super) last: Option<Position>,
    /// What was read, and is to be passed on.
    page: VecDeque<Kept>,
    /// Where the topic ended when that was read.
    end: Option<Position>,
    /// There is nothing up to there, or nothing that could be passed on.
    gap: Option<(Option<Cause>, Position)>,
    /// What was handed over meanwhile, and how much of it before the last read began.
    waiting: VecDeque<Kept>,
    covered: usize,
    /// What that takes.
    bytes: usize,
    /// Whether the last read does not settle it: it does not contain what there was no room for, or what an interruption
    /// may have kept back.
    pub(super) is_read_again: bool,
    /// Since when reads fail.
    failing: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The store is asked to hand it over.
    Listening,
    /// What comes is passed on.
    Idle,
    /// It is to be read.
    Due,
    /// It is being read.
    Reading,
    /// What was read is being passed on.
    Passing,
}

/// What to do with a topic.
#[derive(Debug, PartialEq)]
pub(in crate::history) enum Step<W> {
    /// Pass on the next message.
    Pass(Kept),
    /// Messages are missing, and will be: who has received what precedes them has to be told.
    Miss(Cause),
    /// Everything from now on is passed on. Let go what was held until then.
    Heard(W),
}

/// Why messages are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::history) enum Cause {
    /// They were forgotten, or the store has another epoch.
    Forgotten,
    /// The store could not be read for too long.
    Unavailable,
    /// The topic was heard too late for joins that had waited for it.
    Unheard,
}

/// The most bytes of one topic that wait while it is read.
const MAX_WAITING: usize = 1 << 20;

/// What a waiting message takes beside its content.
const OVERHEAD: usize = 128;

/// For how long something waits while the store cannot be read.
const PATIENCE: Duration = Duration::from_secs(30);

impl<W> Topic<W> {
    pub(super) fn new(key: u64, now: Duration) -> Self {
        Self {
            key,
            gate: None,
            begun: now,
            used: now,
            phase: Phase::Listening,
            last: None,
            page: VecDeque::new(),
            end: None,
            gap: None,
            waiting: VecDeque::new(),
            covered: 0,
            bytes: 0,
            is_read_again: false,
            failing: None,
        }
    }

    /// What waits, in bytes.
    pub(super) fn waiting(&self) -> usize {
        self.bytes
    }

    /// Whether everything that was handed over was passed on.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && !self.is_read_again
    }

    /// The store hands over a message. Returns it if it is the next; otherwise it waits, if that takes no more than `room`.
    pub(super) fn keep(&mut self, message: Kept, room: usize) -> Option<Kept> {
        match self.last.map(|last| follows(&message, last)) {
            Some(Follows::Passed) => return None,
            Some(Follows::Next) if self.phase == Phase::Idle => return Some(message),
            _ => {}
        }
        let bytes = message.content.len().saturating_add(OVERHEAD);
        if bytes <= room && self.bytes.saturating_add(bytes) <= MAX_WAITING {
            self.bytes += bytes;
            self.waiting.push_back(message);
        } else {
            self.is_read_again = true;
        }
        None
    }

    /// It is being read from now on: what was handed over until now is in what is read.
    pub(super) fn begin_read(&mut self) {
        self.phase = Phase::Reading;
        self.is_read_again = false;
        self.covered = self.waiting.len();
    }

    /// It was read.
    pub(super) fn take_page(&mut self, page: Page, now: Duration) {
        self.phase = Phase::Passing;
        self.failing = None;
        self.end = Some(page.last);
        let Some(last) = self.last else {
            let is_late = now.saturating_sub(self.begun) > HEARD_WITHIN;
            self.gap = Some((is_late.then_some(Cause::Unheard), page.last));
            return;
        };
        if !page.is_complete || !is_chain(last, &page) {
            self.gap = Some((Some(Cause::Forgotten), page.last));
        } else if page.messages.is_empty() {
            self.gap = Some((None, page.last));
        } else {
            self.page = page.messages.into();
        }
    }

    /// It could not be read.
    pub(super) fn fail(&mut self, now: Duration) {
        self.phase = Phase::Passing;
        self.end = None;
        let failing = *self.failing.get_or_insert(now);
        while self.last.is_some_and(|last| self.is_passed(last)) {
            self.take_waiting();
        }
        let Some(first) = self.waiting.front() else { return };
        if now.saturating_sub(failing) < PATIENCE {
            return;
        }
        // Live goes on without what precedes it.
        let cause = if self.last.is_some() { Cause::Unavailable } else { Cause::Unheard };
        let before = Position { number: first.previous, ..first.position };
        // Never back.
        let last =
            self.last.filter(|last| last.epoch == before.epoch && last.number > before.number);
        self.gap = Some((Some(cause), last.unwrap_or(before)));
        (self.failing, self.covered) = (None, 0);
    }

    /// Whether the first of what waits was passed on before.
    fn is_passed(&self, last: Position) -> bool {
        self.waiting.front().is_some_and(|first| follows(first, last) == Follows::Passed)
    }

    /// Takes the first of what waits.
    fn take_waiting(&mut self) -> Option<Kept> {
        self.covered = self.covered.saturating_sub(1);
        let message = self.waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(message.content.len() + OVERHEAD);
        Some(message)
    }

    /// Returns what to do next.
    pub(super) fn step(&mut self) -> Option<Step<W>> {
        if self.phase != Phase::Passing {
            return None;
        }
        if let Some((cause, to)) = &mut self.gap {
            // Those who have to be told are told before it counts as passed on.
            if let Some(cause) = cause.take() {
                return Some(Step::Miss(cause));
            }
            (self.last, self.gap) = (Some(*to), None);
        }
        let last = self.last?;
        if let Some(next) = self.page.pop_front() {
            return Some(Step::Pass(next));
        }
        // The next page follows, or the store still cannot be read.
        let is_failing = self.failing.is_some();
        if is_failing || self.end.is_some_and(|end| last.number < end.number) {
            self.is_read_again = true;
            return None;
        }
        if let Some(gate) = self.gate.take() {
            return Some(Step::Heard(gate));
        }
        self.next_waiting(last).map(Step::Pass)
    }

    /// Takes the next of what waits, if nothing is missing before it.
    fn next_waiting(&mut self, last: Position) -> Option<Kept> {
        while let Some(message) = self.waiting.front() {
            let follows = follows(message, last);
            // What the read should have brought is not kept any more.
            let is_covered = self.covered > 0;
            if !is_covered && matches!(follows, Follows::Later | Follows::Unknown) {
                return None;
            }
            let message = self.take_waiting()?;
            if follows == Follows::Next {
                return Some(message);
            }
        }
        self.waiting = VecDeque::new();
        None
    }

    /// There is nothing more to do. Returns whether it is to be read again.
    pub(super) fn end_steps(&mut self) -> bool {
        if self.phase != Phase::Passing {
            return false;
        }
        let is_due = !self.is_settled() || self.last.is_none();
        self.phase = if is_due { Phase::Due } else { Phase::Idle };
        is_due
    }
}

/// How a message stands to what was passed on last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Follows {
    /// It was passed on before.
    Passed,
    Next,
    /// Something is missing between.
    Later,
    /// It is of another epoch.
    Unknown,
}

fn follows(message: &Kept, last: Position) -> Follows {
    if message.position.epoch != last.epoch {
        Follows::Unknown
    } else if message.position.number <= last.number {
        Follows::Passed
    } else if message.previous <= last.number {
        Follows::Next
    } else {
        Follows::Later
    }
}

/// Returns whether a page begins behind a position, and nothing is missing in it.
fn is_chain(mut last: Position, page: &Page) -> bool {
    if page.last.epoch != last.epoch || page.last.number < last.number {
        return false;
    }
    for message in &page.messages {
        if follows(message, last) != Follows::Next {
            return false;
        }
        last = message.position;
    }
    // Up to the end, or to the limit of the read.
    last.number <= page.last.number
}
