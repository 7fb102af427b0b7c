//! The task of a channel: it joins, handles one command after another, and ends.

mod hearing;
mod moving;
pub(super) mod recovering;

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_channels_transports::{DetachReason, excerpt, limited};
use tracing::{Instrument, Span};

use self::hearing::{hear, hear_missed};
use self::recovering::{named, recover};
use super::callbacks::{Channel, Socket};
use super::context::{Caller, ChannelContext};
use super::error::{Error, Outcome};
use super::exit_guard::{ExitGuard, Finished, Stage};
use super::instance::{Permit, PreviousInstance, TopicPermit};
use super::log::{report_handle_in, report_join, report_resume, start_handle_in};
use super::mailbox::{self, Command, Rejoin, Succession};
use super::moving::{Continued, PackRequest};
use super::result::Reason;
use super::running::RunningChannel;
use super::timers::Tick;
use crate::guarded::Guarded;
use crate::history::Position;
use crate::message::Ref;
use crate::payload::Payload;
use crate::reply::Reply;

/// How long a join waits until broadcasts of other nodes are heard.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// A join that matched a route.
pub(crate) struct Join<A> {
    pub(crate) context: ChannelContext<A>,
    pub(crate) commands: mailbox::Receiver,
    /// The join_ref as the client sent it, which may be null.
    pub(crate) sent_join_ref: Ref,
    pub(crate) reference: Ref,
    pub(crate) payload: Payload,
    /// The last message of the topic that the client has received, if it names one.
    pub(crate) after: Option<Position>,
    /// The longest that the join may take, from now on.
    pub(crate) timeout: Duration,
    /// The epoch of the connection that the join came over.
    pub(crate) epoch: u64,
    pub(crate) permit: TopicPermit,
    pub(crate) previous: Option<PreviousInstance>,
    /// What it continues, of a channel on another node.
    pub(crate) continued: Option<Box<Continued>>,
    pub(crate) span: Span,
}

/// Starts a channel. Its task replies to the join itself, so a slow join delays nothing else.
pub(crate) fn start<C: Channel>(join: Join<C::Assigns>) -> JoinHandle<()> {
    let Join { context, commands, sent_join_ref, reference, payload, after, timeout, .. } = join;
    let (previous, continued) = (join.previous.map(Box::new), join.continued);
    let context = Arc::new(context);
    // Created here, so that the channel ends in order even if the task never runs.
    let permit = Permit::Awaited(join.permit);
    let _running = RunningChannel::new(&context, &sent_join_ref, continued.as_deref());
    let stage = Stage::Joining { reference, epoch: join.epoch, previous, continued };
    let guard = ExitGuard { context, commands, sent_join_ref, stage, permit, _running };
    let instance = Instance { guard, payload, after, timeout };
    tokio::spawn(run::<C>(Box::pin(begin(instance))).instrument(join.span))
}

/// An instance of a channel that has not joined yet.
struct Instance<A> {
    guard: ExitGuard<A>,
    payload: Payload,
    after: Option<Position>,
    timeout: Duration,
}

impl<A> Instance<A> {
    /// The instance that follows one which has ended, if the client has joined again meanwhile.
    fn following(mut guard: ExitGuard<A>, rejoin: Option<Box<Rejoin>>) -> Option<Box<Self>> {
        let rejoin = *rejoin?;
        guard.begin_next(&rejoin);
        let Rejoin { payload, after, timeout, .. } = rejoin;
        Some(Box::new(Self { guard, payload, after, timeout }))
    }
}

/// A joined channel. The fields are dropped in this order: the channel before the guard notifies
/// the client and gives up the permit.
struct ChannelTask<C: Channel> {
    channel: Guarded<C>,
    socket: Socket<C>,
    /// The response to the first join, for later ones of a resumable session.
    response: Payload,
    guard: ExitGuard<C::Assigns>,
}

/// The instance that follows, if there is one.
type Next<C> = Option<Box<Instance<<C as Channel>::Assigns>>>;

/// An instance that joins. An error is its end.
type Beginning<C> = Pin<Box<dyn Future<Output = Result<ChannelTask<C>, Next<C>>> + Send>>;

/// Runs one instance after another. A task takes the memory of its largest phase for as long as it
/// lives. Most of that time it waits for a command, so the phases that come once are boxed.
async fn run<C: Channel>(mut beginning: Beginning<C>) {
    loop {
        // Joins that fail at once, and many wait behind, yield as commands do.
        tokio::task::coop::consume_budget().await;
        // Nothing of the beginning outlives this statement.
        let mut task = match beginning.await {
            Ok(task) => task,
            Err(None) => return,
            Err(Some(next)) => {
                beginning = Box::pin(begin(*next));
                continue;
            }
        };
        let exit = task.serve().await;
        let Some(next) = Box::pin(task.end(exit)).await else { return };
        beginning = Box::pin(begin(*next));
    }
}

