//! How much waits, against how much may.

/// Counts what waits in a bounded queue, in bytes.
///
/// The largest thing that waits is not held against the limit: one message as large as the limit
/// must not make the small one behind it an offence. So a queue holds at most its limit and two of
/// its largest messages.
///
/// ```
/// use tower_channels_transports::Backlog;
///
/// let mut backlog = Backlog::new(1000);
/// for cost in [5000, 700, 700] {
///     assert!(backlog.add(cost));
/// }
/// assert!(!backlog.add(1));
/// backlog.remove(5000);
/// assert!(backlog.add(1));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    limit: usize,
    bytes: usize,
    /// The largest that was added since nothing waited.
    largest: usize,
}

impl Backlog {
    /// Nothing waits, and `limit` bytes may.
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, largest: 0 }
    }

    /// Counts one thing more. `false`, and nothing is counted, if what waits is over the limit.
    pub fn add(&mut self, cost: usize) -> bool {
        let room = self.bytes - self.largest.min(self.bytes) <= self.limit;
        if room {
            self.bytes += cost;
            self.largest = self.largest.max(cost);
        }
        room
    }

    /// Counts one thing again that had been counted before, whatever the limit says.
    pub(crate) fn restore(&mut self, cost: usize) {
        self.bytes += cost;
        self.largest = self.largest.max(cost);
    }

    /// Counts so much less.
    pub fn remove(&mut self, cost: usize) {
        self.bytes = self.bytes.saturating_sub(cost);
        if self.bytes == 0 {
            self.largest = 0;
        }
    }

    /// How much waits.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
