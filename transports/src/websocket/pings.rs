//! How a kept session learns over a WebSocket what has arrived: a Ping names the position up to which
//! all was written, and its Pong says that the client's network has it.
//!
//! Time comes in as an argument, and positions are the session's: this only says when to ask.

use std::time::Duration;

use tokio::time::Instant;

/// The Pings of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pings {
    opened: Instant,
    asked: u64,
    answered: u64,
    /// Whether a Pong has come at all.
    heard: bool,
    /// How many bytes were written since the last Ping.
    unasked: usize,
    /// Until when there is no hurry to ask again.
    rest: Instant,
}

impl Pings {
    /// What was written before this position, by an earlier connection, is none of this one's business.
    pub(super) fn new(position: u64, now: Instant) -> Self {
        Self {
            opened: now,
            asked: position,
            answered: position,
            heard: false,
            unasked: 0,
            rest: now,
        }
    }

    /// So many bytes were written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.unasked += bytes;
    }

    /// When to ask, if nothing changes: at once where much was written, else one question at a time and
    /// not too often.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.unasked >= ENOUGH {
            return Some(self.opened);
        }
        (self.unasked > 0 && self.answered == self.asked).then_some(self.rest)
    }

    /// A Ping asks for all before this position.
    pub(super) fn asks(&mut self, position: u64, now: Instant) -> [u8; 8] {
        (self.asked, self.unasked, self.rest) = (position, 0, now + REST);
        position.to_be_bytes()
    }

    /// A Pong: everything before this position has arrived, if it answers a Ping of these.
    pub(super) fn answered(&mut self, payload: &[u8]) -> Option<u64> {
        let position = u64::from_be_bytes(payload.try_into().ok()?);
        self.heard = true;
        self.answered = position.clamp(self.answered, self.asked);
        Some(self.answered)
    }

    /// How much of a kept session may be under way, so that control has not far to overtake. Where
    /// something on the way swallows Pongs there is no telling.
    pub(super) fn window(&self) -> usize {
        let swallowed = !self.heard && self.opened.elapsed() > PONGS_EXPECTED;
        if swallowed { usize::MAX } else { WINDOW }
    }
}

/// How much may be under way.
const WINDOW: usize = 256 * 1024;

/// How much is worth a question of its own: a replay need not stop until its window is empty.
const ENOUGH: usize = WINDOW / 4;

/// How long a connection of which little is written is left in peace after a Ping. What was written
/// meanwhile may come twice, if the connection is lost and the client reads no numbers.
const REST: Duration = Duration::from_millis(250);

/// After this long without any Pong none is expected.
const PONGS_EXPECTED: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn pings() -> (Pings, Instant) {
        let now = Instant::now();
        (Pings::new(7, now), now)
    }

    #[test]
    fn nothing_is_asked_while_nothing_was_written() {
        assert_eq!(pings().0.due(), None);
    }

    #[test]
    fn what_was_written_first_is_asked_about_at_once_and_the_rest_later() {
        let (mut pings, now) = pings();
        pings.wrote(1);
        assert_eq!(pings.due(), Some(now));
        assert_eq!(pings.asks(8, now), 8_u64.to_be_bytes());
        assert_eq!(pings.answered(&8_u64.to_be_bytes()), Some(8));
        assert_eq!(pings.due(), None);
        pings.wrote(1);
        assert_eq!(pings.due(), Some(now + REST));
    }

    #[test]
    fn a_little_waits_for_the_last_answer_and_much_does_not() {
        let (mut pings, now) = pings();
        pings.wrote(1);
        pings.asks(8, now);
        pings.wrote(ENOUGH - 1);
        assert_eq!(pings.due(), None);
        pings.wrote(1);
        assert!(pings.due().is_some_and(|due| due <= now));
        pings.asks(20, now);
        assert_eq!(pings.due(), None);
    }

    #[test]
    fn an_answer_names_no_more_than_was_asked_and_takes_nothing_back() {
        let (mut pings, now) = pings();
        pings.asks(9, now);
        for (payload, position) in [(8, 8), (7, 8), (u64::MAX, 9), (0, 9)] {
            assert_eq!(pings.answered(&u64::to_be_bytes(payload)), Some(position));
        }
        assert_eq!(pings.answered(b"another"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn where_no_answer_ever_comes_the_window_is_open() {
        let (mut pings, _) = pings();
        assert_eq!(pings.window(), WINDOW);
        tokio::time::advance(2 * PONGS_EXPECTED).await;
        assert_eq!(pings.window(), usize::MAX);
        pings.answered(&7_u64.to_be_bytes());
        assert_eq!(pings.window(), WINDOW);
    }
}
