//! Presence: who is here, as phoenix.js' `Presence` expects it.

mod announcer;
mod changes;
mod config;
mod list;
mod meta;
mod ownership;
mod pending_diff;
mod store;
mod track_guard;
mod tracker;

use std::fmt;
use std::sync::Arc;

pub use self::changes::{Lagged, PresenceChanges};
pub use self::config::{Fetched, PresenceConfig};
pub use self::list::{PresenceDiff, Presences, Present};
pub use self::meta::{Meta, MetaUpdate};
pub(crate) use self::ownership::Ownership;
pub(crate) use self::store::{PresenceStore, StateRecipient};
pub use self::track_guard::TrackGuard;
pub(crate) use self::tracker::Owner;
#[doc(hidden)]
pub use self::tracker::model;

/// Who is present on which topic. A cheap clone, from [`Endpoint::presence`] or [`Socket::presence`].
///
/// A channel says that its client is there with [`track`](Self::track), under a key such as the
/// user's id, with a *meta*: a JSON object that says more. The entry lives as long as the channel: it
/// goes when the client leaves, when the channel crashes, when the client disconnects; a session that
/// is kept while its client is away keeps it. One key may be tracked by many channels: that is one
/// user in several tabs.
///
/// Everyone on the topic receives a `presence_diff` with who came and went, a short time after it
/// happened and together with all else that happened in that time
/// ([`PresenceConfig::interval`]). [`push_state`](Self::push_state) sends a client the whole, before
/// the diffs that build on it. Responder side, phoenix.js' `Presence` makes a list of the two.
///
/// ```
/// use serde_json::json;
/// use tower_channels::channel::Result;
/// use tower_channels::{Channel, Joined, Payload, Presence, JoinError, Socket};
///
/// struct Lobby;
///
/// impl Channel for Lobby {
///     type Assigns = String; // the user's name
///     type Info = ();
///
///     async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>, JoinError> {
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
/// [`Socket::presence`]: crate::Socket::presence
#[derive(Clone)]
pub struct Presence(pub(crate) Arc<PresenceStore>);

impl Presence {
    pub(crate) fn new(store: PresenceStore) -> Self {
        Self(Arc::new(store))
    }

    /// Who is present on a topic: what was tracked before the call is in it.
    pub async fn list(&self, topic: &str) -> Presences {
        let mut list = self.0.list(topic);
        let keys = list.keys().map(Into::into).collect();
        list.fetched(&self.0.fetch(topic, keys).await);
        list
    }

    /// How one key is present on a topic.
    pub async fn get_by_key(&self, topic: &str, key: &str) -> Option<Present> {
        let mut list = self.0.get_by_key(topic, key);
        if !list.is_empty() {
            list.fetched(&self.0.fetch(topic, vec![key.to_owned()]).await);
        }
        list.get(key).cloned()
    }

    /// How many keys are present on a topic. It costs the same for few and for many.
    pub fn count(&self, topic: &str) -> usize {
        self.0.count(topic)
    }

    /// Tracks what is no channel, such as a task: until the value that is returned is dropped.
    ///
    /// # Errors
    /// If the key or the meta may not be.
    pub fn track_task(
        &self,
        topic: &str,
        key: &str,
        meta: impl serde::Serialize,
    ) -> Result<TrackGuard, PresenceError> {
        TrackGuard::new(self, topic, key, meta)
    }

    /// Who comes and goes from now on, on all topics, for the server's own code. It is what clients
    /// receive as `presence_diff`, at the same time.
    pub fn changes(&self) -> PresenceChanges {
        self.0.changes()
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").finish_non_exhaustive()
    }
}

/// Why presence was not tracked or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceError {
    /// This channel tracks the key already: [`Presence::update`] changes its meta.
    AlreadyTracked,
    /// This channel does not track the key.
    NotTracked,
    /// The channel has ended.
    Ended,
    /// The key is the name of a property that every JavaScript object has.
    ReservedKey,
    /// The key has more than 255 bytes.
    KeyTooLong,
    /// The meta is no JSON object.
    NotAnObject,
    /// The meta has more bytes than [`PresenceConfig::max_meta`].
    MetaTooLong,
}

impl fmt::Display for PresenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadyTracked => "the key is tracked already",
            Self::NotTracked => "the key is not tracked",
            Self::Ended => "the channel has ended",
            Self::ReservedKey => "the key is a name that JavaScript objects reserve",
            Self::KeyTooLong => "the key has more than 255 bytes",
            Self::NotAnObject => "the meta is no JSON object",
            Self::MetaTooLong => "the meta has too many bytes",
        })
    }
}

impl std::error::Error for PresenceError {}
