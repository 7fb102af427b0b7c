//! The end of a channel, whichever way its task ends.

use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::callbacks::Channel;
use super::context::ChannelContext;
use super::mailbox::{self, Command};
use super::result::{JoinError, Joined, Result};
use super::task::PreviousInstance;
use crate::message::Ref;
use crate::payload::Payload;
use crate::pubsub::Subscriber;
use crate::reply::Reply;

/// Ends the channel in order, whichever way the task ends: return, panic, or abort.
pub(super) struct ExitGuard<A> {
    pub(super) context: Arc<ChannelContext<A>>,
    pub(super) commands: mailbox::Receiver,
    pub(super) stage: Stage,
    /// The last to go, for the next join of this topic begins then.
    pub(super) permit: Option<OwnedMutexGuard<()>>,
}

pub(super) enum Stage {
    /// The join is not answered.
    Joining { reference: Ref, epoch: u64, previous: Option<Box<PreviousInstance>> },
    /// What ends now has crashed. There is the ref of the join that [`Channel::resume`] is to answer.
    Joined { resuming: Option<Ref> },
    /// The client has been told, or is gone.
    Over,
}

impl<A> ExitGuard<A> {
    /// Answers the join, and subscribes in the same moment: nothing that is broadcast comes before
    /// the answer, and nothing after it is missed.
    pub(super) fn joined<C: Channel<Assigns = A>>(
        &mut self,
        joined: Result<Joined<C>, JoinError>,
    ) -> Option<(C, Payload)> {
        let Joined { channel, response } = match joined {
            Ok(joined) => joined,
            Err(refused) => {
                refused.log(&self.context.topic);
                self.refuse(&refused.response);
                return None;
            }
        };
        let Stage::Joining { reference, epoch, previous } =
            std::mem::replace(&mut self.stage, Stage::Joined { resuming: None })
        else {
            return None;
        };
        let context = &self.context;
        let subscriber = Subscriber {
            client: context.client.clone(),
            mailbox: context.mailbox.clone(),
            intercept: C::INTERCEPT,
            rest: None,
        };
        let answer = || {
            let response = response.clone();
            context.mailbox.unless_over(|| context.open(epoch, &reference, response));
        };
        context.subscribe(Some(context.pubsub.subscribe(&context.topic, subscriber, answer)));
        close(context, previous);
        Some((channel, response))
    }

    /// Answers the join with an error, and whatever came after it as though there had been none.
    fn refuse(&mut self, response: &Payload) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let Stage::Joining { reference, previous, .. } = stage else { return };
        let context = &self.context;
        let answer = || context.reply_to_join(&reference, &Reply::Error(response.clone()));
        let waiting = self.commands.end(answer);
        close(context, previous);
        for mail in waiting {
            match mail {
                Command::Push { reference, .. } => self.context.reply_unmatched(&reference),
                // In a kept session the client joined again meanwhile.
                Command::Resume { reference, .. } => {
                    self.context.reply_to_join(&reference, &Reply::Error(response.clone()));
                }
                Command::Leave { reference } => {
                    self.context.reply_to_join(&reference, &Reply::ack())
                }
                Command::Broadcast(_)
                | Command::Info(_)
                | Command::Detached
                | Command::InvalidEvent => {}
            }
        }
    }

    /// Takes no more broadcasts and no more mail, and tells the client of the end.
    pub(super) fn finish(&mut self, on_exit: impl FnOnce(&ChannelContext<A>)) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let resuming = if let Stage::Joined { resuming } = stage { resuming } else { None };
        let context = &self.context;
        context.wake();
        context.subscribe(None);
        let waiting = self.commands.end(|| on_exit(context));
        // A client that has returned hears nothing of its channels until their joins are answered.
        let joins = waiting.into_iter().filter_map(|mail| match mail {
            Command::Resume { reference, .. } => Some(reference),
            _ => None,
        });
        for reference in resuming.into_iter().chain(joins) {
            let crashed = JoinError::from("join crashed").response;
            context.reply_to_join(&reference, &Reply::Error(crashed));
        }
    }
}

impl<A> Drop for ExitGuard<A> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(topic = %self.context.topic, "channel panicked");
        }
        self.notify_exit();
        self.context.untrack_all();
        self.context.client.outbox.end_stream();
    }
}

impl<A> ExitGuard<A> {
    fn notify_exit(&mut self) {
        match self.stage {
            Stage::Over => {}
            Stage::Joining { .. } => self.refuse(&JoinError::from("join crashed").response),
            Stage::Joined { .. } => self.finish(|context| {
                let payload = r#"{"reason":"channel_crash"}"#;
                context.end(&context.sent_join_ref, "phx_error", payload);
            }),
        }
    }
}

/// Says that the previous channel is closed, once the join that previous it is answered.
fn close<A>(context: &ChannelContext<A>, previous: Option<Box<PreviousInstance>>) {
    if let Some(PreviousInstance { mailbox, task, sent_join_ref }) =
        previous.map(|previous| *previous)
    {
        task.abort();
        mailbox.mute();
        context.end(&sent_join_ref, "phx_close", "{}");
    }
}
