//! [`ReplyRef`]: the reply to a push, from any task.

use std::fmt;
use std::sync::Arc;

use super::context::{Caller, ChannelContext};
use crate::message::Ref;
use crate::reply::Reply;

/// Replies to one push later, from any task; see [`Socket::reply_ref`](crate::Socket::reply_ref).
///
/// Dropping it leaves the push without a reply, and the client's push times out.
pub struct ReplyRef {
    context: Arc<dyn ReplyContext>,
    reference: Ref,
}

/// A channel that can reply, whatever its assigns.
trait ReplyContext: Send + Sync {
    fn reply(&self, reference: &Ref, reply: &Reply);
}

impl<A: Send + Sync> ReplyContext for ChannelContext<A> {
    fn reply(&self, reference: &Ref, reply: &Reply) {
        self.reply(Caller::OtherTask, reference, reply);
    }
}

impl ReplyRef {
    pub(super) fn new<A: Send + Sync + 'static>(
        context: &Arc<ChannelContext<A>>,
        reference: Ref,
    ) -> Self {
        Self { context: Arc::clone(context) as Arc<dyn ReplyContext>, reference }
    }

    /// Sends the reply, unless the channel has ended.
    pub fn reply(self, reply: impl Into<Reply>) {
        self.context.reply(&self.reference, &reply.into());
    }
}

impl fmt::Debug for ReplyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReplyRef").field(&self.reference).finish()
    }
}
