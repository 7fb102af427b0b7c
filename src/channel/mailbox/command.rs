//! [`Command`]: what a channel's task is to handle.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;
use tower_channels_transports::DetachReason;

use crate::channel::moving::PackRequest;
use crate::history::Position;
use crate::message::Ref;
use crate::payload::Payload;
use crate::topics::broadcast::Broadcast;

/// What a channel's task is to handle.
pub(crate) enum Command {
    /// A push from the client.
    Push { reference: Ref, event: SmolStr, payload: Payload },
    /// A broadcast that the channel intercepts, or of another topic that it has subscribed to.
    Broadcast(Arc<Broadcast>),
    /// A `Channel::Info` from `Handle::send`, as a `Guarded`.
    Info(Box<dyn Any + Send>),
    /// A [`Tick`](crate::channel::timers::Tick) of a timer, with a `Channel::Info`.
    Tick(Box<dyn Any + Send>),
    /// The client has joined again in a resumable session.
    Rejoin(Box<Rejoin>),
    /// The client is away, for this reason, and its session is resumable.
    Detached(DetachReason),
    /// The client was taken for away, and goes on without joining again.
    Reattached,
    /// The client leaves.
    Leave { reference: Ref },
    /// The client sent an event that is not a string.
    InvalidEvent,
    /// Broadcasts may have been lost.
    Missed,
    /// The client goes on on another node.
    Pack(PackRequest),
}

/// A join of a topic whose channel may be alive. If it has ended when its turn comes, this is an
/// ordinary join.
pub(crate) struct Rejoin {
    /// The join_ref as the client sent it, which may be null.
    pub(crate) join_ref: Ref,
    pub(crate) reference: Ref,
    pub(crate) payload: Payload,
    /// The last message of the topic that the client has received, for an ordinary join.
    pub(crate) after: Option<Position>,
    /// The epoch of the connection that the join came over.
    pub(crate) epoch: u64,
    /// The longest that an ordinary join may take.
    pub(crate) timeout: Duration,
}

impl Command {
    /// Returns whether it comes from the client, and so may be for the instance after this one.
    pub(super) fn is_of_client(&self) -> bool {
        !matches!(self, Self::Broadcast(_) | Self::Info(_) | Self::Tick(_) | Self::Missed)
    }
}
