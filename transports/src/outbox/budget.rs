//! A byte limit for a bounded queue.

/// Counts the bytes that wait in a bounded queue against a limit.
///
/// The largest message that waits is not held against the limit: one message as large as the limit
/// must not make the small one behind it an overflow. A queue therefore holds at most its limit plus
/// its two largest messages. A limit or a message above 4 GiB counts as 4 GiB.
///
/// ```
/// use tower_channels_transports::ByteBudget;
///
/// let mut budget = ByteBudget::new(1000);
/// for cost in [5000, 700, 700] {
///     assert!(budget.try_acquire(cost));
/// }
/// assert!(!budget.try_acquire(1));
/// budget.release(5000);
/// assert!(budget.try_acquire(1));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ByteBudget {
    bytes: usize,
    limit: u32,
    /// The largest cost that was acquired since the queue was empty.
    largest: u32,
}

impl ByteBudget {
    /// Creates an unused budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: 0, limit: saturate(limit), largest: 0 }
    }

    /// Counts one more message. Returns `false`, and counts nothing, if the limit is exceeded
    /// already.
    #[must_use]
    pub fn try_acquire(&mut self, cost: usize) -> bool {
        let has_room = self.bytes.saturating_sub(self.largest as usize) <= self.limit as usize;
        if has_room {
            self.acquire(cost);
        }
        has_room
    }

    /// Counts one more message regardless of the limit.
    pub(crate) fn acquire(&mut self, cost: usize) {
        self.bytes += cost;
        self.largest = self.largest.max(saturate(cost));
    }

    /// Returns `cost` bytes to the budget.
    pub fn release(&mut self, cost: usize) {
        self.bytes = self.bytes.saturating_sub(cost);
        if self.bytes == 0 {
            self.largest = 0;
        }
    }

    /// The number of bytes in use.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn saturate(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
