//! The memory that everything which clients can fill shares: one budget for the whole endpoint.
//!
//! ```text
//! Memory      one per endpoint: how much is reserved, and which sessions could be closed
//! Account     one per session, or per purpose without a session: what it has reserved
//! Reservation one per queue or buffer: what it holds, reserved from its account in steps
//! ```

mod cost;
mod relief;
mod reservation;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;

pub use self::cost::Cost;
use self::relief::Relief;
pub(crate) use self::relief::Relievable;
pub use self::reservation::{Account, FixedReservation, Reservation, is_counted};
use crate::telemetry::{Level, MEMORY, MEMORY_LIMIT, UNLABELED};

/// The memory budget of an endpoint; see [`Limits::memory`](crate::Limits::memory). A cheap clone.
///
/// A budget is exceeded before anything is done about it: what is reserved counts at once, and
/// [`relieve`](Self::relieve) closes sessions until less is reserved.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

struct Shared {
    limit: usize,
    /// The reserved bytes. Written once per step of a reservation, not once per message.
    reserved: AtomicUsize,
    relief: Relief,
    gauges: [Level; 2],
}

impl Memory {
    /// Creates a budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let gauges = [&MEMORY, &MEMORY_LIMIT].map(|gauge| Level::new(gauge.handle(UNLABELED)));
        let (reserved, relief) = (AtomicUsize::new(0), Relief::default());
        Self(Arc::new(Shared { limit, reserved, relief, gauges }))
    }

    /// Returns how many bytes are reserved.
    pub fn reserved(&self) -> usize {
        self.0.reserved.load(Ordering::Relaxed)
    }

    /// Returns how many bytes may be reserved.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Returns whether no new session should be admitted: nine tenths are reserved.
    pub fn is_scarce(&self) -> bool {
        self.reserved() >= self.0.limit - self.0.limit / 10
    }

    /// Returns whether more is reserved than there is.
    pub fn is_exceeded(&self) -> bool {
        self.reserved() > self.0.limit
    }

    /// Closes the sessions that hold most with [`Close::Overflow`](crate::Close::Overflow) if the
    /// budget is exceeded, until it would not be scarce any more. The caller holds no lock.
    pub fn relieve(&self) {
        if self.is_exceeded() {
            self.relieve_to(self.0.limit - self.0.limit / 10);
        }
    }

    /// Closes the sessions that hold most until a quarter of the budget is free. For a budget that has
    /// been scarce for so long that nobody else comes in. The caller holds no lock.
    pub(crate) fn make_room(&self) {
        self.relieve_to(self.0.limit - self.0.limit / 4);
    }

    fn relieve_to(&self, enough: usize) {
        self.0.relief.run(self.reserved().saturating_sub(enough));
    }

    /// Creates an account that belongs to no session.
    pub fn account(&self) -> Arc<Account> {
        Arc::new(Account::new(self.clone()))
    }

    /// Reserves what `bytes` hold for as long as any clone of them exists. For bytes that many
    /// queues share; few are not [counted](is_counted) and are returned as an error.
    pub(crate) fn hold(&self, bytes: Bytes) -> Result<Bytes, Bytes> {
        if !is_counted(bytes.len()) {
            return Err(bytes);
        }
        let mut reservation = Reservation::new(self.account());
        reservation.set(bytes.len());
        Ok(Bytes::from_owner(Held { bytes, _reservation: reservation }))
    }

    /// Updates the gauges. The caller holds no lock.
    pub fn record_gauges(&self) {
        let [reserved, limit] = &self.0.gauges;
        reserved.set(self.reserved());
        limit.set(self.0.limit);
    }

    /// Adds a session that can be closed.
    pub(crate) fn add(&self, session: Weak<dyn Relievable>) -> u64 {
        self.0.relief.add(session)
    }

    /// Removes a session that was [added](Self::add).
    pub(crate) fn remove(&self, key: u64) {
        self.0.relief.remove(key);
    }

    fn reserve(&self, bytes: usize) {
        self.0.reserved.fetch_add(bytes, Ordering::Relaxed);
    }

    fn release(&self, bytes: usize) {
        self.0.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes with the reservation for them.
struct Held {
    bytes: Bytes,
    _reservation: Reservation,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("limit", &self.0.limit)
            .field("reserved", &self.reserved())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
