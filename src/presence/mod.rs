//! Presence: who is on a topic, as phoenix.js' `Presence` expects it.

pub(crate) mod announcer;
mod changes;
pub(crate) mod cluster;
mod config;
mod error;
mod hidden;
mod lingering;
mod pending_diff;
pub(crate) mod store;
pub(crate) mod tracked;
pub(crate) mod tracker;
mod types;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use self::announcer::Announcer;
pub use self::changes::PresenceChanges;
pub use self::config::{Fetched, PresenceConfig};
pub use self::error::PresenceError;
pub use self::tracked::TrackGuard;
pub use self::types::{Meta, MetaUpdate, PresenceDiff, Presences, Present};
use crate::adapter::NodeId;
use crate::topics::Topics;

/// The presence of the endpoints that share a [`PubSub`], and of the other nodes if it has an adapter:
/// which keys are present on which topic. A cheap clone, from [`Endpoint::presence`],
/// [`Socket::presence`] or [`PubSub::presence`].
///
/// A channel [tracks](Self::track) its client under a key, such as the user's id, with a *meta*: a
/// JSON object that describes the presence. The entry lives as long as the channel. It ends when
/// the client leaves, when the channel crashes and when the client disconnects; while the client of
/// a resumable session is away it stays, or leaves after [`PresenceConfig::leave_grace`] and comes
/// back with the client, if that closed its WebSocket itself. Several channels may track the same key: that is one user
/// in several tabs.
///
/// Every subscriber of the topic receives changes as a `presence_diff`, which collects those of
/// [`PresenceConfig::interval`]. [`push_state`](Self::push_state) sends a client the list to which
/// the diffs apply. The phoenix.js class `Presence` keeps a list from the two.
///
/// ```
/// use serde_json::json;
/// use tower_channels::channel::Result;
/// use tower_channels::{Channel, Joined, Payload, Presence, Socket};
///
/// struct Lobby;
///
/// impl Channel for Lobby {
///     type Assigns = String; // the user's name
///     type Info = ();
///
///     async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
///         Ok(Lobby.into())
///     }
///
///     async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
///         Presence::track(socket, socket.assigns(), json!({ "device": "phone" }))?;
///         Presence::push_state(socket);
///         Ok(())
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let endpoint = tower_channels::Endpoint::builder(|_| async { Ok("ann".to_owned()) })
/// #     .channel::<Lobby>("lobby").build();
/// # let mut client = tower_channels::test::connect(&endpoint, &[]).await.unwrap();
/// # client.join("lobby", json!({})).await;
/// # let (event, state) = client.next_push().await;
/// # assert_eq!(event, "presence_state");
/// # let state: serde_json::Value = state.parse().unwrap();
/// # assert_eq!(state["ann"]["metas"][0]["device"], "phone");
/// assert_eq!(endpoint.presence().count("lobby"), 1);
/// # }
/// ```
///
/// [`Endpoint::presence`]: crate::Endpoint::presence
/// [`PubSub`]: crate::PubSub
/// [`PubSub::presence`]: crate::PubSub::presence
/// [`Socket::presence`]: crate::Socket::presence
#[derive(Clone)]
pub struct Presence(pub(crate) Arc<Announcer>);

impl Presence {
    /// With an id of its node, it is shared with the other nodes of a cluster.
    pub(crate) fn new(config: PresenceConfig, topics: Topics, node: Option<NodeId>) -> Self {
        Self(Arc::new(Announcer::new(config, topics, node)))
    }

    /// Lists the presences of a topic, including everything that was tracked on this node before the
    /// call. What is tracked on other nodes is usually listed within 100 ms.
    ///
    /// Cancel safety: has no effect.
    pub async fn list(&self, topic: &str) -> Presences {
        let mut list = self.0.store.list(topic);
        let keys = list.keys().map(Into::into).collect();
        list.add_fetched(&self.0.fetch(topic, keys).await);
        list
    }

    /// Returns the presences of a topic under one key.
    ///
    /// Cancel safety: has no effect.
    pub async fn get_by_key(&self, topic: &str, key: &str) -> Option<Present> {
        let mut list = self.0.store.get_by_key(topic, key);
        if !list.is_empty() {
            list.add_fetched(&self.0.fetch(topic, vec![key.to_owned()]).await);
        }
        list.get(key).cloned()
    }

    /// Counts the keys that are present on a topic, in constant time.
    pub fn count(&self, topic: &str) -> usize {
        self.0.store.count(topic)
    }

    /// Tracks an entry that is not tied to a channel, such as a background task, until the returned
    /// guard is dropped. The meta is any value that serializes to a JSON object.
    ///
    /// # Errors
    /// If the key or the meta is not valid.
    pub fn track_task(
        &self,
        topic: &str,
        key: &str,
        meta: impl Serialize,
    ) -> Result<TrackGuard, PresenceError> {
        TrackGuard::new(&self.0, topic, key, meta)
    }

    /// Checks whether a key can be tracked, such as a name that a user chooses.
    ///
    /// # Errors
    /// [`PresenceError::ReservedKey`] or [`PresenceError::KeyTooLong`].
    pub fn validate_key(key: &str) -> Result<(), PresenceError> {
        types::validate_key(key)
    }

    /// Subscribes to the changes of all topics from now on. They are those that clients receive as
    /// `presence_diff`, at the same time.
    pub fn changes(&self) -> PresenceChanges {
        self.0.changes.subscribe()
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").finish_non_exhaustive()
    }
}
