//! How often a token may be repeated.

use std::time::Duration;

use tokio::time::Instant;

/// Counts the polls that acknowledge nothing new.
///
/// A browser repeats a GET whose connection was lost, and a client polls again with the token of an
/// empty response: a few times a second at most. Each repeat is answered with everything that is not
/// acknowledged, so hundreds of them would multiply it.
#[derive(Debug)]
pub(super) struct Repeats {
    /// The highest cursor of a poll.
    cursor: u64,
    since: Instant,
    count: u32,
}

impl Repeats {
    pub(super) fn new(now: Instant) -> Self {
        Self { cursor: 0, since: now, count: 0 }
    }

    /// Counts a poll. Returns `false` if there were too many of the same token within a second.
    pub(super) fn admit(&mut self, cursor: u64, now: Instant) -> bool {
        let is_new = cursor > self.cursor;
        if is_new || now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.count) = (now, 0);
        }
        self.cursor = self.cursor.max(cursor);
        self.count = self.count.saturating_add(1);
        self.count <= MAX_PER_SECOND
    }
}

const MAX_PER_SECOND: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tens_of_repeats_a_second_are_admitted_and_hundreds_are_not() {
        let start = Instant::now();
        let mut repeats = Repeats::new(start);
        let mut admitted = |second| {
            let now = start + Duration::from_secs(second);
            (0..500).filter(|_| repeats.admit(7, now)).count()
        };
        assert_eq!([admitted(0), admitted(0), admitted(1), admitted(9)], [50, 0, 50, 50]);
    }

    #[test]
    fn a_client_that_acknowledges_may_poll_as_often_as_it_likes() {
        let now = Instant::now();
        let mut repeats = Repeats::new(now);
        assert!((0..1000).all(|cursor| repeats.admit(cursor, now)));
        assert_eq!((0..1000).filter(|cursor| repeats.admit(*cursor, now)).count(), 49);
    }
}
