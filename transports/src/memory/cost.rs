//! [`Cost`]: what a queue counts for a message.

use std::iter::Sum;
use std::ops::AddAssign;

/// What a message counts against the limit of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    bytes: usize,
    /// Those of the bytes that other queues hold, too, and that are reserved once for all of them.
    shared: usize,
}

impl Cost {
    /// Creates the cost of a message of which `shared` bytes are reserved elsewhere.
    pub fn with_shared(bytes: usize, shared: usize) -> Self {
        Self { bytes, shared: shared.min(bytes) }
    }

    /// Returns how many bytes count against the limit.
    pub fn bytes(self) -> usize {
        self.bytes
    }

    /// Returns how many bytes are reserved for this queue alone.
    pub fn own(self) -> usize {
        self.bytes - self.shared
    }
}

impl From<usize> for Cost {
    fn from(bytes: usize) -> Self {
        Self { bytes, shared: 0 }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.shared += other.shared;
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), |mut sum, cost| {
            sum += cost;
            sum
        })
    }
}
