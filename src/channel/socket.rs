//! What a channel holds while it runs: [`Socket`], [`Handle`], [`ReplyRef`].

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::callbacks::Channel;
use super::context::ChannelContext;
use super::mailbox::{self, Command, SendError};
use crate::message::Ref;
use crate::payload::Payload;
use crate::presence::Presence;
use crate::reply::Reply;

/// A channel's way to its client, its topic and the rest of the world. A cheap clone, which other
/// tasks may hold: it does not keep the channel alive.
pub struct Socket<C: Channel> {
    context: Arc<ChannelContext<C::Assigns>>,
    /// The ref of the push that is being handled.
    reference: Option<Ref>,
}

impl<C: Channel> Socket<C> {
    pub(crate) fn new(context: Arc<ChannelContext<C::Assigns>>) -> Self {
        Self { context, reference: None }
    }

    /// What the channel's own task needs of it.
    pub(crate) fn context(&self) -> &Arc<ChannelContext<C::Assigns>> {
        &self.context
    }

    /// Sets what [`reply_ref`](Self::reply_ref) refers to.
    pub(crate) fn set_reference(&mut self, reference: Option<Ref>) {
        self.reference = reference;
    }

    /// What `connect` learned of the client.
    pub fn assigns(&self) -> &C::Assigns {
        &self.context.assigns
    }

    /// The topic that was joined.
    pub fn topic(&self) -> &str {
        &self.context.topic
    }

    /// Sends an event to this client alone. After the channel has ended it does nothing.
    ///
    /// In [`Channel::join`] it would come before the join's answer, when the client does not know of
    /// the channel yet: that is what [`Channel::after_join`] is for.
    pub fn push(&self, event: &str, payload: impl Into<Payload>) {
        self.context.push(event, &payload.into());
    }

    /// Sends an event to everyone on the topic, this client included once it has joined.
    pub fn broadcast(&self, event: &str, payload: impl Into<Payload>) {
        self.context.broadcast(event, payload.into(), None);
    }

    /// Sends an event to everyone on the topic but this client.
    pub fn broadcast_from(&self, event: &str, payload: impl Into<Payload>) {
        self.context.broadcast(event, payload.into(), Some(&self.context.mailbox));
    }

    /// A way to answer the push that is being handled later, from any task; the handler then
    /// returns [`Reply::None`].
    ///
    /// # Panics
    /// When no push is being handled, as in [`Channel::handle_info`]: there is nothing to answer.
    pub fn reply_ref(&self) -> ReplyRef {
        let reference = self.reference.clone();
        let reference = reference.expect("reply_ref is for handle_in: there is no push to answer");
        ReplyRef { context: Arc::clone(&self.context) as Arc<dyn Answer>, reference }
    }

    /// Who is present on which topic of the endpoint.
    pub fn presence(&self) -> &Presence {
        &self.context.presence
    }

    /// A way for other tasks to send this channel an [`Info`](Channel::Info).
    pub fn handle(&self) -> Handle<C> {
        Handle { mailbox: self.context.mailbox.clone(), info: PhantomData }
    }
}

/// The answer to one push, yet to be given. Dropping it leaves the push without one.
pub struct ReplyRef {
    context: Arc<dyn Answer>,
    reference: Ref,
}

/// Keeps the type of the assigns out of [`ReplyRef`].
trait Answer: Send + Sync {
    fn answer(&self, reference: &Ref, reply: &Reply);
}

impl<A: Send + Sync> Answer for ChannelContext<A> {
    fn answer(&self, reference: &Ref, reply: &Reply) {
        self.reply(reference, reply);
    }
}

impl ReplyRef {
    /// Answers. If the channel has ended meanwhile nothing is sent.
    pub fn reply(self, reply: impl Into<Reply>) {
        self.context.answer(&self.reference, &reply.into());
    }
}

/// A way for other tasks to reach a channel. A cheap clone that does not keep the channel alive.
pub struct Handle<C: Channel> {
    mailbox: mailbox::Sender,
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
    pub fn send(&self, info: C::Info) -> Result<(), SendError> {
        self.mailbox.send(Command::Info(Box::new(Some(info))))
    }
}

impl<C: Channel> Clone for Socket<C> {
    fn clone(&self) -> Self {
        Self { context: Arc::clone(&self.context), reference: self.reference.clone() }
    }
}

impl<C: Channel> Clone for Handle<C> {
    fn clone(&self) -> Self {
        Self { mailbox: self.mailbox.clone(), info: PhantomData }
    }
}

impl<C: Channel> fmt::Debug for Socket<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("topic", &self.context.topic).finish_non_exhaustive()
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
