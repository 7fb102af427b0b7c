//! [`ExitGuard`]: ends a channel in order, whichever way its task ends.

use std::sync::Arc;

use tower_channels_transports::limited;
use tower_channels_transports::outbox::Enqueued;
use tower_channels_transports::telemetry::PANICS;

use super::callbacks::Channel;
use super::context::ChannelContext;
use super::error::{Result, join_crashed};
use super::instance::{Permit, PreviousInstance};
use super::mailbox::{self, Command, Ended, Ending, Rejoin, Succession};
use super::moving::{Continued, Settlement};
use super::result::{Joined, Reason};
use super::running::RunningChannel;
use super::task::recovering::Recovered;
use crate::effects::Effects;
use crate::message::Ref;
use crate::payload::Payload;
use crate::reply::Reply;
use crate::responder::Exit;
use crate::telemetry::{CHANNELS_MOVED, JoinResult};
use crate::topics::broadcast::Broadcast;
use crate::topics::resting::Before;
use crate::topics::subscriber::Subscriber;

/// Ends a channel in order when it is dropped: as its task returns, panics or is aborted.
///
/// The client is notified, commands that wait are replied to, presence entries are removed, and
/// then the next instance may begin.
pub(super) struct ExitGuard<A> {
    pub(super) context: Arc<ChannelContext<A>>,
    pub(super) commands: mailbox::Receiver,
    /// The join_ref of the last join that the channel has handled, which may be null: for the reply to
    /// a join or a leave, and for the end.
    pub(super) sent_join_ref: Ref,
    pub(super) stage: Stage,
    /// Dropped late, as the next join of this topic begins then.
    pub(super) permit: Permit,
    /// Dropped last, when nothing is left of the channel.
    pub(super) _running: RunningChannel,
}

/// A join that has succeeded.
pub(super) struct Finished<C> {
    pub(super) channel: C,
    /// The response to the client.
    pub(super) response: Payload,
    /// What the client has missed of the topic's history, if it comes through the channel.
    pub(super) missed: Vec<Arc<Broadcast>>,
    /// Of a channel that has moved here: held until its presence can be here.
    pub(super) settlement: Option<Arc<Settlement>>,
}

/// How far a channel has come, which decides how it ends.
pub(super) enum Stage {
    /// The client waits for the reply to this join.
    Joining {
        reference: Ref,
        epoch: u64,
        previous: Option<Box<PreviousInstance>>,
        continued: Option<Box<Continued>>,
    },
    /// An end without another reason is a crash. `resuming` is the ref of the join that
    /// [`Channel::resume`] is running for.
    Joined { resuming: Option<Ref> },
    /// The client has been notified, or is gone.
    Over,
    /// The channel goes on on another node.
    Moved,
}

impl<A> ExitGuard<A> {
    /// Replies to the join with its result. A channel that has joined is subscribed in the same
    /// moment: no broadcast precedes the reply, and none after it is missed. What the client has missed of the topic's
    /// history comes right behind the reply.
    ///
    /// # Errors
    /// If the channel has not joined: with the join that came behind this one, if there is one.
    pub(super) fn finish_join<C: Channel<Assigns = A>>(
        &mut self,
        joined: Result<Joined<C>>,
        recovered: Option<Recovered>,
    ) -> Result<Finished<C>, Option<Box<Rejoin>>> {
        let Joined { channel, response } = match joined {
            Ok(joined) => joined,
            Err(error) => {
                let response = error.into_refusal(&self.context.topic);
                return Err(self.refuse(&response, Succession::Possible));
            }
        };
        let Stage::Joining { reference, epoch, previous, continued } =
            std::mem::replace(&mut self.stage, Stage::Joined { resuming: None })
        else {
            return Err(None);
        };
        let context = &self.context;
        let subscriber =
            Subscriber::new(context.client.clone(), context.mailbox.inbox(), C::INTERCEPT);
        let reply = if context.mailbox.is_muted() {
            None
        } else {
            context.encode_reply(&self.sent_join_ref, &reference, &Reply::Ok(response.clone()))
        };
        if recovered.as_ref().is_some_and(|it| it.last.is_none()) {
            context.subscription.set_unplaced();
        }
        let (rested, missed, last, received) = match recovered {
            Some(Recovered { resting, missed, last, received }) => {
                (Some(resting), missed, last, received)
            }
            None => (None, Vec::new(), None, None),
        };
        let until = last.or(received);
        // Unless what it has missed tells it.
        let position = last.filter(|_| missed.is_empty() && context.client.positions.are_wanted());
        let position = position.and_then(|at| context.client.encode_position(&context.topic, at));
        // As all that follows it does, for the order.
        let is_handled = !C::INTERCEPT.is_empty() && context.client.positions.are_wanted();
        let (missed, handled) =
            if is_handled { (Vec::new(), missed) } else { (missed, Vec::new()) };
        let enqueue_reply = |effects: &mut Effects| {
            if let Some(reply) = reply {
                effects.add(context.client.outbox.enqueue_resume(epoch, reply));
                position.into_iter().for_each(|it| effects.enqueue(&context.client.outbox, it));
            }
        };
        let topics = context.pubsub.registry();
        if continued.is_some() {
            CHANNELS_MOVED.add(1);
        }
        let (resting, heard, settlement) = continued.map_or_else(Default::default, |continued| {
            let Continued { resting, heard, settlement, .. } = *continued;
            (resting, heard, Some(settlement))
        });
        let subscription = match rested.or(resting) {
            // It takes its place.
            Some(resting) => {
                resting.wake(subscriber, Before { heard, missed, until }, enqueue_reply)
            }
            None => topics.subscribe(&context.topic, subscriber, enqueue_reply),
        };
        context.subscription.set(Some(subscription));
        self.commands.set_joined();
        close_previous(&self.context, previous);
        Ok(Finished { channel, response, missed: handled, settlement })
    }

