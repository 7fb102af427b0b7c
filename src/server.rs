//! The task behind a joined channel: join, then one mail after the other, then the end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project::pin_project;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tower_channels_transports::websocket;

use crate::channel::{Channel, Link, Socket};
use crate::mailbox::{Letters, Mail, Mailbox};
use crate::message::Ref;
use crate::payload::Payload;
use crate::pubsub::Subscriber;
use crate::reply::{Joined, Reason, Refused, Reply, Result, Stop, Why};

/// A join that matched a route.
pub(crate) struct Join<A> {
    pub(crate) link: Link<A>,
    pub(crate) letters: Letters,
    pub(crate) reference: Ref,
    pub(crate) payload: Payload,
    pub(crate) timeout: Duration,
    /// The connection that the join came over.
    pub(crate) attachment: u64,
    pub(crate) seat: Seat,
    pub(crate) replaced: Option<Replaced>,
}

/// The place of a client's channel on its topic, which passes to the channel that replaces it: a
/// channel begins once it has the lock, and holds it until nothing of it is left. It is tokio's,
/// since it is waited for.
pub(crate) type Seat = Arc<tokio::sync::Mutex<()>>;

/// The channel whose topic is joined again.
pub(crate) struct Replaced {
    pub(crate) mailbox: Mailbox,
    pub(crate) task: JoinHandle<()>,
    pub(crate) sent_join_ref: Ref,
}

/// Starts a channel. The task answers the join itself, so that a slow one holds up nothing.
pub(crate) fn start<C: Channel>(join: Join<C::Assigns>) -> JoinHandle<()> {
    let Join { link, letters, reference, payload, timeout, attachment, seat, replaced } = join;
    let stage = Stage::Joining { reference, attachment, replaced: replaced.map(Box::new) };
    // Made before the task, so that it does its work even if the task never runs.
    let guard = Guard { link: Arc::new(link), letters, stage, seat: None };
    tokio::spawn(Speaking(run(Box::pin(begin::<C>(guard, payload, timeout, seat)))))
}

/// The task of a channel: what it tells its own client is written at the end of its turn.
#[pin_project]
struct Speaking<F>(#[pin] F);

impl<F: Future> Future for Speaking<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        websocket::turn(|| self.project().0.poll(cx))
    }
}

/// A channel that is joined. Its parts are dropped in this order: the channel before the guard speaks of
/// the end and gives up the seat.
struct Life<C: Channel> {
    channel: C,
    socket: Socket<C>,
    /// What the join was answered, for those that come after it.
    response: Payload,
    guard: Guard<C::Assigns>,
}

/// A task is as large as the largest of its phases, for as long as it lives. This one waits for mail
/// most of its life: so the phases that come once are in boxes of their own.
async fn run<C: Channel>(beginning: Pin<Box<impl Future<Output = Option<Life<C>>>>>) {
    let Some(mut life) = beginning.await else { return };
    let end = life.serve().await;
    Box::pin(life.end(end)).await;
}

/// Joins. `None` if there is nothing more to come.
async fn begin<C: Channel>(
    mut guard: Guard<C::Assigns>,
    payload: Payload,
    timeout: Duration,
    seat: Seat,
) -> Option<Life<C>> {
    if let Stage::Joining { replaced: Some(old), .. } = &guard.stage {
        old.task.abort();
    }
    guard.seat = Some(seat.lock_owned().await);
    let socket = Socket::<C>::new(Arc::clone(&guard.link));
    let joined = {
        let join = C::join(&guard.link.topic, payload, &socket);
        tokio::time::timeout(timeout, join).await
    };
    let joined = joined.unwrap_or_else(|_| Err(Refused::reason("join timed out")));
    let (channel, response) = guard.joined::<C>(joined)?;
    // A state that `join` asked for came too early, if it came already.
    guard.link.refresh_presence();
    let mut life = Life { channel, socket, response, guard };
    if let Err(stop) = life.channel.after_join(&life.socket).await {
        Box::pin(life.end(End::Stopped(stop, None))).await;
        return None;
    }
    Some(life)
}

