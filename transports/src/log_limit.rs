//! [`LogLimit`]: how many lines of one kind are logged, so that no client can fill a disk.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The lines of one kind: 300 a minute are logged, and how many more there were.
///
/// [`limited!`](crate::limited) gives each of its lines one.
#[derive(Debug)]
pub struct LogLimit {
    /// Held for a few instructions.
    window: Mutex<Window>,
}

/// The lines of a minute.
#[derive(Debug)]
struct Window {
    /// When the minute began; `None` before the first line.
    began: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

/// What to do with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// How many lines were suppressed in the last minute with lines.
    pub suppressed: u64,
    /// Whether the following lines of this minute are suppressed.
    pub is_last: bool,
}

impl LogLimit {
    /// Creates a limit for one kind of lines.
    #[must_use]
    pub const fn new() -> Self {
        Self { window: Mutex::new(Window { began: None, lines: 0, suppressed: 0 }) }
    }

    /// Counts a line. `None` if it is not to be logged.
    pub fn admit(&self, now: Instant) -> Option<Admitted> {
        self.window.lock().admit(now)
    }
}

impl Default for LogLimit {
    fn default() -> Self {
        Self::new()
    }
}

impl Window {
    fn admit(&mut self, now: Instant) -> Option<Admitted> {
        let is_over = |began| now.saturating_duration_since(began) >= MINUTE;
        let mut suppressed = 0;
        if self.began.is_none_or(is_over) {
            suppressed = self.suppressed;
            *self = Self { began: Some(now), lines: 0, suppressed: 0 };
        }
        if self.lines == MAX_LINES {
            self.suppressed = self.suppressed.saturating_add(1);
            return None;
        }
        self.lines += 1;
        Some(Admitted { suppressed, is_last: self.lines == MAX_LINES })
    }
}

/// Returns the beginning of a text that a client may have chosen and nothing else bounds, for a log line.
pub fn excerpt(text: &str) -> &str {
    let mut end = text.len().min(LONGEST_EXCERPT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

const LONGEST_EXCERPT: usize = 1000;

/// How many lines of a kind are logged per minute: more than a person reads, and too few to fill a disk
/// unnoticed.
const MAX_LINES: u32 = 300;

const MINUTE: Duration = Duration::from_secs(60);

/// Logs a line that clients can cause, as the macros of `tracing` do, within a [`LogLimit`] of its own.
///
/// ```
/// use tower_channels_transports::limited;
///
/// let origin = "https://example.com";
/// limited!(WARN, ?origin, "origin refused");
/// ```
#[macro_export]
macro_rules! limited {
    ($level:ident, $($line:tt)+) => {
        if tracing::enabled!(tracing::Level::$level) {
            static LIMIT: $crate::LogLimit = $crate::LogLimit::new();
            if let Some(admitted) = LIMIT.admit(std::time::Instant::now()) {
                if admitted.suppressed > 0 {
                    let suppressed = admitted.suppressed;
                    tracing::event!(
                        tracing::Level::$level,
                        suppressed,
                        "lines such as the next one were suppressed"
                    );
                }
                tracing::event!(tracing::Level::$level, $($line)+);
                if admitted.is_last {
                    tracing::event!(
                        tracing::Level::$level,
                        "more lines such as the last one are suppressed for up to a minute"
                    );
                }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn line(suppressed: u64) -> Option<Admitted> {
        Some(Admitted { suppressed, is_last: false })
    }

    #[test]
    fn lines_over_the_limit_are_counted_and_reported_with_the_next_one() {
        let (limit, now) = (LogLimit::new(), Instant::now());
        for _ in 1..MAX_LINES {
            assert_eq!(limit.admit(now), line(0));
        }
        assert_eq!(limit.admit(now), Some(Admitted { suppressed: 0, is_last: true }));
        for second in 0..60 {
            assert_eq!(limit.admit(now + Duration::from_secs(second)), None);
        }
        assert_eq!(limit.admit(now + MINUTE), line(60));
        assert_eq!(limit.admit(now + MINUTE), line(0));
    }

    #[test]
    fn an_excerpt_ends_between_characters() {
        assert_eq!(excerpt("short"), "short");
        assert_eq!(excerpt(&"x".repeat(2000)).len(), 1000);
        assert_eq!(excerpt(&"☃".repeat(2000)), "☃".repeat(333));
    }

    #[test]
    fn a_minute_begins_with_its_first_line() {
        let (limit, now) = (LogLimit::new(), Instant::now());
        for minute in 0..5 {
            for _ in 1..MAX_LINES {
                assert_eq!(limit.admit(now + minute * 2 * MINUTE), line(0));
            }
        }
    }
}
