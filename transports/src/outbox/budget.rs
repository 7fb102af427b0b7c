//! A byte limit for a bounded queue.

use std::sync::Arc;

use crate::memory::{Account, Cost, Memory, Reservation};

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
#[derive(Debug)]
pub struct ByteBudget {
    bytes: usize,
    limit: u32,
    /// The largest cost that was acquired since the queue was empty.
    largest: u32,
    /// What the queue holds of the memory of its endpoint: the messages that are counted here, and
    /// those that are retained although they count no more.
    reservation: Option<Reservation>,
}

impl ByteBudget {
    /// Creates an unused budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { bytes: 0, limit: saturate(limit), largest: 0, reservation: None }
    }

    /// Creates an unused budget of `limit` bytes, which are reserved from `account`.
    pub fn within(limit: usize, account: Option<&Arc<Account>>) -> Self {
        let reservation = account.map(|account| Reservation::new(Arc::clone(account)));
        Self { reservation, ..Self::new(limit) }
    }

    /// Counts one more message. Returns `false`, and counts nothing, if the limit is exceeded
    /// already.
    #[must_use]
    pub fn try_acquire(&mut self, cost: impl Into<Cost>) -> bool {
        let has_room = self.bytes.saturating_sub(self.largest as usize) <= self.limit as usize;
        if has_room {
            self.import(cost.into());
        }
        has_room
    }

    /// Returns how many bytes of the limit are free.
    pub(super) fn room(&self) -> usize {
        (self.limit as usize).saturating_sub(self.bytes)
    }

    fn count(&mut self, cost: Cost) {
        self.bytes += cost.bytes();
        self.largest = self.largest.max(saturate(cost.bytes()));
    }

    /// Returns the bytes of a message that is gone.
    pub fn release(&mut self, cost: impl Into<Cost>) {
        let cost = cost.into();
        self.retain(cost);
        self.forget(cost);
    }

    /// Returns the bytes of a message that is retained: it counts no more, but it is still held.
    pub(crate) fn retain(&mut self, cost: Cost) {
        self.bytes = self.bytes.saturating_sub(cost.bytes());
        if self.bytes == 0 {
            self.largest = 0;
        }
    }

    /// A message that was [retained](Self::retain) is gone.
    pub(crate) fn forget(&mut self, cost: Cost) {
        if let Some(reservation) = &mut self.reservation {
            reservation.subtract(cost.own());
        }
    }

    /// Counts a message that was [retained](Self::retain) again, regardless of the limit.
    pub(crate) fn restore(&mut self, cost: Cost) {
        self.count(cost);
    }

    /// Counts a message that comes from another node, regardless of the limit.
    pub(crate) fn import(&mut self, cost: Cost) {
        self.count(cost);
        if let Some(reservation) = &mut self.reservation {
            reservation.add(cost.own());
        }
    }

    /// Ends the reservation: the queue is closed, and what it held is being freed.
    pub fn end_reservation(&mut self) {
        self.reservation = None;
    }

    /// Returns the memory of the endpoint if it is exceeded since the queue has grown: the caller
    /// [relieves](Memory::relieve) it once it holds no lock.
    #[must_use]
    pub fn take_exceeded(&mut self) -> Option<Memory> {
        self.reservation.as_mut()?.take_exceeded()
    }

    /// The limit, in bytes.
    pub(crate) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// The number of bytes in use.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn saturate(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
