//! What a command counts against the limit of a mailbox.

use tower_channels_transports::Cost;

use super::{Command, Rejoin};
use crate::payload::{ALLOCATION, heap_size};

impl Command {
    /// The bytes that it holds: its place in the queue, which may be twice as large as what waits in
    /// it, and what it points to.
    pub(super) fn cost(&self) -> Cost {
        let mut shared = 0;
        let heap = match self {
            Self::Push { reference, event, payload } => {
                reference.heap_size() + heap_size(event) + payload.heap_size()
            }
            Self::Rejoin(rejoin) => size_of_val(&**rejoin) + ALLOCATION + rejoin.heap_size(),
            Self::Broadcast(broadcast) => {
                shared = broadcast.held();
                broadcast.cost(0).bytes()
            }
            Self::Info(info) => size_of_val(&**info) + ALLOCATION,
            // Reserved by its timer, or one at most; never refused.
            Self::Tick(_) | Self::Missed | Self::Pack(_) => return Cost::default(),
            Self::Leave { reference } => reference.heap_size(),
            Self::Detached(_) | Self::Reattached | Self::InvalidEvent => 0,
        };
        Cost::with_shared(2 * size_of::<Self>() + heap, shared)
    }
}

impl Rejoin {
    fn heap_size(&self) -> usize {
        let Self { join_ref, reference, payload, .. } = self;
        join_ref.heap_size() + reference.heap_size() + payload.heap_size()
    }
}
