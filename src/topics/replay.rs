//! [`ReplayLog`]: the broadcasts of a topic that some of its subscribers have yet to receive.

use std::collections::VecDeque;
use std::sync::Arc;

use tower_channels_transports::{Account, Cost, Reservation};

/// The newest messages of a topic, kept once for all dormant subscribers and only while there are
/// any. Each message has a position. Plain code, without a lock.
///
/// While a message is being delivered it is the last of the log. So a subscriber that becomes
/// dormant, or catches up, in the middle of a delivery finds it there if it has not reached the
/// subscriber yet.
#[derive(Debug)]
pub(super) struct ReplayLog<T> {
    /// With their costs.
    messages: VecDeque<(T, Cost)>,
    /// The position of the first message.
    first: u64,
    /// The cost of all messages, and how much of it is reserved here alone.
    cost: usize,
    own: usize,
    /// For what is kept beyond a delivery.
    reservation: Option<Reservation>,
    /// The cost of the most expensive message since the log was empty.
    largest: usize,
    /// How many dormant subscribers and deliveries need the messages.
    holders: usize,
    delivering: bool,
}

impl<T> Default for ReplayLog<T> {
    fn default() -> Self {
        Self {
            messages: VecDeque::new(),
            first: 0,
            cost: 0,
            own: 0,
            reservation: None,
            largest: 0,
            holders: 0,
            delivering: false,
        }
    }
}

impl<T> ReplayLog<T> {
    /// Keeps what comes, until [`release`](Self::release).
    pub(super) fn hold(&mut self) {
        self.holders += 1;
    }

    /// Ends one [`hold`](Self::hold); after the last the log is empty.
    pub(super) fn release(&mut self) {
        self.holders -= 1;
        if self.holders == 0 {
            self.evict_all();
        }
    }

    fn evict_all(&mut self) {
        self.first += self.messages.len() as u64;
        (self.messages, self.reservation) = (VecDeque::new(), None);
        (self.cost, self.own, self.largest) = (0, 0, 0);
    }

    /// Appends a message that is now delivered to one subscriber after another. Above `limit`
    /// bytes, not counting the largest message, the oldest are evicted.
    pub(super) fn begin_delivery(&mut self, message: T, cost: Cost, limit: usize) {
        self.hold();
        self.delivering = true;
        self.messages.push_back((message, cost));
        self.cost += cost.bytes();
        self.own += cost.own();
        self.largest = self.largest.max(cost.bytes());
        while self.cost.saturating_sub(self.largest) > limit {
            let evicted = self.messages.pop_front().map_or(Cost::default(), |(_, cost)| cost);
            self.cost -= evicted.bytes();
            self.own -= evicted.own();
            self.first += 1;
        }
    }

    /// Ends the delivery: every subscriber was reached. Reserves what is kept, unless memory is scarce:
    /// then nothing is, as nobody could be closed for it.
    pub(super) fn end_delivery(&mut self, account: Option<&Arc<Account>>) {
        self.delivering = false;
        self.release();
        if let (true, Some(account)) = (self.holders > 0, account) {
            if account.memory().is_scarce() {
                return self.evict_all();
            }
            let create = || Reservation::new(Arc::clone(account));
            self.reservation.get_or_insert_with(create).set(self.own);
        }
    }

    /// The position behind the last message that has reached a subscriber, or was kept for it.
    /// `reached` is whether the message that is being delivered is one of these.
    pub(super) fn end(&self, reached: bool) -> u64 {
        let end = self.first + self.messages.len() as u64;
        if self.delivering && !reached { end - 1 } else { end }
    }

    /// The message that is being delivered.
    pub(super) fn delivered(&self) -> Option<&T> {
        let last = self.messages.back().filter(|_| self.delivering);
        last.map(|(message, _)| message)
    }

    /// Returns whether the message at this position is being delivered.
    pub(super) fn is_delivering(&self, position: u64) -> bool {
        self.delivering && position == self.end(false)
    }

    /// The messages from a position on that were not evicted, with their positions.
    pub(super) fn since(&self, start: u64) -> impl Iterator<Item = (u64, &T)> {
        let start = start.max(self.first);
        (start..).zip(self.range(start, self.end(true)))
    }

