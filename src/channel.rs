//! What an application writes: [`Channel`], and what it holds while it runs.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use smol_str::SmolStr;

use crate::client::Client;
use crate::mailbox::{Address, Mail, Undelivered};
use crate::message::{Name, Ref};
use crate::payload::Payload;
use crate::presence::{Presence, Tracking};
use crate::pubsub::{Broadcast, PubSub, Subscription};
use crate::reply::{Joined, Reason, Refused, Reply, Result, Stop};
use crate::serializer::Outgoing;

/// One joined topic of one client: its state, and what it does about what happens.
///
/// A value is made by [`join`](Channel::join) and lives in a task of its own until the channel ends,
/// so a slow handler delays this channel and nothing else. A panic or an error in it ends this
/// channel alone: the client receives `phx_error` and joins again. (This needs the default
/// `panic = "unwind"`.) Dropping the value is the one end that always happens.
///
/// Callbacks run one at a time, in the order in which their causes came. When the client joins the
/// same topic again, the running callback is cancelled at its next await, as Phoenix kills the old
/// process, and the new join begins once the old value is dropped. A client that merely goes away
/// cancels nothing: what it sent before is handled, and then the channel terminates.
///
/// What a callback tells clients is on its way when it returns or has to wait at an await. One that
/// blocks its thread, as `tokio::task::block_in_place` allows, may hold back until then what it said
/// before: `tokio::task::yield_now().await` lets that go first, and what is said from other threads
/// is not held back at all.
///
/// ```
/// use tower_channels::{Channel, Joined, Payload, Refused, Reply, Result, Socket, Stop};
///
/// struct Counter(u64);
///
/// impl Channel for Counter {
///     type Assigns = ();
///     type Info = ();
///
///     async fn join(_: &str, start: Payload, _: &Socket<Self>) -> Result<Joined<Self>, Refused> {
///         Ok(Counter(start.parse()?).into())
///     }
///
///     async fn handle_in(&mut self, event: &str, by: Payload, _: &Socket<Self>) -> Result<Reply> {
///         match event {
///             "add" => {
///                 self.0 += by.parse::<u64>()?;
///                 Ok(Reply::ok(Payload::json(&self.0)?))
///             }
///             _ => Err(Stop::unmatched(event)),
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
    /// What `connect` learned of the client; every channel of its socket shares it.
    type Assigns: Send + Sync + 'static;

    /// What other tasks send to this channel through its [`Handle`].
    type Info: Send + 'static;

    /// Events whose broadcasts pass through [`handle_out`](Channel::handle_out) instead of going
    /// straight to the client.
    const INTERCEPT: &'static [&'static str] = &[];

    /// Decides whether the client may join, and makes the channel's state.
    ///
    /// A [`Refused`] answers the join with an error. Any other error, or a panic, answers
    /// `{"reason":"join crashed"}`. One that takes longer than the endpoint's join timeout is
    /// cancelled and answered `{"reason":"join timed out"}`. What the client sends meanwhile waits;
    /// other channels and heartbeats do not.
    fn join(
        topic: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<Joined<Self>, Refused>> + Send;

    /// Runs right after the join was answered and before anything else is handled.
    fn after_join(&mut self, socket: &Socket<Self>) -> impl Future<Output = Result<()>> + Send {
        let _ = socket;
        async { Ok(()) }
    }

    /// Answers the client's join when it has returned to a session that was kept, and this channel is
    /// alive: `None` for what the first join answered.
    ///
    /// Nothing was lost: right after the answer the client receives what it missed, in order. So there
    /// is no history to send here; a client whose session could not be kept comes through
    /// [`join`](Channel::join), which does so. It is the place to check again what may have changed
    /// meanwhile, as a permission: a [`Refused`] answers with an error and ends the channel. It may run
    /// several times, also without the client having been away.
    fn resume(
        &mut self,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<Option<Payload>, Refused>> + Send {
        let _ = (payload, socket);
        async { Ok(None) }
    }

    /// Handles a push from the client.
    fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<Reply>> + Send {
        let _ = (payload, socket);
        let stop = Stop::unmatched(event);
        async { Err(stop) }
    }

    /// Handles what [`Handle::send`] sent.
    fn handle_info(
        &mut self,
        info: Self::Info,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (info, socket);
        async { Ok(()) }
    }

    /// Handles a broadcast of one of the events in [`INTERCEPT`](Channel::INTERCEPT): push it on,
    /// changed, or not at all. By default it is pushed as it is.
    fn handle_out(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<()>> + Send {
        socket.push(event, payload);
        async { Ok(()) }
    }

    /// Runs last, when the channel ends in order: not after a crash, nor when another join of the
    /// same topic took its place, which also cancels it at its next await. So what must happen at
    /// every end belongs into `Drop`. The client may be gone already.
    fn terminate(
        &mut self,
        reason: Reason,
        socket: &Socket<Self>,
    ) -> impl Future<Output = ()> + Send {
        let _ = (reason, socket);
        async {}
    }
}

/// A channel's way to its client, its topic and the rest of the world. A cheap clone, which other
/// tasks may hold: it does not keep the channel alive.
pub struct Socket<C: Channel> {
    link: Arc<Link<C::Assigns>>,
    /// The ref of the push that is being handled.
    reference: Option<Ref>,
}

/// What is known of a channel outside its own state.
pub(crate) struct Link<A> {
    pub(crate) assigns: Arc<A>,
    pub(crate) topic: SmolStr,
    /// What the client named its join, for pushes and replies; never null unless its ref was too.
    pub(crate) join_ref: Ref,
    /// The same as it was sent, which may be null: what the end of the channel carries.
    pub(crate) sent_join_ref: Ref,
    pub(crate) client: Client,
    pub(crate) pubsub: PubSub,
    pub(crate) presence: Presence,
    pub(crate) tracking: Tracking,
    pub(crate) mailbox: Address,
    /// While the channel is joined.
    pub(crate) subscription: Mutex<Option<Subscription>>,
    /// Whether the subscription rests, or did until lately.
    pub(crate) rests: AtomicBool,
}

impl<C: Channel> Socket<C> {
    pub(crate) fn new(link: Arc<Link<C::Assigns>>) -> Self {
        Self { link, reference: None }
    }

    /// What the channel's own task needs of it.
    pub(crate) fn link(&self) -> &Arc<Link<C::Assigns>> {
        &self.link
    }

    /// Sets what [`reply_ref`](Self::reply_ref) refers to.
    pub(crate) fn set_reference(&mut self, reference: Option<Ref>) {
        self.reference = reference;
    }

    /// What `connect` learned of the client.
    pub fn assigns(&self) -> &C::Assigns {
        &self.link.assigns
    }

    /// The topic that was joined.
    pub fn topic(&self) -> &str {
        &self.link.topic
    }

    /// Sends an event to this client alone. After the channel has ended it does nothing.
    ///
    /// In [`Channel::join`] it would come before the join's answer, when the client does not know of
    /// the channel yet: that is what [`Channel::after_join`] is for.
    pub fn push(&self, event: &str, payload: impl Into<Payload>) {
        self.link.push(event, &payload.into());
    }

    /// Sends an event to everyone on the topic, this client included once it has joined.
    pub fn broadcast(&self, event: &str, payload: impl Into<Payload>) {
        self.link.broadcast(event, payload.into(), None);
    }

    /// Sends an event to everyone on the topic but this client.
    pub fn broadcast_from(&self, event: &str, payload: impl Into<Payload>) {
        self.link.broadcast(event, payload.into(), Some(&self.link.mailbox));
    }

    /// A way to answer the push that is being handled later, from any task; the handler then
    /// returns [`Reply::None`].
    ///
    /// # Panics
    /// When no push is being handled, as in [`Channel::handle_info`]: there is nothing to answer.
    pub fn reply_ref(&self) -> ReplyRef {
        let reference = self.reference.clone();
        let reference = reference.expect("reply_ref is for handle_in: there is no push to answer");
        ReplyRef { link: Arc::clone(&self.link) as Arc<dyn Answer>, reference }
    }

    /// Who is present on which topic of the endpoint.
    pub fn presence(&self) -> &Presence {
        &self.link.presence
    }

    /// A way for other tasks to send this channel an [`Info`](Channel::Info).
    pub fn handle(&self) -> Handle<C> {
        Handle { mailbox: self.link.mailbox.clone(), info: PhantomData }
    }
}

impl<A> Link<A> {
    /// Subscribes to the topic, or ends the subscription.
    pub(crate) fn subscribe(&self, subscription: Option<Subscription>) {
        let mut current = self.subscription.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, subscription);
        drop(current);
        drop(old);
    }

    /// The client is away: what is broadcast waits at the topic.
    pub(crate) fn rest(&self) {
        let subscription = self.subscription.lock().unwrap_or_else(PoisonError::into_inner);
        // The flag first: whoever sees the rest must see it.
        self.rests.store(true, Ordering::Release);
        let follows = self.tracking.follows();
        let rests = subscription.as_ref().is_some_and(|subscription| subscription.rest(follows));
        self.rests.store(rests, Ordering::Release);
    }

    /// What was broadcast while the client was away comes before what is said to it now.
    pub(crate) fn wake(&self) {
        if self.rests.load(Ordering::Acquire) {
            let subscription = self.subscription.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(subscription) = &*subscription {
                subscription.wake();
            }
            self.rests.store(false, Ordering::Release);
        }
    }

    fn push(&self, event: &str, payload: &Payload) {
        self.say(event, payload, Client::send);
    }

    /// Sends an event that is worthless once the connection is gone, to a channel that says it anew.
    pub(crate) fn push_transient(&self, event: &str, payload: &Payload) {
        self.say(event, payload, Client::send_transient);
    }

    fn say(&self, event: &str, payload: &Payload, send: fn(&Client, &Outgoing<'_>)) {
        self.wake();
        let Self { topic, .. } = self;
        let join_ref = self.client.spoken(&self.join_ref);
        let push = Outgoing::Push { join_ref, topic, event, payload };
        self.mailbox.unless_over(|| send(&self.client, &push));
    }

    fn broadcast(&self, event: &str, payload: Payload, from: Option<&Address>) {
        self.wake();
        self.pubsub.broadcast(Broadcast::new(self.topic.clone(), event.into(), payload), from);
    }

    /// Answers a push, unless the channel has ended.
    pub(crate) fn reply(&self, reference: &Ref, reply: &Reply) {
        self.wake();
        let topic = self.topic_name();
        self.mailbox.unless_over(|| self.client.reply(&self.join_ref, reference, &topic, reply));
    }

    /// Answers the join with success: with the join_ref as it was sent.
    pub(crate) fn open(&self, attachment: u64, reference: &Ref, response: Payload) {
        self.wake();
        let (join_ref, topic) = (&self.sent_join_ref, &self.topic_name());
        self.client.open(attachment, join_ref, reference, topic, &Reply::Ok(response));
    }

    /// Answers a join that failed, or a leave: past all that waits for the client.
    pub(crate) fn reply_to_join(&self, reference: &Ref, reply: &Reply) {
        self.client.control().reply(&self.sent_join_ref, reference, &self.topic_name(), reply);
    }

    /// Answers a push that came for a join which failed.
    pub(crate) fn reply_unmatched(&self, reference: &Ref) {
        self.client.control().reply_unmatched(reference, &self.topic_name());
    }

    /// Tells the client that the channel which it joined as `sent_join_ref` has ended.
    pub(crate) fn end(&self, sent_join_ref: &Ref, event: &str, payload: &str) {
        self.client.end(sent_join_ref, &self.topic, event, payload);
    }

    fn topic_name(&self) -> Name<'_> {
        Name::from(&*self.topic)
    }
}

/// The answer to one push, yet to be given. Dropping it leaves the push without one.
pub struct ReplyRef {
    link: Arc<dyn Answer>,
    reference: Ref,
}

/// Keeps the type of the assigns out of [`ReplyRef`].
trait Answer: Send + Sync {
    fn answer(&self, reference: &Ref, reply: &Reply);
}

impl<A: Send + Sync> Answer for Link<A> {
    fn answer(&self, reference: &Ref, reply: &Reply) {
        self.reply(reference, reply);
    }
}

impl ReplyRef {
    /// Answers. If the channel has ended meanwhile nothing is sent.
    pub fn reply(self, reply: impl Into<Reply>) {
        self.link.answer(&self.reference, &reply.into());
    }
}

/// A way for other tasks to reach a channel. A cheap clone that does not keep the channel alive.
pub struct Handle<C: Channel> {
    mailbox: Address,
    info: PhantomData<fn(C::Info)>,
}

impl<C: Channel> Handle<C> {
    /// Sends what [`Channel::handle_info`] will receive. Never blocks.
    ///
    /// # Errors
    /// If the channel has ended or its client is gone, or if more than [`Builder::max_mailbox`] waits
    /// already.
    ///
    /// [`Builder::max_mailbox`]: crate::Builder::max_mailbox
    pub fn send(&self, info: C::Info) -> Result<(), Undelivered> {
        self.mailbox.send(Mail::Info(Box::new(Some(info))))
    }
}

impl<C: Channel> Clone for Socket<C> {
    fn clone(&self) -> Self {
        Self { link: Arc::clone(&self.link), reference: self.reference.clone() }
    }
}

impl<C: Channel> Clone for Handle<C> {
    fn clone(&self) -> Self {
        Self { mailbox: self.mailbox.clone(), info: PhantomData }
    }
}

impl<C: Channel> fmt::Debug for Socket<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("topic", &self.link.topic).finish_non_exhaustive()
    }
}

impl<C: Channel> fmt::Debug for Handle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl fmt::Debug for ReplyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReplyRef").field(&self.reference).finish()
    }
}
