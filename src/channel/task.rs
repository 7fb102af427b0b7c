//! The task behind a joined channel: join, then one mail after the other, then the end.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::callbacks::Channel;
use super::context::ChannelContext;
use super::exit_guard::{ExitGuard, Stage};
use super::mailbox::{self, Command};
use super::result::{JoinError, Reason, Stop, Why};
use super::socket::Socket;
use crate::message::Ref;
use crate::payload::Payload;
use crate::reply::Reply;

/// A join that matched a route.
pub(crate) struct Join<A> {
    pub(crate) context: ChannelContext<A>,
    pub(crate) commands: mailbox::Receiver,
    pub(crate) reference: Ref,
    pub(crate) payload: Payload,
    pub(crate) timeout: Duration,
    /// The connection that the join came over.
    pub(crate) epoch: u64,
    pub(crate) permit: TopicPermit,
    pub(crate) previous: Option<PreviousInstance>,
}

/// The place of a client's channel on its topic, which passes to the channel that replaces it: a
/// channel begins once it has the lock, and holds it until nothing of it is left. It is tokio's,
/// since it is waited for.
pub(crate) type TopicPermit = Arc<tokio::sync::Mutex<()>>;

/// The channel whose topic is joined again.
pub(crate) struct PreviousInstance {
    pub(crate) mailbox: mailbox::Owner,
    pub(crate) task: JoinHandle<()>,
    pub(crate) sent_join_ref: Ref,
}

/// Starts a channel. The task answers the join itself, so that a slow one holds up nothing.
pub(crate) fn start<C: Channel>(join: Join<C::Assigns>) -> JoinHandle<()> {
    let Join { context, commands, reference, payload, timeout, epoch, permit, previous } = join;
    let stage = Stage::Joining { reference, epoch, previous: previous.map(Box::new) };
    // Made before the task, so that it does its work even if the task never runs.
    let guard = ExitGuard { context: Arc::new(context), commands, stage, permit: None };
    tokio::spawn(run(Box::pin(begin::<C>(guard, payload, timeout, permit))))
}

/// A channel that is joined. Its parts are dropped in this order: the channel before the guard speaks of
/// the end and gives up the permit.
struct ChannelTask<C: Channel> {
    channel: C,
    socket: Socket<C>,
    /// What the join was answered, for those that come after it.
    response: Payload,
    guard: ExitGuard<C::Assigns>,
}

/// A task is as large as the largest of its phases, for as long as it lives. This one waits for mail
/// most of its task: so the phases that come once are in boxes of their own.
async fn run<C: Channel>(beginning: Pin<Box<impl Future<Output = Option<ChannelTask<C>>>>>) {
    let Some(mut task) = beginning.await else { return };
    let end = task.serve().await;
    Box::pin(task.end(end)).await;
}

/// Joins. `None` if there is nothing more to come.
async fn begin<C: Channel>(
    mut guard: ExitGuard<C::Assigns>,
    payload: Payload,
    timeout: Duration,
    permit: TopicPermit,
) -> Option<ChannelTask<C>> {
    if let Stage::Joining { previous: Some(old), .. } = &guard.stage {
        old.task.abort();
    }
    guard.permit = Some(permit.lock_owned().await);
    let socket = Socket::<C>::new(Arc::clone(&guard.context));
    let joined = {
        let join = C::join(&guard.context.topic, payload, &socket);
        tokio::time::timeout(timeout, join).await
    };
    let joined = joined.unwrap_or_else(|_| Err(JoinError::reason("join timed out")));
    let (channel, response) = guard.joined::<C>(joined)?;
    // A state that `join` asked for came too early, if it came already.
    guard.context.refresh_presence();
    let mut task = ChannelTask { channel, socket, response, guard };
    if let Err(stop) = task.channel.after_join(&task.socket).await {
        Box::pin(task.end(End::Stopped(stop, None))).await;
        return None;
    }
    Some(task)
}

