//! The presence of channels: it ends with them, and their clients follow it.

use std::sync::Arc;

use serde::Serialize;

use super::callbacks::Channel;
use super::context::ChannelContext;
use super::socket::Socket;
use crate::payload::Payload;
use crate::presence::{MetaUpdate, Owner, Presence, PresenceError, StateRecipient};

impl Presence {
    /// Says that a channel's client is present on the channel's topic, until the channel ends. The
    /// meta is anything that becomes a JSON object.
    ///
    /// # Errors
    /// If this channel tracks the key already or has ended, or if the key or the meta may not be.
    pub fn track<C: Channel>(
        socket: &Socket<C>,
        key: &str,
        meta: impl Serialize,
    ) -> Result<(), PresenceError> {
        let context = socket.context();
        let meta = serde_json::to_value(meta).map_err(|_| PresenceError::NotAnObject)?;
        let meta = context.presence.0.check(key, meta)?;
        context.while_alive(|owner| context.presence.0.track(owner, &context.topic, key, &meta))
    }

    /// Changes what a channel said of its client: to another JSON object, or with a function of the
    /// old one. If several tasks do so at the same time, the last one counts.
    ///
    /// ```
    /// # use serde_json::json;
    /// # use tower_channels::{Channel, Presence, PresenceError, Socket};
    /// # fn example<C: Channel>(socket: &Socket<C>) -> Result<(), PresenceError> {
    /// Presence::update(socket, "ann", json!({ "device": "phone" }))?;
    /// Presence::update(socket, "ann", |meta: &mut serde_json::Map<_, _>| {
    ///     meta.insert("typing".into(), true.into());
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If this channel does not track the key or has ended, or if the new meta may not be. Then the
    /// old one stays.
    pub fn update<C: Channel>(
        socket: &Socket<C>,
        key: &str,
        update: impl MetaUpdate,
    ) -> Result<(), PresenceError> {
        let context = socket.context();
        let owner = context.ownership.known_owner().ok_or(PresenceError::NotTracked)?;
        let meta = context.presence.0.updated(owner, &context.topic, key, update)?;
        context.while_alive(|owner| context.presence.0.update(owner, &context.topic, key, &meta))
    }

    /// Takes back what a channel said of its client. Without effect if it said nothing.
    pub fn untrack<C: Channel>(socket: &Socket<C>, key: &str) {
        let context = socket.context();
        if let Some(owner) = context.ownership.known_owner() {
            context.presence.0.untrack(owner, &context.topic, key);
        }
    }

    /// Sends a client the list of its topic, as `presence_state`, with the next announcement. It is
    /// sent again whenever the client has returned to a session that was kept: the diffs that it
    /// missed meanwhile are not.
    pub fn push_state<C: Channel>(socket: &Socket<C>) {
        let context = socket.context();
        context.ownership.follow();
        context.client.outbox.discard_volatile();
        context
            .presence
            .0
            .request_state(&context.topic, Arc::clone(context) as Arc<dyn StateRecipient>);
    }
}

impl<A> ChannelContext<A> {
    /// Does it as the owner that this channel is, unless it has ended: no entry may outlive it.
    fn while_alive(
        &self,
        work: impl FnOnce(Owner) -> Result<(), PresenceError>,
    ) -> Result<(), PresenceError> {
        let mut done = Err(PresenceError::Ended);
        self.mailbox.unless_over(|| done = work(self.ownership.owner(&self.presence.0)));
        done
    }

    /// The channel has ended.
    pub(crate) fn untrack_all(&self) {
        if let Some(owner) = self.ownership.known_owner() {
            self.presence.0.leave(owner, &self.topic);
        }
    }
}

impl<A: Send + Sync + 'static> ChannelContext<A> {
    /// The client has joined again, on a connection of which it knows nothing yet.
    pub(crate) fn refresh_presence(self: &Arc<Self>) {
        if self.ownership.follows() {
            self.presence.0.request_state(&self.topic, Arc::clone(self) as Arc<dyn StateRecipient>);
        }
    }
}

impl<A: Send + Sync> StateRecipient for ChannelContext<A> {
    fn receive_state(&self, state: &Payload) {
        self.push_volatile("presence_state", state);
    }
}
