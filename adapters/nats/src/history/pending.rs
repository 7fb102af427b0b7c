//! [`Pending`]: messages on their way to the stream. Plain code.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tower_channels::adapter::Append;

/// Messages on their way to the stream, in their order, until the server has answered.
///
/// They are sent one behind the other, without waiting for answers. When it is not known what the server has taken, all
/// without an answer are sent again, in the same order, and the server recognizes those that it has.
#[derive(Debug)]
pub(crate) struct Pending {
    entries: VecDeque<Entry>,
    /// The number of the first of them. The first has no answer.
    first: u64,
    /// How many of them have been sent.
    sent: usize,
    /// How many were not taken, and wait to be sent again.
    refused: usize,
    bytes: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    /// `None` once it is answered.
    append: Option<Append>,
    due: Instant,
    is_refused: bool,
}

/// For how long an answer is waited for: longer than it takes a server to start again, or others to choose a leader.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many may be sent without an answer.
const WINDOW: usize = 512;

/// What a message takes beside its bytes and its topic.
const OVERHEAD: usize = 256;

fn cost(append: &Append) -> usize {
    append.content.len().saturating_add(append.topic.len()).saturating_add(OVERHEAD)
}

impl Pending {
    pub(crate) fn new(max_bytes: usize) -> Self {
        let entries = VecDeque::new();
        Self { entries, first: 1, sent: 0, refused: 0, bytes: 0, max_bytes }
    }

    /// Appends a message, or returns it if the queue is full. An empty queue takes any message.
    pub(crate) fn push(&mut self, append: Append, now: Instant) -> Result<(), Append> {
        let bytes = self.bytes.saturating_add(cost(&append));
        if bytes > self.max_bytes && self.bytes > 0 {
            return Err(append);
        }
        self.bytes = bytes;
        let due = now + PATIENCE;
        self.entries.push_back(Entry { append: Some(append), due, is_refused: false });
        Ok(())
    }

    /// Returns the number of the next message to send, and what is taken of it.
    pub(crate) fn next<T>(&mut self, take: impl FnOnce(&Append) -> T) -> Option<(u64, T)> {
        let is_answered = |entry: &&Entry| entry.append.is_none();
        self.sent += self.entries.range(self.sent..).take_while(is_answered).count();
        if self.sent >= WINDOW {
            return None;
        }
        let entry = self.entries.get_mut(self.sent)?;
        let number = self.first + self.sent as u64;
        self.sent += 1;
        self.refused -= usize::from(std::mem::take(&mut entry.is_refused));
        Some((number, take(entry.append.as_ref()?)))
    }

    /// It is not known what the server has taken: all without an answer are sent again.
    pub(crate) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// The server has not taken a message; it may be sent again.
    pub(crate) fn refused(&mut self, number: u64) {
        if let Some(entry) = self.entry(number)
            && entry.append.is_some()
            && !std::mem::replace(&mut entry.is_refused, true)
        {
            self.refused += 1;
        }
    }

    /// A message has its answer, and is returned.
    pub(crate) fn answered(&mut self, number: u64) -> Option<Append> {
        let entry = self.entry(number)?;
        let append = entry.append.take()?;
        let was_refused = std::mem::take(&mut entry.is_refused);
        self.refused -= usize::from(was_refused);
        self.bytes = self.bytes.saturating_sub(cost(&append));
        self.shrink();
        Some(append)
    }

    /// A message is kept, and is returned; and with it earlier ones of its topic that were refused, as they would come
    /// behind it.
    pub(crate) fn kept(&mut self, number: u64) -> (Option<Append>, Vec<Append>) {
        let Some(kept) = self.answered(number) else { return (None, Vec::new()) };
        let mut overtaken = Vec::new();
        if self.refused > 0 {
            for earlier in self.first..number {
                let is_overtaken = self.entry(earlier).is_some_and(|entry| {
                    entry.is_refused
                        && entry.append.as_ref().is_some_and(|it| it.topic == kept.topic)
                });
                if is_overtaken {
                    overtaken.extend(self.answered(earlier));
                }
            }
        }
        (Some(kept), overtaken)
    }

    /// Returns those that have waited for too long.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Append> {
        let mut expired = Vec::new();
        while self.entries.front().is_some_and(|entry| entry.due <= now) {
            let before = expired.len();
            expired.extend(self.answered(self.first));
            debug_assert!(expired.len() > before, "the first has no answer");
        }
        expired
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let index = number.checked_sub(self.first)?;
        self.entries.get_mut(usize::try_from(index).ok()?)
    }

    /// Drops what is answered at the front.
    fn shrink(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.append.is_none()) {
            self.entries.pop_front();
            self.first += 1;
            self.sent = self.sent.saturating_sub(1);
        }
        if self.entries.is_empty() {
            // What a burst has needed is given back.
            self.entries.shrink_to(WINDOW);
        }
    }
}

#[cfg(test)]
mod tests;
