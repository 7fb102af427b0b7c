//! How a resumable session learns over a WebSocket what has arrived: a Ping names the position up to which
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
    /// How much may be under way.
    window: usize,
    /// When it was asked whether all before this position has arrived, if that is being measured.
    measured: Option<(u64, Instant)>,
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
            window: SMALLEST,
            measured: None,
        }
    }

    /// So many bytes were written.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.unasked += bytes;
    }

    /// When to ask, if nothing changes: at once where much was written, so that a replay need not stop
    /// until its window is empty; else one question at a time and not too often.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.unasked >= self.window / 4 {
            return Some(self.opened);
        }
        (self.unasked > 0 && self.answered == self.asked).then_some(self.rest)
    }

    /// A Ping asks for all before this position.
    pub(super) fn asks(&mut self, position: u64, now: Instant) -> [u8; 8] {
        (self.asked, self.unasked, self.rest) = (position, 0, now + REST);
        self.measured.get_or_insert((position, now));
        position.to_be_bytes()
    }

    /// A Pong: everything before this position has arrived, if it answers a Ping of these. One that
    /// comes soon makes room for more under way, and one that comes late for less.
    pub(super) fn answered(&mut self, payload: &[u8], now: Instant) -> Option<u64> {
        let position = u64::from_be_bytes(payload.try_into().ok()?);
        self.heard = true;
        self.answered = position.clamp(self.answered, self.asked);
        if let Some((_, asked)) = self.measured.take_if(|(asked, _)| *asked <= self.answered) {
            self.window = match now.duration_since(asked) {
                time if time < SOON => (self.window * 2).min(LARGEST),
                time if time > LATE => (self.window / 2).max(SMALLEST),
                _ => self.window,
            };
        }
        Some(self.answered)
    }

    /// How much of a resumable session may be under way, so that control has not far to overtake: on a slow
    /// line less than on a fast one. Where something on the way swallows Pongs there is no telling.
    pub(super) fn window(&self) -> usize {
        let swallowed = !self.heard && self.opened.elapsed() > PONGS_EXPECTED;
        if swallowed { usize::MAX } else { self.window }
    }
}

/// How much may be under way at first and on the slowest line: of 100 kB/s it is a third of a second.
const SMALLEST: usize = 32 * 1024;

/// How much may be under way at most.
const LARGEST: usize = 512 * 1024;

/// What answers a Ping so soon had little before it, and could have had twice that.
const SOON: Duration = Duration::from_millis(250);

/// What answers a Ping so late had too much before it.
const LATE: Duration = Duration::from_secs(1);

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
        assert_eq!(pings.answered(&8_u64.to_be_bytes(), now), Some(8));
        assert_eq!(pings.due(), None);
        pings.wrote(1);
        assert_eq!(pings.due(), Some(now + REST));
    }

    #[test]
    fn a_little_waits_for_the_last_answer_and_much_does_not() {
        let (mut pings, now) = pings();
        pings.wrote(1);
        pings.asks(8, now);
        pings.wrote(SMALLEST / 4 - 1);
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
            assert_eq!(pings.answered(&u64::to_be_bytes(payload), now), Some(position));
        }
        assert_eq!(pings.answered(b"another", now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn where_no_answer_ever_comes_the_window_is_open() {
        let (mut pings, now) = pings();
        assert_eq!(pings.window(), SMALLEST);
        tokio::time::advance(2 * PONGS_EXPECTED).await;
        assert_eq!(pings.window(), usize::MAX);
        pings.answered(&7_u64.to_be_bytes(), now);
        assert_eq!(pings.window(), SMALLEST);
    }

    /// The window after answers that took so many milliseconds each.
    fn window_after(answers: &[u64]) -> usize {
        let (mut pings, mut now) = pings();
        for (position, millis) in (8..).zip(answers) {
            let asked = pings.asks(position, now);
            now += Duration::from_millis(*millis);
            pings.answered(&asked, now);
        }
        pings.window
    }

    #[test]
    fn more_may_be_under_way_on_a_line_that_answers_soon() {
        assert_eq!(window_after(&[20; 3]), 8 * SMALLEST);
        assert_eq!(window_after(&[20; 30]), LARGEST);
    }

    #[test]
    fn a_line_that_grows_slow_has_less_under_way() {
        assert_eq!(window_after(&[20, 20, 500]), 4 * SMALLEST);
        assert_eq!(window_after(&[20, 20, 2000]), 2 * SMALLEST);
        assert_eq!(window_after(&[2000; 10]), SMALLEST);
    }

    #[test]
    fn the_first_of_several_questions_is_the_one_that_is_measured() {
        let (mut pings, now) = pings();
        let first = pings.asks(8, now);
        pings.asks(9, now + LATE);
        pings.answered(&first, now + LATE + SOON);
        assert_eq!(pings.window, SMALLEST, "it was late");
        let third = pings.asks(10, now + LATE + SOON);
        pings.answered(&9_u64.to_be_bytes(), now + LATE + SOON);
        pings.answered(&third, now + LATE + SOON);
        assert_eq!(pings.window, 2 * SMALLEST);
    }
}
