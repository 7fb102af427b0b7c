//! What is kept on a topic for those of its channels whose clients are away: once for all of them.

use std::collections::VecDeque;

/// The newest messages of a topic, as long as anyone rests there. Plain code.
#[derive(Debug)]
pub(crate) struct ReplayLog<T> {
    messages: VecDeque<(T, usize)>,
    /// The position of the first of them.
    first: u64,
    /// What they cost together.
    cost: usize,
    /// What none of them exceeds.
    largest: usize,
    resting: usize,
}

impl<T> Default for ReplayLog<T> {
    fn default() -> Self {
        Self { messages: VecDeque::new(), first: 0, cost: 0, largest: 0, resting: 0 }
    }
}

impl<T> ReplayLog<T> {
    /// Someone begins to rest. Returns the position of what it will have missed first.
    pub(crate) fn rest(&mut self) -> u64 {
        self.resting += 1;
        self.first + self.messages.len() as u64
    }

    /// Someone who rested since this position is awake, and this is what it missed. What is too long
    /// ago is not in it.
    pub(crate) fn wake(&mut self, since: u64) -> Vec<T>
    where
        T: Clone,
    {
        let skipped = since.saturating_sub(self.first) as usize;
        let missed = self.messages.iter().skip(skipped).map(|(message, _)| message.clone());
        let missed = missed.collect();
        self.leave();
        missed
    }

    /// Someone who rested is gone.
    pub(crate) fn leave(&mut self) {
        self.resting -= 1;
        if self.resting == 0 {
            self.first += self.messages.len() as u64;
            (self.messages, self.cost, self.largest) = (VecDeque::new(), 0, 0);
        }
    }

    /// Keeps a message if anyone rests. If they cost more than `limit` and the largest that there was,
    /// the oldest are given up.
    pub(crate) fn push(&mut self, message: T, cost: usize, limit: usize) {
        if self.resting == 0 {
            return;
        }
        self.messages.push_back((message, cost));
        self.cost += cost;
        self.largest = self.largest.max(cost);
        while self.cost > limit + self.largest {
            let given_up = self.messages.pop_front();
            self.cost -= given_up.map_or(0, |(_, cost)| cost);
            self.first += 1;
        }
    }

    /// Whether who rests since this position has missed what was given up.
    pub(crate) fn has_lost(&self, since: u64) -> bool {
        since < self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_wakes_gets_what_came_while_it_rested() {
        let mut history = ReplayLog::default();
        history.push('a', 1, 10);
        let one = history.rest();
        history.push('b', 1, 10);
        let other = history.rest();
        history.push('c', 1, 10);
        assert_eq!(history.wake(one), ['b', 'c']);
        assert_eq!(history.wake(other), ['c']);
    }

    #[test]
    fn nothing_is_kept_while_nobody_rests() {
        let mut history = ReplayLog::default();
        let one = history.rest();
        history.push('a', 1, 10);
        history.leave();
        history.push('b', 1, 10);
        assert!(history.messages.is_empty());
        let two = history.rest();
        assert!(two > one);
        assert!(history.wake(two).is_empty());
    }

    #[test]
    fn what_is_too_much_is_given_up_and_it_shows() {
        let mut history = ReplayLog::default();
        let early = history.rest();
        history.push('a', 6, 10);
        let late = history.rest();
        history.push('b', 6, 10);
        assert!(!history.has_lost(early));
        history.push('c', 6, 10);
        assert!(history.has_lost(early) && !history.has_lost(late));
        assert_eq!(history.wake(late), ['b', 'c']);
    }

    #[test]
    fn one_large_message_is_held_against_nobody() {
        let mut history = ReplayLog::default();
        let one = history.rest();
        history.push('a', 100, 10);
        history.push('b', 1, 10);
        assert!(!history.has_lost(one));
        assert_eq!(history.wake(one), ['a', 'b']);
    }
}
