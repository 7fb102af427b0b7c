//! A bounded queue from any task to the connection that writes to a client.
//!
//! The limit counts bytes until they are *released*, which means written or acknowledged and not
//! merely taken: a connection that stops reading cannot hide its backlog in the transport.
//!
//! An outbox is either plain, a queue that one connection empties, or *resumable*. A resumable outbox
//! has a replay buffer and outlives its connections. Each of them is an *epoch* with a [`Receiver`] of
//! its own, and a newer epoch supersedes the older ones.

mod arrived;
mod budget;
mod loss;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
#[doc(hidden)]
pub mod model;
mod moved;
mod poll;
mod priority;
mod queue;
mod receiver;
mod replay_buffer;
mod replies;
mod sender;
mod sent;
mod streams;
mod wakeup;

use std::sync::{Arc, Weak};

use crate::memory::{Memory, Relievable};

pub use self::arrived::Moment;
pub use self::budget::ByteBudget;
pub(crate) use self::loss::Loss;
pub(crate) use self::moved::{MovedOutbox, MovedStream};
pub(crate) use self::poll::Collected;
use self::queue::{Session, Shared};
pub use self::receiver::Receiver;
pub use self::sender::Sender;
pub(crate) use self::sent::MAX_RETAINED;
pub use self::wakeup::{Enqueued, Wakeup};

/// Creates a plain outbox whose backlog is limited to `limit` bytes, and the side that empties it.
///
/// Exceeding the limit closes the connection with [`Close::Overflow`]; [`ByteBudget`] defines what
/// counts.
///
/// [`Close::Overflow`]: crate::Close::Overflow
pub fn channel(limit: usize) -> (Sender, Receiver) {
    split(Arc::new(Shared::new(limit, None)))
}

/// Creates a plain outbox that reserves its backlog in `memory`, which may close it.
pub fn channel_in(limit: usize, memory: &Memory) -> (Sender, Receiver) {
    split(Arc::new_cyclic(|outbox: &Weak<Shared>| {
        let account = memory.account();
        let key = memory.add(Weak::clone(outbox) as Weak<dyn Relievable>);
        Shared::new(limit, Some(Session { account, key }))
    }))
}

fn split(shared: Arc<Shared>) -> (Sender, Receiver) {
    (Sender::new(Arc::clone(&shared)), Receiver::new(shared, 0))
}

#[cfg(test)]
mod tests;
