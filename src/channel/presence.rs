//! The presence of channels, which ends with them and is sent to their clients.

use std::sync::Arc;

use serde::Serialize;
use smol_str::SmolStr;

use super::callbacks::{Channel, Socket};
use super::context::{Caller, ChannelContext};
use crate::presence::store::StateRecipient;
use crate::presence::tracker::Owner;
use crate::presence::{MetaUpdate, Presence, PresenceError};
use crate::topics::broadcast::Broadcast;

impl Presence {
    /// Tracks a channel's client on the channel's topic until the channel ends. The meta is any
    /// value that serializes to a JSON object.
    ///
    /// # Errors
    /// If this channel already tracks the key or has ended, or if the key or the meta is not valid.
    pub fn track<C: Channel>(
        socket: &Socket<C>,
        key: &str,
        meta: impl Serialize,
    ) -> Result<(), PresenceError> {
        let (context, store) = (socket.context(), &socket.presence().0.store);
        let meta = store.encode(key, meta)?;
        context.change_presence(socket.caller(), |owner| {
            store.track(owner, &context.topic, &key.into(), &meta)
        })
    }

    /// Updates the meta of a channel's client: to another JSON object, or with a function of the
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
    /// If this channel does not track the key or has ended, or if the new meta is not valid. Then
    /// the old one stays.
    pub fn update<C: Channel>(
        socket: &Socket<C>,
        key: &str,
        update: impl MetaUpdate,
    ) -> Result<(), PresenceError> {
        let (context, store) = (socket.context(), &socket.presence().0.store);
        let (owner, key) = (context.ownership.get(), SmolStr::new(key));
        let owner = owner.ok_or(PresenceError::NotTracked)?;
        let meta = store.encode_update(owner, &context.topic, &key, update)?;
        context.change_presence(socket.caller(), |owner| {
            store.update(owner, &context.topic, &key, &meta)
        })
    }

    /// Ends the presence of a channel's client under a key. Does nothing if the channel does not
    /// track it.
    pub fn untrack<C: Channel>(socket: &Socket<C>, key: &str) {
        let context = socket.context();
        let Some(owner) = context.ownership.get() else { return };
        let announcer = &context.pubsub.presence().0;
        if announcer.store.untrack(owner, &context.topic, &key.into()) {
            announcer.schedule_diff(&context.topic);
        }
    }

    /// Sends a client the list of its topic, as `presence_state`, before the next diff.
    ///
    /// In a resumable session it is sent again whenever the client has returned, in place of the
    /// diffs that it has missed.
    pub fn push_state<C: Channel>(socket: &Socket<C>) {
        let context = socket.context();
        context.ownership.follow();
        context.client.outbox.discard_volatile();
        let recipient = Arc::clone(context) as Arc<dyn StateRecipient>;
        context.pubsub.presence().0.request_state(&context.topic, recipient);
    }
}

impl<A> ChannelContext<A> {
    /// Changes the entries of this channel, unless it has ended: no entry may outlive it.
    fn change_presence(
        &self,
        caller: Caller,
        change: impl FnOnce(Owner) -> Result<(), PresenceError>,
    ) -> Result<(), PresenceError> {
        let change = || change(self.ownership.get_or_create(&self.pubsub.presence().0));
        match caller {
            Caller::ChannelTask => change(),
            Caller::OtherTask => self.mailbox.while_alive(change).ok_or(PresenceError::Ended)?,
        }?;
        self.pubsub.presence().0.schedule_diff(&self.topic);
        Ok(())
    }

    /// Removes the entries of a channel that has ended.
    pub(super) fn untrack_all(&self) {
        // Nothing is hidden after this.
        self.ownership.end_absence();
        if let Some(owner) = self.ownership.get() {
            self.pubsub.presence().0.untrack_all(owner, &self.topic);
        }
    }

    /// Lets the entries of a channel stay that goes on on another node, until it is settled there under this ticket.
    pub(super) fn linger(&self, ticket: u64) {
        self.ownership.end_absence();
        if let Some(owner) = self.ownership.get() {
            self.pubsub.presence().0.linger(ticket, owner, &self.topic);
        }
    }
}

impl<A: Send + Sync + 'static> ChannelContext<A> {
    /// The client has closed its connection itself, and may have gone for good: its entries leave
    /// after a grace period, unless it returns before.
    pub(super) fn begin_absence(self: &Arc<Self>) {
        let owner = self.ownership.get_or_create(&self.pubsub.presence().0);
        let (absence, grace) =
            (self.ownership.begin_absence(), self.pubsub.presence().0.leave_grace());
        let context = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            if let Some(Self { pubsub, topic, ownership, .. }) = context.upgrade().as_deref() {
                pubsub.presence().0.hide_all(owner, topic, || ownership.is_absent(absence));
            }
        });
    }

    /// The client has returned: entries that have left come back with the same metas.
    pub(super) fn end_absence(&self) {
        self.ownership.end_absence();
        if let Some(owner) = self.ownership.get() {
            self.pubsub.presence().0.show_all(owner, &self.topic);
        }
    }

    /// Sends the state again to a client that has requested it before, and may have missed a diff.
    pub(super) fn refresh_presence(self: &Arc<Self>) {
        if self.ownership.follows() {
            let recipient = Arc::clone(self) as Arc<dyn StateRecipient>;
            self.pubsub.presence().0.request_state(&self.topic, recipient);
        }
    }
}

impl<A: Send + Sync> StateRecipient for ChannelContext<A> {
    fn receive_state(&self, state: &Broadcast) {
        let join_ref = self.client.wire_join_ref(&self.join_ref);
        self.send(Caller::OtherTask, state.encode_push(self.client.version, join_ref));
    }
}