    /// Returns whether a message at this position or after it was evicted.
    pub(super) fn has_evicted(&self, position: u64) -> bool {
        position < self.first
    }

    /// The messages from position `start` to before `end` that were not evicted.
    pub(super) fn range(&self, start: u64, end: u64) -> impl ExactSizeIterator<Item = &T> {
        let index = |position: u64| position.saturating_sub(self.first) as usize;
        let (start, end) = (index(start), index(end));
        self.messages.range(start.min(end)..end).map(|(message, _)| message)
    }
}

#[cfg(test)]
mod tests {
    use tower_channels_transports::Memory;

    use super::*;

    fn deliver(log: &mut ReplayLog<char>, message: char, cost: usize) {
        log.begin_delivery(message, cost.into(), 10);
        log.end_delivery(None);
    }

    fn since(log: &ReplayLog<char>, position: u64) -> String {
        log.range(position, log.end(true)).collect()
    }

    #[test]
    fn each_holder_finds_what_came_after_it() {
        let mut log = ReplayLog::default();
        deliver(&mut log, 'a', 1);
        log.hold();
        let one = log.end(true);
        deliver(&mut log, 'b', 1);
        log.hold();
        let other = log.end(true);
        deliver(&mut log, 'c', 1);
        assert_eq!((since(&log, one), since(&log, other)), ("bc".into(), "c".into()));
    }

    #[test]
    fn nothing_is_kept_without_a_holder() {
        let mut log = ReplayLog::default();
        log.hold();
        let one = log.end(true);
        deliver(&mut log, 'a', 1);
        log.release();
        assert!(log.messages.is_empty());
        deliver(&mut log, 'b', 1);
        assert!(log.messages.is_empty());
        assert_eq!(log.end(true), one + 2, "a position is never used again");
    }

    #[test]
    fn the_oldest_messages_are_evicted_above_the_limit() {
        let mut log = ReplayLog::default();
        log.hold();
        let early = log.end(true);
        deliver(&mut log, 'a', 6);
        let late = log.end(true);
        deliver(&mut log, 'b', 6);
        assert!(!log.has_evicted(early));
        deliver(&mut log, 'c', 6);
        assert!(log.has_evicted(early) && !log.has_evicted(late));
        assert_eq!(since(&log, late), "bc");
    }

    #[test]
    fn nothing_is_kept_beyond_a_delivery_while_memory_is_scarce() {
        let memory = Memory::new(1000);
        let (account, mut others) = (memory.account(), Reservation::new(memory.account()));
        let mut log = ReplayLog::default();
        log.hold();
        let early = log.end(true);
        let deliver = |log: &mut ReplayLog<char>| {
            log.begin_delivery('a', 5000.into(), 10_000);
            log.end_delivery(Some(&account));
        };
        others.set(2000);
        deliver(&mut log);
        assert!(log.has_evicted(early) && log.messages.is_empty());
        let late = log.end(true);
        others.set(0);
        deliver(&mut log);
        assert!(!log.has_evicted(late));
        assert_eq!((since(&log, late), memory.reserved() > 0), ("a".into(), true));
        deliver(&mut log);
        assert!(log.has_evicted(late));
        assert_eq!(memory.reserved(), 0);
    }

    #[test]
    fn one_message_above_the_limit_evicts_nothing() {
        let mut log = ReplayLog::default();
        log.hold();
        let one = log.end(true);
        deliver(&mut log, 'a', 100);
        deliver(&mut log, 'b', 1);
        assert!(!log.has_evicted(one));
        assert_eq!(since(&log, one), "ab");
    }

    #[test]
    fn a_message_that_is_being_delivered_is_ahead_of_those_that_it_has_not_reached() {
        let mut log = ReplayLog::default();
        log.begin_delivery('a', 1.into(), 10);
        log.hold();
        let (reached, ahead) = (log.end(true), log.end(false));
        log.end_delivery(None);
        assert_eq!((since(&log, reached), since(&log, ahead)), (String::new(), "a".into()));
    }
}
