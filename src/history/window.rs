//! [`Window`]: the newest messages of a topic, for clients that return together. Plain code.

use std::collections::VecDeque;

use super::position::Position;

/// All messages of a topic after one of them, for as long as each that comes is [pushed](Self::push).
#[derive(Debug)]
pub(super) struct Window<T> {
    epoch: u64,
    /// The number after which nothing is missing.
    since: u64,
    /// Whether more cannot be had: it is forgotten, or too much.
    is_final: bool,
    /// The number of the last message of the topic, or a later one without a message up to it.
    last: u64,
    messages: VecDeque<Item<T>>,
    bytes: usize,
    limit: Limit,
}

/// A message with its place.
#[derive(Clone, Debug)]
pub(super) struct Item<T> {
    pub(super) epoch: u64,
    pub(super) number: u64,
    pub(super) previous: u64,
    /// How many bytes a client receives.
    pub(super) bytes: usize,
    pub(super) message: T,
}

/// How much one client may be sent anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// What a window knows.
#[derive(Debug, PartialEq)]
pub(super) enum Answer<T> {
    /// All that follows the position.
    All(Vec<T>),
    /// Something is missing, and cannot be had.
    Gap,
    /// The store has to be asked.
    Unknown,
}

impl<T: Clone> Window<T> {
    /// Creates a window that knows the last position of a topic, and nothing before.
    pub(super) fn at(last: Position, limit: Limit) -> Self {
        let Position { epoch, number } = last;
        let messages = VecDeque::new();
        Self { epoch, since: number, is_final: false, last: number, messages, bytes: 0, limit }
    }

    /// Creates a window of what was read: all messages after the number `since` up to `last`. With `is_final` those before
    /// it are gone. Returns `None` if it is no chain: something is missing.
    pub(super) fn of(
        since: u64,
        is_final: bool,
        messages: Vec<Item<T>>,
        last: Position,
        limit: Limit,
        dropped: &mut Vec<T>,
    ) -> Option<Self> {
        let mut window = Self::at(Position { number: since, ..last }, limit);
        window.is_final = is_final;
        let has_any = !messages.is_empty();
        let mut is_chain = true;
        for item in messages {
            is_chain &= window.push(item, dropped);
        }
        if !is_chain || window.last > last.number || (has_any && window.last < last.number) {
            dropped.extend(window.into_messages());
            return None;
        }
        window.last = last.number;
        Some(window)
    }

    /// Takes the next message of the topic. Returns `false` if one before it is missing, or another epoch has begun: then
    /// the window is of no use any more. What it gives up is left to the caller.
    pub(super) fn push(&mut self, item: Item<T>, dropped: &mut Vec<T>) -> bool {
        let is_same = item.epoch == self.epoch;
        if is_same && item.number <= self.last {
            dropped.push(item.message);
            return true;
        }
        if !is_same || item.previous > self.last {
            dropped.push(item.message);
            return false;
        }
        self.last = item.number;
        self.bytes = self.bytes.saturating_add(item.bytes);
        self.messages.push_back(item);
        while self.messages.len() > self.limit.messages || self.bytes > self.limit.bytes {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
            (self.since, self.is_final) = (oldest.number, true);
            dropped.push(oldest.message);
        }
        true
    }

    /// Returns what follows a position.
    pub(super) fn after(&self, position: Position) -> Answer<T> {
        let Position { epoch, number } = position;
        if epoch != self.epoch || number > self.last {
            Answer::Unknown
        } else if number >= self.since {
            let start = self.messages.partition_point(|item| item.number <= number);
            Answer::All(self.messages.range(start..).map(|item| item.message.clone()).collect())
        } else if self.is_final {
            Answer::Gap
        } else {
            Answer::Unknown
        }
    }

    /// The last position of the topic.
    pub(super) fn last(&self) -> Position {
        Position { epoch: self.epoch, number: self.last }
    }
}

impl<T> Window<T> {
    /// How many bytes a client receives at most.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives up all messages.
    pub(super) fn into_messages(self) -> impl Iterator<Item = T> {
        self.messages.into_iter().map(|item| item.message)
    }
}
