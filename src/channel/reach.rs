//! What a channel knows and reaches beyond its own topic: its socket, and the [`PubSub`].

use tower_channels_transports::Transport;

use super::arrival::Arrival;
use super::callbacks::{Channel, Socket};
use super::handle::Handle;
use crate::history::{Position, PublishError};
use crate::payload::Payload;
use crate::pubsub::PubSub;
use crate::topics::broadcast::Broadcast;

impl PubSub {
    /// Sends an event to all subscribers of a topic except one channel: to its client if it has joined
    /// the topic, and to the channel if it has subscribed to it. See
    /// [`broadcast`](Self::broadcast).
    pub fn broadcast_from<C: Channel>(
        &self,
        from: &Handle<C>,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
    ) {
        self.disconnect_on(topic, event);
        let broadcast = Broadcast::new(topic.into(), event.into(), payload.into());
        self.send(broadcast, Some(&from.mailbox().inbox()));
    }
}

impl<C: Channel> Socket<C> {
    /// The socket's id, as [`Builder::id`](crate::Builder::id) has derived it.
    pub fn id(&self) -> Option<&str> {
        self.context().info.id().map(|id| &**id)
    }

    /// The transport of the client's connection, or of its last one: in a resumable session it changes
    /// with the connection.
    pub fn transport(&self) -> Transport {
        self.context().info.transport()
    }

    /// Sends an event to all subscribers of the topic, including this client, and returns the message's position once it is
    /// kept in the topic's [history](crate::Builder::history). See [`PubSub::publish`].
    ///
    /// A push that is answered after it has been published is never lost:
    ///
    /// ```
    /// use tower_channels::channel::{Error, Result};
    /// use tower_channels::{Channel, Joined, Payload, Reply, Socket};
    ///
    /// struct Room;
    ///
    /// impl Channel for Room {
    ///     type Assigns = ();
    ///     type Info = ();
    ///
    ///     async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
    ///         Ok(Room.into())
    ///     }
    ///
    ///     async fn handle_in(&mut self, event: &str, msg: Payload, socket: &Socket<Self>) -> Result<Reply> {
    ///         match socket.publish(event, msg).await {
    ///             Ok(_) => Ok(Reply::ack()),
    ///             Err(_) => Err(Error::reason("unavailable")),
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`PubSub::publish`].
    pub async fn publish(
        &self,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<Position, PublishError> {
        self.context().publish(event, payload.into()).await
    }

    /// Why the channel was joined: in [`Channel::join`], and for as long as the channel lives. See
    /// [`Channel::pack`].
    pub fn arrival(&self) -> &Arrival {
        self.context().arrival.get().map_or(&Arrival::New, |arrival| arrival)
    }

    /// The topics and sockets of all endpoints that share this one's [`PubSub`]: to broadcast to any
    /// topic, or to disconnect a client.
    pub fn pubsub(&self) -> &PubSub {
        &self.context().pubsub
    }
}
