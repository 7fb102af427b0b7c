//! How much waits, against how much may.

/// Counts what waits in a bounded queue, in bytes.
///
/// The largest thing that waits is not held against the limit: one message as large as the limit
/// must not make the small one behind it an offence. So a queue holds at most its limit and two of
/// its largest messages. A limit, or one thing, of more than 4 GiB counts as one of 4 GiB there.
///
/// ```
/// use tower_channels_transports::ByteBudget;
///
/// let mut backlog = ByteBudget::new(1000);
/// for cost in [5000, 700, 700] {
///     assert!(backlog.add(cost));
/// }
/// assert!(!backlog.add(1));
/// backlog.remove(5000);
/// assert!(backlog.add(1));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ByteBudget {
    bytes: usize,
    limit: u32,
    /// The largest that was added since nothing waited.
    largest: u32,
}

impl ByteBudget {
    /// Nothing waits, and `limit` bytes may.
    pub fn new(limit: usize) -> Self {
        Self { bytes: 0, limit: saturated(limit), largest: 0 }
    }

    /// Counts one thing more. `false`, and nothing is counted, if what waits is over the limit.
    pub fn add(&mut self, cost: usize) -> bool {
        let room = self.bytes.saturating_sub(self.largest as usize) <= self.limit as usize;
        if room {
            self.restore(cost);
        }
        room
    }

    /// Counts one thing again that had been counted before, whatever the limit says.
    pub(crate) fn restore(&mut self, cost: usize) {
        self.bytes += cost;
        self.largest = self.largest.max(saturated(cost));
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

fn saturated(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