    /// Replies to the join with an error, and to the commands behind it as though there had been no
    /// join. Returns the next join.
    fn refuse(&mut self, response: &Payload, succession: Succession) -> Option<Box<Rejoin>> {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let Stage::Joining { reference, previous, .. } = stage else { return None };
        let Self { context, commands, sent_join_ref, .. } = self;
        context.unsubscribe_all();
        let error = Reply::Error(response.clone());
        let reply = context.encode_reply(sent_join_ref, &reference, &error);
        let Ended { waiting, rejoin, notified } = commands.end(succession, |ending| match ending {
            Ending::Own => reply.map(|reply| context.client.outbox.priority().enqueue(reply)),
            Ending::Replaced => None,
            Ending::Abandoned => context.enqueue_exit(sent_join_ref, Exit::CLOSE),
        });
        notified.into_iter().for_each(Enqueued::finish);
        close_previous(context, previous);
        for command in waiting {
            match command {
                Command::Push { reference, .. } => context.reply_unmatched(&reference),
                Command::Rejoin(rejoin) => {
                    context.reply_first(&rejoin.join_ref, &rejoin.reference, &error);
                }
                Command::Leave { reference } => {
                    context.reply_first(sent_join_ref, &reference, &Reply::ack());
                }
                Command::Broadcast(_)
                | Command::Info(_)
                | Command::Tick(_)
                | Command::Missed
                | Command::Pack(_)
                | Command::Detached(_)
                | Command::Reattached
                | Command::InvalidEvent => {}
            }
        }
        rejoin
    }

    /// Ends a joined channel in order: it receives no more broadcasts and no more commands, and its
    /// client is notified unless it is gone or another instance does that. Returns the join with which
    /// the next one begins.
    pub(super) fn finish(&mut self, reason: Reason, succession: Succession) -> Option<Box<Rejoin>> {
        self.end(succession, |context, join_ref| match reason {
            Reason::Left => context.enqueue_left(join_ref),
            Reason::Normal => context.enqueue_exit(join_ref, Exit::CLOSE),
            Reason::Closed | Reason::Moved => None,
        })
    }

    /// Ends a joined channel. `notify` puts its own end into the client's outbox.
    fn end(
        &mut self,
        succession: Succession,
        notify: impl FnOnce(&ChannelContext<A>, &Ref) -> Option<Enqueued>,
    ) -> Option<Box<Rejoin>> {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let resuming = if let Stage::Joined { resuming } = stage { resuming } else { None };
        let Self { context, commands, sent_join_ref, .. } = self;
        context.subscription.catch_up();
        context.unsubscribe_all();
        let Ended { waiting, rejoin, notified } = commands.end(succession, |ending| match ending {
            Ending::Own => notify(context, sent_join_ref),
            Ending::Replaced => None,
            Ending::Abandoned => context.enqueue_exit(sent_join_ref, Exit::CLOSE),
        });
        notified.into_iter().for_each(Enqueued::finish);
        // The stream of a client that has returned is paused until its join is replied to.
        let crashed = Reply::Error(join_crashed());
        if let Some(reference) = resuming {
            context.reply_first(sent_join_ref, &reference, &crashed);
        }
        for command in waiting {
            match command {
                Command::Rejoin(rejoin) => {
                    context.reply_first(&rejoin.join_ref, &rejoin.reference, &crashed);
                }
                Command::Leave { reference } => {
                    context.reply_first(sent_join_ref, &reference, &Reply::ack());
                }
                _ => {}
            }
        }
        rejoin
    }

    /// Ends a joined channel that goes on on another node: silently, and with its stream.
    pub(super) fn finish_move(&mut self, ticket: u64) {
        self.stage = Stage::Moved;
        self.context.unsubscribe_all();
        let ended = self.commands.end(Succession::Impossible, |_| ());
        drop(ended);
        self.context.linger(ticket);
    }

    /// Begins the next instance, after this one has ended, with the join that came behind.
    pub(super) fn begin_next(&mut self, rejoin: &Rejoin) {
        let Rejoin { join_ref, reference, epoch, .. } = rejoin;
        self.context.untrack_all();
        self.context.client.outbox.restart_stream();
        let context_join_ref = if join_ref.is_null() { reference } else { join_ref };
        let context = self.context.next(context_join_ref.clone(), self.commands.sender());
        self.context = Arc::new(context);
        self.sent_join_ref = join_ref.clone();
        self.stage = Stage::Joining {
            reference: reference.clone(),
            epoch: *epoch,
            previous: None,
            continued: None,
        };
    }
}

impl<A> Drop for ExitGuard<A> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            PANICS.increment(["channel"], 1);
            if let Stage::Joining { .. } = self.stage {
                self.context.metrics.count_join(JoinResult::Crashed);
            }
            limited!(ERROR, topic = ?self.context.topic, "channel panicked");
        }
        match self.stage {
            Stage::Over => {}
            Stage::Moved => return,
            // The task is gone, and with it the place where another instance could run.
            Stage::Joining { .. } => {
                self.refuse(&join_crashed(), Succession::Impossible);
            }
            Stage::Joined { .. } => {
                let mut has_crashed = false;
                self.end(Succession::Impossible, |context, join_ref| {
                    has_crashed = true;
                    context.enqueue_exit(join_ref, Exit::CRASH)
                });
                if has_crashed {
                    self.context.metrics.crash();
                }
            }
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
