//! What one session, and each of its queues and buffers, has reserved.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Memory;

/// What one session has reserved of the memory of its endpoint.
pub struct Account {
    memory: Memory,
    reserved: AtomicUsize,
}

/// What one queue or buffer holds, reserved from an [`Account`] until it is dropped.
///
/// It is counted in steps of 4 KiB, and the first KiB is not counted: a queue of a few small messages
/// that fills and empties all the time writes to nothing shared.
pub struct Reservation {
    account: Arc<Account>,
    held: usize,
    reserved: usize,
    /// Whether more was reserved since the last [`take_exceeded`](Self::take_exceeded).
    has_grown: bool,
}

impl Account {
    pub(super) fn new(memory: Memory) -> Self {
        Self { memory, reserved: AtomicUsize::new(0) }
    }

    /// Returns the memory that this is an account of.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Returns how many bytes are reserved.
    pub fn reserved(&self) -> usize {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Reserves `bytes` for something that is created once and does not grow, exactly.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> FixedReservation {
        self.change(0, bytes);
        FixedReservation { account: Arc::clone(self), bytes }
    }

    fn change(&self, from: usize, to: usize) {
        if to > from {
            self.reserved.fetch_add(to - from, Ordering::Relaxed);
            self.memory.reserve(to - from);
        } else {
            self.reserved.fetch_sub(from - to, Ordering::Relaxed);
            self.memory.release(from - to);
        }
    }
}

/// A fixed number of bytes, reserved from an [`Account`] until it is dropped.
#[derive(Debug)]
pub struct FixedReservation {
    account: Arc<Account>,
    bytes: usize,
}

impl Drop for FixedReservation {
    fn drop(&mut self) {
        self.account.change(self.bytes, 0);
    }
}

impl Reservation {
    /// Creates an empty reservation.
    pub fn new(account: Arc<Account>) -> Self {
        Self { account, held: 0, reserved: 0, has_grown: false }
    }

    /// Returns the account.
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Returns how many bytes are held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Holds `bytes` more.
    pub fn add(&mut self, bytes: usize) {
        self.set(self.held.saturating_add(bytes));
    }

    /// Holds `bytes` less.
    pub fn subtract(&mut self, bytes: usize) {
        self.set(self.held.saturating_sub(bytes));
    }

    /// Holds this many bytes.
    pub fn set(&mut self, bytes: usize) {
        self.held = bytes;
        let reserved = reserved_for(bytes, self.reserved);
        if reserved != self.reserved {
            self.has_grown |= reserved > self.reserved;
            self.account.change(self.reserved, reserved);
            self.reserved = reserved;
        }
    }

    /// Returns the memory if it is exceeded since this reservation has grown: the caller
    /// [relieves](Memory::relieve) it once it holds no lock.
    #[must_use]
    pub fn take_exceeded(&mut self) -> Option<Memory> {
        let memory = &self.account.memory;
        let exceeded = std::mem::take(&mut self.has_grown) && memory.is_exceeded();
        exceeded.then(|| memory.clone())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// How many bytes to reserve for those that are held, after `reserved` were.
fn reserved_for(held: usize, reserved: usize) -> usize {
    if held <= FREE {
        0
    } else if held > reserved.saturating_add(FREE) || reserved > held.saturating_add(STEP) {
        held.div_ceil(STEP).saturating_mul(STEP)
    } else {
        reserved
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("reserved", &self.reserved()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("held", &self.held).finish_non_exhaustive()
    }
}

/// The unit in which bytes are reserved.
const STEP: usize = 4 * 1024;

/// How many bytes of each reservation are not counted.
const FREE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_follows_what_is_held_in_steps() {
        let mut reserved = 0;
        for (held, expected) in [
            (1024, 0),
            (1025, 4096),
            (5120, 4096),
            (5121, 8192),
            (4096, 8192),
            (4095, 4096),
            (1025, 4096),
            (1024, 0),
            (100_000, 102_400),
        ] {
            reserved = reserved_for(held, reserved);
            assert_eq!(reserved, expected, "{held}");
        }
    }

    #[test]
    fn what_does_not_grow_is_reserved_exactly_until_it_is_dropped() {
        let memory = Memory::new(10);
        let held = [memory.account().hold(7), memory.account().hold(4)];
        assert!(memory.reserved() == 11 && memory.is_exceeded());
        drop(held);
        assert_eq!(memory.reserved(), 0);
    }

    #[test]
    fn a_queue_of_few_small_messages_touches_nothing_shared() {
        let memory = Memory::new(0);
        let mut reservation = Reservation::new(memory.account());
        for _ in 0..5 {
            reservation.add(200);
        }
        assert!(reservation.take_exceeded().is_none());
        assert_eq!(memory.reserved(), 0);
    }

    #[test]
    fn a_thousand_messages_of_a_backlog_touch_the_shared_count_fifty_times() {
        let memory = Memory::new(usize::MAX);
        let mut reservation = Reservation::new(memory.account());
        let mut touched = 0;
        for _ in 0..1000 {
            let before = memory.reserved();
            reservation.add(200);
            touched += usize::from(memory.reserved() != before);
        }
        assert_eq!(touched, 49);
        drop(reservation);
        assert_eq!(memory.reserved(), 0);
    }
}
