//! Wake-ups that are delivered after locks are released.

use std::task::Waker;

use crate::memory::Memory;
use crate::telemetry::OUTBOX_OVERFLOWS;

/// What [`Sender::enqueue`](super::Sender::enqueue) leaves to do once the caller has released its own
/// locks.
#[derive(Debug, Default)]
#[must_use = "the receiver is not woken before `finish`"]
pub struct Enqueued {
    /// Wakes the receiver's task.
    pub wakeup: Wakeup,
    /// Whether the message exceeded the outbox limit, which closed the connection with
    /// [`Close::Overflow`](crate::Close::Overflow).
    pub overflowed: bool,
    /// The memory of the endpoint, if the message exceeded it.
    pub exceeded: Option<Memory>,
}

impl Enqueued {
    /// Counts the overflow, if there was one, wakes the receiver, and relieves exceeded memory.
    pub fn finish(self) {
        if self.overflowed {
            OUTBOX_OVERFLOWS.add(1);
        }
        self.wakeup.wake();
        if let Some(memory) = self.exceeded {
            memory.relieve();
        }
    }
}

/// A wake-up that is still to be delivered.
#[derive(Debug, Default)]
#[must_use = "the receiver is not woken before `wake`"]
pub struct Wakeup(pub(super) Option<Waker>);

impl Wakeup {
    /// Wakes the receiver's task, if it waits.
    pub fn wake(self) {
        if let Some(waker) = self.0 {
            waker.wake();
        }
    }

    /// Returns the waker of the receiver's task, if it waits, for a caller that collects many.
    pub fn into_waker(self) -> Option<Waker> {
        self.0
    }
}