/// Joins. Returns an error if the channel has ended already.
async fn begin<C: Channel>(instance: Instance<C::Assigns>) -> Result<ChannelTask<C>, Next<C>> {
    let (Instance { mut guard, payload, after, timeout }, began) = (instance, Instant::now());
    if let Stage::Joining { previous: Some(previous), .. } = &guard.stage {
        previous.task.abort();
    }
    let context = Arc::clone(&guard.context);
    if let Some(account) = context.client.outbox.account() {
        account.memory().relieve();
    }
    let socket = Socket::<C>::new(Arc::clone(&context));
    let (mut recovered, mut standing) = (None, None);
    let join = async {
        // The previous instance ends first, and that takes from the time of this join.
        guard.permit.acquire().await;
        (recovered, standing) = recover(&context, &mut guard.stage, after, &payload).await;
        let joined = C::join(&context.topic, payload, &socket).await;
        // Who has read its history hears the topic, or has waited for it.
        let hears = joined.is_err() || recovered.is_some();
        let heard = if hears { None } else { context.pubsub.hear(&context.topic) };
        if let Some(heard) = heard {
            // An engine that does not answer keeps no client waiting.
            let _ = tokio::time::timeout(HEARD_WITHIN, heard).await;
        }
        joined
    };
    let joined = tokio::time::timeout(timeout, join).await;
    report_join::<C, _, _>(&context, &joined, began.elapsed());
    let joined = joined.unwrap_or_else(|_| Err(Error::reason("join timed out")));
    let Finished { channel, response, missed, settlement } =
        match guard.finish_join::<C>(joined, recovered) {
            Ok(joined) => joined,
            Err(rejoin) => return Err(Instance::following(guard, rejoin)),
        };
    if let Some(standing) = standing {
        standing.remember(&context);
    }
    // A state that `join` requested may have been sent before its reply, to a client that ignored
    // it.
    context.refresh_presence();
    let channel = Guarded::new(channel);
    let mut task = ChannelTask { channel, socket, response, guard };
    let mut begun = hear_missed::<C>(&mut task.channel, &mut task.socket, missed).await;
    if begun.is_ok() {
        begun = task.channel.after_join(&task.socket).await;
    }
    drop(settlement);
    if let Some(exit) = begun.err().and_then(|error| TaskExit::after(error, &context.topic)) {
        return Err(Box::pin(task.end(exit)).await);
    }
    Ok(task)
}

/// Why a channel stopped handling commands.
enum TaskExit {
    /// The client left; with the ref of its leave.
    Left(Ref),
    /// The client is gone.
    Closed,
    /// The client goes on behind another message than the channel, and joins anew.
    Replaced(Box<Rejoin>),
    /// The client may not resume; with the ref of its join.
    ResumeRefused(Error, Ref),
    /// A callback stopped the channel, whose push is replied to.
    Stopped,
    /// Broadcasts may have been lost, and the client has to join again.
    Missed,
    /// The client goes on on another node.
    Moving(PackRequest),
    Crashed(Box<dyn StdError + Send + Sync>),
}

impl TaskExit {
    /// Returns how an error of a callback that handles no push ends the channel: an error reply does not.
    fn after(error: Error, topic: &str) -> Option<Self> {
        match error.0 {
            Outcome::Reply(_) => {
                limited!(DEBUG, ?topic, error = ?excerpt(&error.to_string()), "there is no push to reply to");
                None
            }
            Outcome::Stop(_) => Some(Self::Stopped),
            Outcome::Crash(error) => Some(Self::Crashed(error)),
        }
    }
}