/// Why the loop of a channel ended.
enum End {
    /// The client left, and this is the ref of its leave.
    Left(Ref),
    /// The client is gone.
    Closed,
    /// The client may not resume, and this is the ref of its join.
    Refused(Refused, Ref),
    /// A callback stopped, and this is the ref of the push that it was given.
    Stopped(Stop, Option<Ref>),
}

impl<C: Channel> Life<C> {
    /// Handles one mail after the other. Each stays where it is meanwhile: what is moved out of it
    /// would have a place of its own in the task.
    async fn serve(&mut self) -> End {
        let Self { channel, socket, response, guard } = self;
        loop {
            // A channel that catches up leaves others their turn: its client must be able to read.
            tokio::task::coop::consume_budget().await;
            let Some(mut mail) = guard.letters.next().await else { return End::Closed };
            let handled = match &mut mail {
                Mail::In { reference, event, payload } => {
                    socket.set_reference(Some(reference.clone()));
                    let payload = std::mem::replace(payload, Payload::EMPTY);
                    let handled = channel.handle_in(event, payload, socket).await;
                    socket.set_reference(None);
                    match handled {
                        Ok(reply) => {
                            socket.link().reply(reference, &reply);
                            Ok(())
                        }
                        Err(stop) => return End::Stopped(stop, Some(reference.clone())),
                    }
                }
                Mail::Out(broadcast) => {
                    channel.handle_out(broadcast.event(), broadcast.payload().clone(), socket).await
                }
                Mail::Info(info) => match info.downcast_mut().and_then(Option::take) {
                    Some(info) => channel.handle_info(info, socket).await,
                    None => Ok(()),
                },
                Mail::Resume { reference, payload, attachment } => {
                    guard.stage = Stage::Joined { resuming: Some(reference.clone()) };
                    let payload = std::mem::replace(payload, Payload::EMPTY);
                    let resumed = Box::pin(channel.resume(payload, socket)).await;
                    guard.stage = Stage::Joined { resuming: None };
                    match resumed {
                        Ok(changed) => {
                            let response = changed.unwrap_or_else(|| response.clone());
                            socket.link().open(*attachment, reference, response);
                            socket.link().refresh_presence();
                            metrics::counter!("tower_channels_channels_resumed").increment(1);
                            Ok(())
                        }
                        Err(refused) => return End::Refused(refused, reference.clone()),
                    }
                }
                Mail::Rest => {
                    socket.link().rest();
                    guard.letters.shrink();
                    Ok(())
                }
                Mail::Nonsense => Err(Stop::from("an event that is no string")),
                Mail::Leave { reference } => return End::Left(reference.clone()),
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
        let link = Arc::clone(&guard.link);
        let (reason, reply, reference) = match end {
            End::Left(reference) => {
                link.reply_to_join(&reference, &Reply::ack());
                (Reason::Left, Reply::None, None)
            }
            End::Refused(refused, reference) => {
                refused.log(&link.topic);
                link.reply_to_join(&reference, &Reply::Error(refused.response));
                (Reason::Closed, Reply::None, None)
            }
            End::Closed => (Reason::Closed, Reply::None, None),
            End::Stopped(Stop(Why::Normal(reply)), reference) => (Reason::Normal, reply, reference),
            End::Stopped(Stop(Why::Crash(error)), _) => {
                tracing::error!(topic = %link.topic, %error, "channel crashed");
                return;
            }
        };
        if let Some(reference) = reference {
            link.reply(&reference, &reply);
        }
        channel.terminate(reason, &socket).await;
        // Before the client can hear of the end and join again.
        drop(channel);
        match reason {
            Reason::Closed => guard.over(|_| {}),
            Reason::Left | Reason::Normal => {
                guard.over(|link| link.end(&link.sent_join_ref, "phx_close", "{}"));
            }
        }
    }
}

/// Ends the channel in order, whichever way the task ends: return, panic, or abort.
struct Guard<A> {
    link: Arc<Link<A>>,
    letters: Letters,
    stage: Stage,
    /// The last to go, for the next join of this topic begins then.
    seat: Option<OwnedMutexGuard<()>>,
}

enum Stage {
    /// The join is not answered.
    Joining { reference: Ref, attachment: u64, replaced: Option<Box<Replaced>> },
    /// What ends now has crashed. There is the ref of the join that [`Channel::resume`] is to answer.
    Joined { resuming: Option<Ref> },
    /// The client has been told, or is gone.
    Over,
}

impl<A> Guard<A> {
    /// Answers the join, and subscribes in the same moment: nothing that is broadcast comes before
    /// the answer, and nothing after it is missed.
    fn joined<C: Channel<Assigns = A>>(
        &mut self,
        joined: Result<Joined<C>, Refused>,
    ) -> Option<(C, Payload)> {
        let Joined { channel, response } = match joined {
            Ok(joined) => joined,
            Err(refused) => {
                refused.log(&self.link.topic);
                self.refuse(&refused.response);
                return None;
            }
        };
        let Stage::Joining { reference, attachment, replaced } =
            std::mem::replace(&mut self.stage, Stage::Joined { resuming: None })
        else {
            return None;
        };
        let link = &self.link;
        let subscriber = Subscriber {
            client: link.client.clone(),
            mailbox: link.mailbox.clone(),
            intercept: C::INTERCEPT,
            rest: None,
        };
        let answer = || {
            let response = response.clone();
            link.mailbox.unless_over(|| link.open(attachment, &reference, response));
        };
        link.subscribe(Some(link.pubsub.subscribe(&link.topic, subscriber, answer)));
        close(link, replaced);
        Some((channel, response))
    }

    /// Answers the join with an error, and whatever came after it as though there had been none.
    fn refuse(&mut self, response: &Payload) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let Stage::Joining { reference, replaced, .. } = stage else { return };
        let link = &self.link;
        let answer = || link.reply_to_join(&reference, &Reply::Error(response.clone()));
        let waiting = self.letters.end(answer);
        close(link, replaced);
        for mail in waiting {
            match mail {
                Mail::In { reference, .. } => self.link.reply_unmatched(&reference),
                // In a kept session the client joined again meanwhile.
                Mail::Resume { reference, .. } => {
                    self.link.reply_to_join(&reference, &Reply::Error(response.clone()));
                }
                Mail::Leave { reference } => self.link.reply_to_join(&reference, &Reply::ack()),
                Mail::Out(_) | Mail::Info(_) | Mail::Rest | Mail::Nonsense => {}
            }
        }
    }

    /// Takes no more broadcasts and no more mail, and tells the client of the end.
    fn over(&mut self, last_words: impl FnOnce(&Link<A>)) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let resuming = if let Stage::Joined { resuming } = stage { resuming } else { None };
        let link = &self.link;
        link.wake();
        link.subscribe(None);
        let waiting = self.letters.end(|| last_words(link));
        // A client that has returned hears nothing of its channels until their joins are answered.
        let joins = waiting.into_iter().filter_map(|mail| match mail {
            Mail::Resume { reference, .. } => Some(reference),
            _ => None,
        });
        for reference in resuming.into_iter().chain(joins) {
            let crashed = Refused::from("join crashed").response;
            link.reply_to_join(&reference, &Reply::Error(crashed));
        }
    }
}

impl<A> Drop for Guard<A> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(topic = %self.link.topic, "channel panicked");
        }
        self.say_the_end();
        self.link.untrack_all();
        self.link.client.outbox.end_lane();
    }
}

impl<A> Guard<A> {
    fn say_the_end(&mut self) {
        match self.stage {
            Stage::Over => {}
            Stage::Joining { .. } => self.refuse(&Refused::from("join crashed").response),
            Stage::Joined { .. } => self.over(|link| {
                let payload = r#"{"reason":"channel_crash"}"#;
                link.end(&link.sent_join_ref, "phx_error", payload);
            }),
        }
    }
}

/// Says that the replaced channel is closed, once the join that replaced it is answered.
fn close<A>(link: &Link<A>, replaced: Option<Box<Replaced>>) {
    if let Some(Replaced { mailbox, task, sent_join_ref }) = replaced.map(|replaced| *replaced) {
        task.abort();
        mailbox.silence();
        link.end(&sent_join_ref, "phx_close", "{}");
    }
}
