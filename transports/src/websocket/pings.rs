//! Pings by which a resumable session learns what the client has received: a Ping carries the position
//! up to which everything has been written, and its Pong proves that the client's network stack has
//! it.
//!
//! This is plain code: time comes in as an argument, and positions are those of the session.

use std::time::Duration;

use tokio::time::Instant;

/// When one connection sends Pings, and what their Pongs prove.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pings {
    connected_at: Instant,
    /// The position in the newest Ping.
    pinged: u64,
    /// The highest position in a Pong.
    acked: u64,
    pong_seen: bool,
    /// How many bytes were written since the newest Ping.
    bytes_since_ping: usize,
    /// The earliest time for a Ping about few bytes.
    next_ping: Instant,
    /// How many bytes may be in flight.
    window: usize,
    /// The position and the time of the Ping whose round trip is being measured.
    round_trip: Option<(u64, Instant)>,
}

/// What a Pong proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pong {
    /// Everything before it has been received.
    pub(super) position: u64,
    /// How long the Ping and the Pong took, if that was measured.
    pub(super) round_trip: Option<Duration>,
}

impl Pings {
    /// Starts at `position`: what earlier connections wrote before it is never asked about.
    pub(super) fn new(position: u64, now: Instant) -> Self {
        Self {
            connected_at: now,
            pinged: position,
            acked: position,
            pong_seen: false,
            bytes_since_ping: 0,
            next_ping: now,
            window: MIN_WINDOW,
            round_trip: None,
        }
    }

    /// Records that bytes were written.
    pub(super) fn on_write(&mut self, bytes: usize) {
        self.bytes_since_ping += bytes;
    }

    /// When the next Ping is due if nothing else is written; a time in the past means now.
    ///
    /// A quarter of the window is asked about at once, so that a replay never stops for an exhausted
    /// window. Less than that waits for the previous Pong and for [`PING_INTERVAL`].
    pub(super) fn due(&self) -> Option<Instant> {
        if self.bytes_since_ping >= self.window / 4 {
            return Some(self.connected_at);
        }
        (self.bytes_since_ping > 0 && self.acked == self.pinged).then_some(self.next_ping)
    }

    /// Returns the payload of a Ping that asks about everything before `position`.
    pub(super) fn ping(&mut self, position: u64, now: Instant) -> [u8; 8] {
        self.pinged = position;
        self.bytes_since_ping = 0;
        self.next_ping = now + PING_INTERVAL;
        self.round_trip.get_or_insert((position, now));
        position.to_be_bytes()
    }

    /// Handles a Pong. Returns what it proves, unless the payload is not one of ours. A fast Pong doubles the window, a slow
    /// one halves it.
    pub(super) fn on_pong(&mut self, payload: &[u8], now: Instant) -> Option<Pong> {
        let position = u64::from_be_bytes(payload.try_into().ok()?);
        self.pong_seen = true;
        self.acked = position.clamp(self.acked, self.pinged);
        let measured = self.round_trip.take_if(|(asked, _)| *asked <= self.acked);
        let round_trip = measured.map(|(_, pinged_at)| now.duration_since(pinged_at));
        self.window = match round_trip {
            Some(time) if time < FAST => (self.window * 2).min(MAX_WINDOW),
            Some(time) if time > SLOW => (self.window / 2).max(MIN_WINDOW),
            _ => self.window,
        };
        Some(Pong { position: self.acked, round_trip })
    }

    /// How many bytes of a resumable session may be in flight. A small window on a slow line lets
    /// priority messages arrive soon. It is unlimited if something on the way swallows Pongs.
    pub(super) fn window(&self, now: Instant) -> usize {
        let swallowed =
            !self.pong_seen && now.duration_since(self.connected_at) > FIRST_PONG_TIMEOUT;
        if swallowed { usize::MAX } else { self.window }
    }
}

/// The window at first and on the slowest line: a third of a second at 100 kB/s.
const MIN_WINDOW: usize = 32 * 1024;

/// The largest window.
const MAX_WINDOW: usize = 512 * 1024;

/// A round trip below this shows that the line could carry more.
const FAST: Duration = Duration::from_millis(250);

/// A round trip above this shows that too much was in flight.
const SLOW: Duration = Duration::from_secs(1);

