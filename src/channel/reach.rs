//! What a channel knows and reaches beyond its own topic: its socket, and the [`PubSub`].

use tower_channels_transports::Transport;

use super::arrival::Arrival;
use super::callbacks::{Channel, Socket};
use super::handle::Handle;
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

    /// Why the channel was joined: in [`Channel::join`], and for as long as the channel lives. See
    /// [`Channel::pack`].
    pub fn arrival(&self) -> &Arrival {
        self.context().arrival.as_deref().unwrap_or(&Arrival::New)
    }

    /// The topics and sockets of all endpoints that share this one's [`PubSub`]: to broadcast to any
    /// topic, or to disconnect a client.
    pub fn pubsub(&self) -> &PubSub {
        &self.context().pubsub
    }
}