/// Why the loop of a channel ended.
enum End {
    /// The client left, and this is the ref of its leave.
    Left(Ref),
    /// The client is gone.
    Closed,
    /// The client may not resume, and this is the ref of its join.
    Refused(JoinError, Ref),
    /// A callback stopped, and this is the ref of the push that it was given.
    Stopped(Stop, Option<Ref>),
}

impl<C: Channel> ChannelTask<C> {
    /// Handles one mail after the other. Each stays where it is meanwhile: what is moved out of it
    /// would have a place of its own in the task.
    async fn serve(&mut self) -> End {
        let Self { channel, socket, response, guard } = self;
        loop {
            // A channel that catches up leaves others their turn: its client must be able to read.
            tokio::task::coop::consume_budget().await;
            let Some(mut mail) = guard.commands.next().await else { return End::Closed };
            let handled = match &mut mail {
                Command::Push { reference, event, payload } => {
                    socket.set_reference(Some(reference.clone()));
                    let payload = std::mem::replace(payload, Payload::EMPTY);
                    let handled = channel.handle_in(event, payload, socket).await;
                    socket.set_reference(None);
                    match handled {
                        Ok(reply) => {
                            socket.context().reply(reference, &reply);
                            Ok(())
                        }
                        Err(stop) => return End::Stopped(stop, Some(reference.clone())),
                    }
                }
                Command::Broadcast(broadcast) => {
                    channel.handle_out(broadcast.event(), broadcast.payload().clone(), socket).await
                }
                Command::Info(info) => match info.downcast_mut().and_then(Option::take) {
                    Some(info) => channel.handle_info(info, socket).await,
                    None => Ok(()),
                },
                Command::Resume { reference, payload, epoch } => {
                    guard.stage = Stage::Joined { resuming: Some(reference.clone()) };
                    let payload = std::mem::replace(payload, Payload::EMPTY);
                    let resumed = Box::pin(channel.resume(payload, socket)).await;
                    guard.stage = Stage::Joined { resuming: None };
                    match resumed {
                        Ok(changed) => {
                            let response = changed.unwrap_or_else(|| response.clone());
                            socket.context().open(*epoch, reference, response);
                            socket.context().refresh_presence();
                            metrics::counter!("tower_channels_channels_resumed").increment(1);
                            Ok(())
                        }
                        Err(refused) => return End::Refused(refused, reference.clone()),
                    }
                }
                Command::Detached => {
                    socket.context().rest();
                    guard.commands.shrink();
                    Ok(())
                }
                Command::InvalidEvent => Err(Stop::from("an event that is no string")),
                Command::Leave { reference } => return End::Left(reference.clone()),
            };
            if let Err(stop) = handled {
                return End::Stopped(stop, None);
            }
        }
    }

    /// Ends a channel that came to its end without a panic.
    async fn end(self, end: End) {
        // The last of these is dropped first.
        let Self { mut guard, socket, mut channel, .. } = self;
        let context = Arc::clone(&guard.context);
        let (reason, reply, reference) = match end {
            End::Left(reference) => {
                context.reply_to_join(&reference, &Reply::ack());
                (Reason::Left, Reply::None, None)
            }
            End::Refused(refused, reference) => {
                refused.log(&context.topic);
                context.reply_to_join(&reference, &Reply::Error(refused.response));
                (Reason::Closed, Reply::None, None)
            }
            End::Closed => (Reason::Closed, Reply::None, None),
            End::Stopped(Stop(Why::Normal(reply)), reference) => (Reason::Normal, reply, reference),
            End::Stopped(Stop(Why::Crash(error)), _) => {
                tracing::error!(topic = %context.topic, %error, "channel crashed");
                return;
            }
        };
        if let Some(reference) = reference {
            context.reply(&reference, &reply);
        }
        channel.terminate(reason, &socket).await;
        // Before the client can hear of the end and join again.
        drop(channel);
        match reason {
            Reason::Closed => guard.finish(|_| {}),
            Reason::Left | Reason::Normal => {
                guard.finish(|context| context.end(&context.sent_join_ref, "phx_close", "{}"));
            }
        }
    }
}