/// The interval of Pings on a connection that writes little. If the connection is lost, a client that
/// does not read sequence numbers may get what was written since the last Pong twice.
const PING_INTERVAL: Duration = Duration::from_millis(250);

/// A connection without any Pong for this long gets none.
const FIRST_PONG_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn pings() -> (Pings, Instant) {
        let now = Instant::now();
        (Pings::new(7, now), now)
    }

    #[test]
    fn no_ping_is_due_before_anything_is_written() {
        assert_eq!(pings().0.due(), None);
    }

    #[test]
    fn the_first_ping_is_due_at_once_and_the_next_after_an_interval() {
        let (mut pings, now) = pings();
        pings.on_write(1);
        assert_eq!(pings.due(), Some(now));
        assert_eq!(pings.ping(8, now), 8_u64.to_be_bytes());
        let pong = pings.on_pong(&8_u64.to_be_bytes(), now + FAST);
        assert_eq!(pong, Some(Pong { position: 8, round_trip: Some(FAST) }));
        assert_eq!(pings.due(), None);
        pings.on_write(1);
        assert_eq!(pings.due(), Some(now + PING_INTERVAL));
    }

    #[test]
    fn few_bytes_wait_for_the_previous_pong_and_many_do_not() {
        let (mut pings, now) = pings();
        pings.on_write(1);
        pings.ping(8, now);
        pings.on_write(MIN_WINDOW / 4 - 1);
        assert_eq!(pings.due(), None);
        pings.on_write(1);
        assert!(pings.due().is_some_and(|due| due <= now));
        pings.ping(20, now);
        assert_eq!(pings.due(), None);
    }

    #[test]
    fn a_pong_acknowledges_no_more_than_was_asked_and_takes_nothing_back() {
        let (mut pings, now) = pings();
        pings.ping(9, now);
        for (payload, position) in [(8, 8), (7, 8), (u64::MAX, 9), (0, 9)] {
            let pong = pings.on_pong(&u64::to_be_bytes(payload), now);
            assert_eq!(pong.map(|pong| pong.position), Some(position));
        }
        assert_eq!(pings.on_pong(b"another", now), None);
    }

    #[test]
    fn without_any_pong_the_window_opens() {
        let (mut pings, now) = pings();
        assert_eq!(pings.window(now + FIRST_PONG_TIMEOUT), MIN_WINDOW);
        let later = now + 2 * FIRST_PONG_TIMEOUT;
        assert_eq!(pings.window(later), usize::MAX);
        pings.on_pong(&7_u64.to_be_bytes(), later);
        assert_eq!(pings.window(later), MIN_WINDOW);
    }

    /// The window after Pings whose round trips took so many milliseconds each.
    fn window_after(round_trips: &[u64]) -> usize {
        let (mut pings, mut now) = pings();
        for (position, millis) in (8..).zip(round_trips) {
            let payload = pings.ping(position, now);
            now += Duration::from_millis(*millis);
            pings.on_pong(&payload, now);
        }
        pings.window(now)
    }

    #[test]
    fn fast_round_trips_grow_the_window() {
        assert_eq!(window_after(&[20; 3]), 8 * MIN_WINDOW);
        assert_eq!(window_after(&[20; 30]), MAX_WINDOW);
    }

    #[test]
    fn slow_round_trips_shrink_the_window() {
        assert_eq!(window_after(&[20, 20, 500]), 4 * MIN_WINDOW);
        assert_eq!(window_after(&[20, 20, 2000]), 2 * MIN_WINDOW);
        assert_eq!(window_after(&[2000; 10]), MIN_WINDOW);
    }

    #[test]
    fn of_several_pings_in_flight_the_first_is_measured() {
        let (mut pings, now) = pings();
        let first = pings.ping(8, now);
        pings.ping(9, now + SLOW);
        pings.on_pong(&first, now + SLOW + FAST);
        assert_eq!(pings.window, MIN_WINDOW, "it was slow");
        let third = pings.ping(10, now + SLOW + FAST);
        pings.on_pong(&9_u64.to_be_bytes(), now + SLOW + FAST);
        pings.on_pong(&third, now + SLOW + FAST);
        assert_eq!(pings.window, 2 * MIN_WINDOW);
    }
}