impl<C: Channel> ChannelTask<C> {
    /// Handles one command after another. Each is handled in place: what is moved out of it would
    /// take more memory in the task.
    async fn serve(&mut self) -> TaskExit {
        let Self { channel, socket, response, guard } = self;
        loop {
            // A channel with a long queue yields, so that its client is written to meanwhile.
            tokio::task::coop::consume_budget().await;
            let Some(mut command) = guard.commands.recv().await else { return TaskExit::Closed };
            let handled = match &mut command {
                Command::Push { reference, event, payload } => {
                    socket.set_reference(Some(reference.clone()));
                    let payload = std::mem::replace(payload, Payload::EMPTY);
                    let began = start_handle_in::<C>(socket.context());
                    let handled = channel.handle_in(event, payload, socket).await;
                    if let Some(began) = began {
                        report_handle_in::<C>(socket.context(), event, began.elapsed());
                    }
                    socket.set_reference(None);
                    let context = socket.context();
                    let reply = |reply| context.reply(Caller::ChannelTask, reference, &reply);
                    match handled {
                        Ok(result) => reply(result),
                        Err(Error(Outcome::Reply(response))) => reply(Reply::Error(response)),
                        Err(Error(Outcome::Stop(last))) => {
                            reply(last);
                            return TaskExit::Stopped;
                        }
                        Err(Error(Outcome::Crash(error))) => return TaskExit::Crashed(error),
                    }
                    Ok(())
                }
                Command::Broadcast(broadcast) => hear::<C>(channel, socket, broadcast).await,
                Command::Info(_) | Command::Tick(_) => {
                    if let Command::Tick(_) = command {
                        socket.context().resources.count_fired();
                    }
                    match take_info(&mut command) {
                        Some(info) => channel.handle_info(info, socket).await,
                        None => Ok(()),
                    }
                }
                Command::Rejoin(rejoin) if begins_anew(rejoin, socket.context()) => {
                    match take_rejoin(command) {
                        Some(rejoin) => return TaskExit::Replaced(rejoin),
                        None => Ok(()),
                    }
                }
                Command::Rejoin(rejoin) => {
                    let Rejoin { join_ref, reference, payload, epoch, .. } = &mut **rejoin;
                    guard.sent_join_ref = join_ref.clone();
                    guard.stage = Stage::Joined { resuming: Some(reference.clone()) };
                    let payload = std::mem::replace(payload, Payload::EMPTY);
                    let resumed = Box::pin(channel.resume(payload, socket)).await;
                    guard.stage = Stage::Joined { resuming: None };
                    match resumed {
                        Ok(changed) => {
                            let response = changed.unwrap_or_else(|| response.clone());
                            socket.context().resume(*epoch, join_ref, reference, response);
                            socket.context().end_absence();
                            socket.context().refresh_presence();
                            report_resume::<C>(&socket.context().topic);
                            Ok(())
                        }
                        Err(error) => {
                            return TaskExit::ResumeRefused(error, reference.clone());
                        }
                    }
                }
                Command::Detached(reason) => {
                    let context = socket.context();
                    context.subscription.make_dormant(context.ownership.follows());
                    if *reason == DetachReason::ClientClosed {
                        context.begin_absence();
                    }
                    guard.commands.shrink();
                    Ok(())
                }
                Command::Reattached => {
                    socket.context().subscription.catch_up();
                    socket.context().refresh_presence();
                    Ok(())
                }
                Command::InvalidEvent => Err(Error::from("the event is not a string")),
                Command::Leave { reference } => return TaskExit::Left(reference.clone()),
                Command::Missed => return TaskExit::Missed,
                Command::Pack(_) => match take_request(command) {
                    Some(request) => return TaskExit::Moving(request),
                    None => Ok(()),
                },
            };
            let topic = &socket.context().topic;
            if let Some(exit) = handled.err().and_then(|error| TaskExit::after(error, topic)) {
                return exit;
            }
        }
    }

    /// Ends the channel, without a panic. Returns the instance that follows.
    async fn end(self, exit: TaskExit) -> Next<C> {
        let exit = match exit {
            // Unless nobody waits for it any more.
            TaskExit::Moving(request) if !request.reply.is_closed() => {
                self.move_away(request).await;
                return None;
            }
            exit => exit,
        };
        // Dropped from right to left.
        let Self { mut guard, socket, mut channel, .. } = self;
        let context = Arc::clone(&guard.context);
        let mut succession = Succession::Possible;
        let reason = match exit {
            TaskExit::Left(reference) => {
                limited!(DEBUG, topic = ?context.topic, "left");
                context.reply_first(&guard.sent_join_ref, &reference, &Reply::ack());
                Reason::Left
            }
            TaskExit::ResumeRefused(error, reference) => {
                let refused = Reply::Error(error.into_refusal(&context.topic));
                context.reply_first(&guard.sent_join_ref, &reference, &refused);
                Reason::Closed
            }
            TaskExit::Replaced(rejoin) => {
                limited!(DEBUG, topic = ?context.topic, "begins anew: its client names a message");
                succession = Succession::With(rejoin);
                Reason::Closed
            }
            TaskExit::Closed | TaskExit::Moving(_) => Reason::Closed,
            TaskExit::Stopped => Reason::Normal,
            TaskExit::Missed => {
                limited!(DEBUG, topic = ?context.topic, "ended, since broadcasts may have been lost");
                return None;
            }
            TaskExit::Crashed(error) => {
                let topic = &context.topic;
                limited!(ERROR, ?topic, error = ?excerpt(&error.to_string()), "channel crashed");
                return None;
            }
        };
        channel.terminate(reason, &socket).await;
        // Before the client is notified, and joins again.
        drop(channel);
        let rejoin = guard.finish(reason, succession);
        Instance::following(guard, rejoin)
    }
}

/// Whether a channel ends instead of being resumed: the position at which it began is unknown, and its client names one, which
/// may be an earlier one from another node.
fn begins_anew<A>(rejoin: &Rejoin, context: &ChannelContext<A>) -> bool {
    let named = || named(rejoin.after, &rejoin.payload, context.client.positions);
    context.subscription.is_unplaced() && named().is_some()
}

fn take_rejoin(command: Command) -> Option<Box<Rejoin>> {
    if let Command::Rejoin(rejoin) = command { Some(rejoin) } else { None }
}

fn take_request(command: Command) -> Option<PackRequest> {
    if let Command::Pack(request) = command { Some(request) } else { None }
}

/// Takes the message out of a command that has one, unless its timer was cancelled.
fn take_info<I: Send + 'static>(command: &mut Command) -> Option<I> {
    match command {
        Command::Info(info) => info.downcast_mut().and_then(Guarded::take),
        Command::Tick(tick) => tick.downcast_mut().and_then(Tick::take),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
