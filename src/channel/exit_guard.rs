//! [`ExitGuard`]: ends a channel in order, whichever way its task ends.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;
use tower_channels_transports::outbox::Enqueued;

use super::callbacks::Channel;
use super::context::ChannelContext;
use super::instance::PreviousInstance;
use super::mailbox::{self, Command, Ending};
use super::result::{JoinError, Joined, Result};
use crate::effects::Effects;
use crate::message::Ref;
use crate::payload::Payload;
use crate::pubsub::subscriber::Subscriber;
use crate::reply::Reply;
use crate::responder::Exit;

/// Ends a channel in order when it is dropped: as its task returns, panics or is aborted.
///
/// The client is notified, commands that wait are replied to, presence entries are removed, and
/// then the next instance may begin.
pub(super) struct ExitGuard<A> {
    pub(super) context: Arc<ChannelContext<A>>,
    pub(super) commands: mailbox::Receiver,
    pub(super) stage: Stage,
    /// Dropped last, as the next join of this topic begins then.
    pub(super) permit: Option<OwnedMutexGuard<()>>,
}

/// How far a channel has come, which decides how it ends.
pub(super) enum Stage {
    /// The client waits for the reply to this join.
    Joining { reference: Ref, epoch: u64, previous: Option<Box<PreviousInstance>> },
    /// An end without another reason is a crash. `resuming` is the ref of the join that
    /// [`Channel::resume`] is running for.
    Joined { resuming: Option<Ref> },
    /// The client has been notified, or is gone.
    Over,
}

impl<A> ExitGuard<A> {
    /// Replies to the join with its result. A channel that has joined is subscribed in the same
    /// moment: no broadcast precedes the reply, and none after it is missed.
    pub(super) fn finish_join<C: Channel<Assigns = A>>(
        &mut self,
        joined: Result<Joined<C>, JoinError>,
    ) -> Option<(C, Payload)> {
        let Joined { channel, response } = match joined {
            Ok(joined) => joined,
            Err(error) => {
                error.log(&self.context.topic);
                self.refuse(&error.response);
                return None;
            }
        };
        let Stage::Joining { reference, epoch, previous } =
            std::mem::replace(&mut self.stage, Stage::Joined { resuming: None })
        else {
            return None;
        };
        let context = &self.context;
        let subscriber =
            Subscriber::new(context.client.clone(), context.mailbox.inbox(), C::INTERCEPT);
        let reply = if context.mailbox.is_muted() {
            None
        } else {
            context.encode_join_reply(&reference, response.clone())
        };
        let enqueue_reply = |effects: &mut Effects| {
            if let Some(reply) = reply {
                effects.add(context.client.outbox.enqueue_resume(epoch, reply));
            }
        };
        let subscription = context.pubsub.subscribe(&context.topic, subscriber, enqueue_reply);
        context.subscription.set(Some(subscription));
        close_previous(context, previous);
        Some((channel, response))
    }

    /// Replies to the join with an error, and to the commands behind it as though there had been no
    /// join.
    fn refuse(&mut self, response: &Payload) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let Stage::Joining { reference, previous, .. } = stage else { return };
        let (context, error) = (&self.context, Reply::Error(response.clone()));
        let reply = context.encode_first(&reference, &error);
        let (waiting, enqueued) = self.commands.end(|ending| match ending {
            Ending::Own => reply.map(|reply| context.client.outbox.priority().enqueue(reply)),
            Ending::Replaced => None,
            Ending::Abandoned => context.enqueue_exit(Exit::CLOSE),
        });
        enqueued.into_iter().for_each(Enqueued::finish);
        close_previous(context, previous);
        for command in waiting {
            match command {
                Command::Push { reference, .. } => context.reply_unmatched(&reference),
                // The client has joined again in a resumable session.
                Command::Resume { reference, .. } => context.reply_first(&reference, &error),
                Command::Leave { reference } => context.reply_first(&reference, &Reply::ack()),
                Command::Broadcast(_)
                | Command::Info(_)
                | Command::Detached
                | Command::Reattached
                | Command::InvalidEvent => {}
            }
        }
    }

    /// Ends a joined channel: it receives no more broadcasts and no more commands, and its client
    /// is notified of `exit`, unless another instance does that.
    pub(super) fn finish(&mut self, exit: Option<Exit>) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let resuming = if let Stage::Joined { resuming } = stage { resuming } else { None };
        let context = &self.context;
        context.subscription.catch_up();
        context.subscription.set(None);
        let (waiting, enqueued) = self.commands.end(|ending| match ending {
            Ending::Own => exit.and_then(|exit| context.enqueue_exit(exit)),
            Ending::Replaced => None,
            Ending::Abandoned => context.enqueue_exit(Exit::CLOSE),
        });
        enqueued.into_iter().for_each(Enqueued::finish);
        // The stream of a client that has returned is paused until its join is replied to.
        let joins = waiting.into_iter().filter_map(|command| match command {
            Command::Resume { reference, .. } => Some(reference),
            _ => None,
        });
        for reference in resuming.into_iter().chain(joins) {
            context.reply_first(&reference, &Reply::Error(JoinError::crashed().response));
        }
    }
}

impl<A> Drop for ExitGuard<A> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            metrics::counter!("tower_channels_panics", "in" => "channel").increment(1);
            tracing::error!(topic = ?self.context.topic, "channel panicked");
        }
        match self.stage {
            Stage::Over => {}
            Stage::Joining { .. } => self.refuse(&JoinError::crashed().response),
            Stage::Joined { .. } => self.finish(Some(Exit::CRASH)),
        }
        self.context.untrack_all();
        self.context.client.outbox.end_stream();
    }
}

/// Notifies the client, once the join is replied to, that the instance which it replaced is closed.
/// If that is still running, because the join failed while waiting for it, it does so itself when
/// it ends.
fn close_previous<A>(context: &ChannelContext<A>, previous: Option<Box<PreviousInstance>>) {
    let Some(previous) = previous else { return };
    previous.task.abort();
    if !previous.mailbox.abandon() {
        context.client.notify_exit(&previous.sent_join_ref, &context.topic, Exit::CLOSE);
    }
}
