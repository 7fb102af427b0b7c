//! [`Channel`], the trait that an application implements, and the [`Socket`] that its callbacks
//! receive. They name each other, so they share a file.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use super::context::{Caller, ChannelContext};
use super::error::{Error, Result};
use super::reply_ref::ReplyRef;
use super::result::{Joined, Reason};
use super::telling::Untold;
use crate::message::Ref;
use crate::payload::Payload;
use crate::presence::Presence;
use crate::reply::Reply;

/// One joined topic of one client: its state and its behavior.
///
/// [`join`](Channel::join) creates a value, which lives in a task of its own until the channel
/// ends. So a slow callback delays this channel and nothing else. A callback that cannot do what it was
/// asked to returns an [`Error`]: an error reply, a stop or a crash. A crash or a panic ends this channel
/// alone: the client receives `phx_error` and joins again. (This needs the default `panic = "unwind"`.)
/// Every end drops the value: put unconditional cleanup in `Drop`. A panic there is logged and changes
/// nothing.
///
/// Callbacks run one at a time, in the order of their causes. When the client joins the same topic
/// again, the running callback is cancelled at its next await, as Phoenix kills the old process,
/// and the new join begins once the old value is dropped. A disconnect cancels nothing: what the
/// client sent before is handled, and then the channel terminates.
///
/// ```
/// use tower_channels::channel::{Error, OrReply, Result};
/// use tower_channels::{Channel, Joined, Payload, Reply, Socket};
///
/// struct Counter(u64);
///
/// impl Channel for Counter {
///     type Assigns = ();
///     type Info = ();
///
///     async fn join(_: &str, start: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
///         Ok(Counter(start.parse()?).into())
///     }
///
///     async fn handle_in(&mut self, event: &str, by: Payload, _: &Socket<Self>) -> Result<Reply> {
///         match event {
///             "add" => {
///                 let by: u64 = by.parse()?;
///                 self.0 = self.0.checked_add(by).or_reply("too much")?;
///                 Ok(Reply::ok(Payload::json(&self.0)?))
///             }
///             _ => Err(Error::unmatched(event)),
///         }
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # use serde_json::json;
/// # let endpoint = tower_channels::Endpoint::builder(|_| async { Ok(()) }).channel::<Counter>("counter").build();
/// # let mut client = tower_channels::test::connect(&endpoint, &[]).await.unwrap();
/// # assert_eq!(client.join("counter", json!(40)).await, Reply::ack());
/// # assert_eq!(client.push("counter", "add", json!(2)).await, Reply::ok(json!(42)));
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a channel",
    note = "implement `tower_channels::Channel` for it; its `Assigns` must be what `connect` returns"
)]
pub trait Channel: Sized + Send + 'static {
    /// The value that `connect` returned for the client, shared by all channels of its socket.
    type Assigns: Send + Sync + 'static;

    /// The messages that other tasks send to this channel through its [`Handle`](crate::Handle).
    type Info: Send + 'static;

    /// Events whose broadcasts are passed to [`handle_out`](Channel::handle_out) instead of being
    /// sent directly to the client.
    const INTERCEPT: &'static [&'static str] = &[];

    /// The level at which joins are logged, with their result and how long they took; `None` for not at
    /// all. As `log_join` in Phoenix.
    const LOG_JOIN: Option<tracing::Level> = Some(tracing::Level::INFO);

    /// The level at which pushes are logged once they are handled, with the event and how long that took;
    /// `None` for not at all. Payloads are never logged. As `log_handle_in` in Phoenix.
    const LOG_HANDLE_IN: Option<tracing::Level> = Some(tracing::Level::DEBUG);

    /// Decides whether the client may join the topic, and creates the channel's state.
    ///
    /// The topic's previous channel of the same client, if there is one, ends first. What the
    /// client sends to the topic meanwhile waits; its other channels and its heartbeats do not.
    ///
    /// # Errors
    /// An [`Error`] refuses the client, with the response that the error has. A crash, or a panic,
    /// replies `{"reason":"join crashed"}`. After [`Builder::join_timeout`], which includes the wait for
    /// the previous channel, `join` is cancelled and the reply is `{"reason":"join timed out"}`.
    ///
    /// [`Builder::join_timeout`]: crate::Builder::join_timeout
    fn join(
        topic: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<Joined<Self>>> + Send;

    /// Called after the join was replied to and before anything else is handled, but for what the client has missed of a
    /// topic with a [history](crate::Builder::history).
    fn after_join(&mut self, socket: &Socket<Self>) -> impl Future<Output = Result<()>> + Send {
        let _ = socket;
        async { Ok(()) }
    }

    /// Called with the payload of the join when the client joins again in a resumable session in
    /// which this channel is still alive. Returns the response to the join, or `None` for the response
    /// to the first join.
    ///
    /// No message was lost: right after the reply the client receives, in order, what it has
    /// missed. So there is no history to send here; a client whose session has ended comes through
    /// [`join`](Channel::join). But the response to the first join may not have reached the client: a response that takes its
    /// place has to contain what the client needs of it. It may be called several times, also without a disconnect before.
    ///
    /// This is the place to authorize again. `join` has checked the payload of the first join alone;
    /// since then a permission may have been withdrawn, and the payload of this join may be another
    /// one: pages join again with new parameters, such as a fresh token.
    ///
    /// # Errors
    /// An [`Error`] refuses the client as in [`join`](Channel::join), and ends the channel: the client
    /// receives nothing that it has missed, and its next join runs [`join`](Channel::join).
    ///
    /// # Examples
    /// ```
    /// # use std::collections::HashSet;
    /// # use std::sync::{Arc, RwLock};
    /// use tower_channels::channel::{Error, Result};
    /// use tower_channels::{Channel, Joined, Payload, Socket};
    ///
    /// /// The tokens that give access.
    /// #[derive(Clone, Default)]
    /// struct Tokens(Arc<RwLock<HashSet<String>>>);
    ///
    /// impl Tokens {
    ///     fn check(&self, payload: &Payload) -> Result<()> {
    ///         let token = payload.parse::<String>().unwrap_or_default();
    ///         let is_valid = self.0.read().unwrap().contains(&token);
    ///         if is_valid { Ok(()) } else { Err(Error::reason("unauthorized")) }
    ///     }
    /// }
    ///
    /// struct Room;
    ///
    /// impl Channel for Room {
    ///     type Assigns = Tokens;
    ///     type Info = ();
    ///
    ///     async fn join(_: &str, token: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
    ///         socket.assigns().check(&token)?;
    ///         Ok(Room.into())
    ///     }
    ///
    ///     async fn resume(&mut self, token: Payload, socket: &Socket<Self>) -> Result<Option<Payload>> {
    ///         socket.assigns().check(&token)?;
    ///         Ok(None)
    ///     }
    /// }
    /// # use serde_json::json;
    /// # use tower_channels::{Endpoint, Reply};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// # let tokens = Tokens::default();
    /// # let assigns = tokens.clone();
    /// # let endpoint = Endpoint::builder(move |_| { let assigns = assigns.clone(); async move { Ok(assigns) } })
    /// #     .id(|_| Some("ann".into())).channel::<Room>("room").build();
    /// # let session = [("session", "0123456789abcdefghijkl")];
    /// # let mut ann = tower_channels::test::connect(&endpoint, &session).await.unwrap();
    /// # tokens.0.write().unwrap().insert("one".into());
    /// # assert_eq!(ann.join("room", json!("one")).await, Reply::ack());
    /// # tokens.0.write().unwrap().insert("two".into());
    /// # ann.reconnect().await.unwrap();
    /// # assert_eq!(ann.join("room", json!("two")).await, Reply::ack());
    /// # tokens.0.write().unwrap().clear();
    /// # endpoint.broadcast("room", "secret", json!({}));
    /// # ann.reconnect().await.unwrap();
    /// # assert_eq!(ann.join("room", json!("two")).await, Reply::reason("unauthorized"));
    /// # assert_eq!(ann.join("room", json!("two")).await, Reply::reason("unauthorized"));
    /// # assert_eq!(ann.discard(), 0);
    /// # }
    /// ```
    fn resume(
        &mut self,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<Option<Payload>>> + Send {
        let _ = (payload, socket);
        async { Ok(None) }
    }

    /// Handles a push from the client and returns the reply. The default is [`Error::unmatched`].
    ///
    /// # Errors
    /// An error reply, after which the channel lives, a stop or a crash: see [`Error`].
    fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<Reply>> + Send {
        let _ = (payload, socket);
        let error = Error::unmatched(event);
        async { Err(error) }
    }

    /// Handles a message from [`Handle::send`](crate::Handle::send), or of a timer; see [`Socket::send_after`].
    fn handle_info(
        &mut self,
        info: Self::Info,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (info, socket);
        async { Ok(()) }
    }

    /// Handles a broadcast of an event in [`INTERCEPT`](Channel::INTERCEPT): push it as it is,
    /// changed, or not at all. The default pushes it as it is.
    fn handle_out(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<()>> + Send {
        socket.push(event, payload);
        async { Ok(()) }
    }

    /// Handles a broadcast of another topic that this channel has subscribed to with
    /// [`Socket::subscribe`]. The default ignores it.
    ///
    /// Broadcasts come in the order in which they were sent to a topic, and between the other messages
    /// of the channel as they have arrived. They come while the client of a resumable session is away,
    /// too: what is pushed then waits for it.
    fn handle_broadcast(
        &mut self,
        topic: &str,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (topic, event, payload, socket);
        async { Ok(()) }
    }

    /// Called when the session of the client moves to another node, after everything that the client has sent was
    /// handled. What it returns, at most 64 KiB, and 256 KiB for all channels of the client, goes along: there
    /// [`join`](Channel::join) finds it in [`Socket::arrival`]. The default packs nothing.
    ///
    /// Messages that the client has not received yet go along in any case, and follow the reply to that join. What does
    /// not: the value of the channel, its timers, its subscriptions to other topics, its
    /// [`Handle`](crate::Handle)s, and replies that are still being worked on. `join` runs again, with the payload that
    /// the client joins with, and so decides again whether it may.
    ///
    /// `pack` has a second, together with what waits for the channel. A channel that takes longer, or panics, is lost:
    /// its client joins anew, as after a crash.
    ///
    /// ```
    /// use tower_channels::channel::Result;
    /// use tower_channels::{Arrival, Channel, Joined, Payload, Reply, Socket};
    ///
    /// struct Counter(u64);
    ///
    /// impl Channel for Counter {
    ///     type Assigns = ();
    ///     type Info = ();
    ///
    ///     async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
    ///         let count = match socket.arrival() {
    ///             Arrival::Moved { packed: Some(packed), .. } => packed.parse()?,
    ///             _ => 0,
    ///         };
    ///         Ok(Counter(count).into())
    ///     }
    ///
    ///     async fn handle_in(&mut self, _: &str, _: Payload, _: &Socket<Self>) -> Result<Reply> {
    ///         self.0 += 1;
    ///         Ok(Reply::ok(Payload::json(&self.0)?))
    ///     }
    ///
    ///     async fn pack(&mut self, _: &Socket<Self>) -> Option<Payload> {
    ///         Payload::json(&self.0).ok()
    ///     }
    /// }
    /// ```
    fn pack(&mut self, socket: &Socket<Self>) -> impl Future<Output = Option<Payload>> + Send {
        let _ = socket;
        async { None }
    }

    /// Called last when the channel ends in order: not after a crash, and not when another join of
    /// the same topic replaces the channel, which also cancels it at its next await. Put
    /// unconditional cleanup in `Drop`. The client may be gone already.
    fn terminate(
        &mut self,
        reason: Reason,
        socket: &Socket<Self>,
    ) -> impl Future<Output = ()> + Send {
        let _ = (reason, socket);
        async {}
    }
}

/// A channel's connection to its client, its topic and the rest of the endpoint.
///
/// A cheap clone. Other tasks may hold one: it does not keep the channel alive, and sends nothing to
/// the client once the channel has ended.
pub struct Socket<C: Channel> {
    context: Arc<ChannelContext<C::Assigns>>,
    /// The ref of the push that is being handled.
    reference: Option<Ref>,
    /// The position of the broadcast that is being handled, until a push has told it to the client.
    pub(super) untold: Untold,
    /// The channel's task lends this socket to its callbacks, and ends the channel only after they
    /// have given it back. A clone may go anywhere.
    caller: Caller,
}

impl<C: Channel> Socket<C> {
    /// Creates the socket of the channel's own task.
    pub(super) fn new(context: Arc<ChannelContext<C::Assigns>>) -> Self {
        let caller = Caller::ChannelTask;
        Self { context, reference: None, untold: Untold::default(), caller }
    }

    pub(super) fn context(&self) -> &Arc<ChannelContext<C::Assigns>> {
        &self.context
    }

    pub(super) fn caller(&self) -> Caller {
        self.caller
    }

    /// Sets the push that [`reply_ref`](Self::reply_ref) refers to.
    pub(super) fn set_reference(&mut self, reference: Option<Ref>) {
        self.reference = reference;
    }

    /// The value that `connect` returned for the client.
    pub fn assigns(&self) -> &C::Assigns {
        &self.context.assigns
    }

    /// The joined topic.
    pub fn topic(&self) -> &str {
        &self.context.topic
    }

    /// Sends an event to this client. Does nothing once the channel has ended.
    ///
    /// Use [`Channel::after_join`] to push something with the join: in [`Channel::join`] it would
    /// precede the reply, and clients ignore messages of channels that they have not joined yet.
    pub fn push(&self, event: &str, payload: impl Into<Payload>) {
        self.context.push(self.caller, self.untold.take(), event, &payload.into());
    }

    /// Sends an event to all subscribers of the topic, including this client once it has joined.
    pub fn broadcast(&self, event: &str, payload: impl Into<Payload>) {
        self.context.broadcast(event, payload.into(), false);
    }

    /// Sends an event to all subscribers of the topic except this client.
    pub fn broadcast_from(&self, event: &str, payload: impl Into<Payload>) {
        self.context.broadcast(event, payload.into(), true);
    }

    /// Returns a handle to reply to the current push later, from any task. The callback then
    /// returns [`Reply::None`].
    ///
    /// # Panics
    /// Outside of [`Channel::handle_in`], where there is no push to reply to.
    pub fn reply_ref(&self) -> ReplyRef {
        let reference = self.reference.clone();
        let reference = reference.expect("there is no push to reply to outside of `handle_in`");
        ReplyRef::new(&self.context, reference)
    }

    /// The presence on all topics.
    pub fn presence(&self) -> &Presence {
        self.context.pubsub.presence()
    }
}

impl<C: Channel> Clone for Socket<C> {
    fn clone(&self) -> Self {
        let (context, reference) = (Arc::clone(&self.context), self.reference.clone());
        Self { context, reference, untold: Untold::default(), caller: Caller::OtherTask }
    }
}

impl<C: Channel> fmt::Debug for Socket<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("topic", &self.context.topic).finish_non_exhaustive()
    }
}
