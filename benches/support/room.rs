//! The channels used by the benches.

use std::marker::PhantomData;

use tower_channels::channel::Result;
use tower_channels::{Channel, Joined, Payload, Reply, Socket};

/// A channel that replies to `ping` with its payload and broadcasts everything else.
pub(crate) struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        if event == "ping" {
            return Ok(Reply::Ok(payload));
        }
        socket.broadcast("new_msg", payload);
        Ok(Reply::None)
    }
}

/// A channel that only accepts joins.
pub(crate) struct Silent<A = ()>(PhantomData<fn() -> A>);

impl<A: Send + Sync + 'static> Channel for Silent<A> {
    type Assigns = A;
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self(PhantomData).into())
    }
}
