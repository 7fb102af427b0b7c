//! The bounded queue in front of a channel's task.
//!
//! Only the socket holds the [`Owner`]; dropping it tells the task that the client is gone, after
//! everything that waits. All others hold an [`Sender`], which keeps nothing alive.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use smol_str::SmolStr;
use tower_channels_transports::ByteBudget;

use crate::message::Ref;
use crate::payload::Payload;
use crate::pubsub::Broadcast;

/// What may reach a channel's task.
pub(crate) enum Command {
    /// A push of the client.
    Push { reference: Ref, event: SmolStr, payload: Payload },
    /// A broadcast that the channel intercepts.
    Broadcast(Arc<Broadcast>),
    /// What the application sent with `Handle::send`: a `Channel::Info`, as an `Option`.
    Info(Box<dyn Any + Send>),
    /// The client joins again in a kept session.
    Resume { reference: Ref, payload: Payload, epoch: u64 },
    /// The client is away, and its session is resumable.
    Detached,
    /// The client leaves.
    Leave { reference: Ref },
    /// The client sent what no handler could be given.
    InvalidEvent,
}

/// Why [`Handle::send`](crate::Handle::send) was in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The channel has ended, or ends once it has handled what waits.
    Closed,
    /// Too much waits already.
    Full,
}

/// The end that keeps the channel alive; dropping it closes the mailbox behind what waits in it.
pub(crate) struct Owner(Sender);

/// A way to send mail. A cheap clone.
#[derive(Clone)]
pub(crate) struct Sender(Arc<Shared>);

/// The channel task's end; dropping it refuses all further mail.
pub(crate) struct Receiver(Arc<Shared>);

/// The lock guards the queue for a few instructions and is never held across an await.
struct Shared(Mutex<State>);

struct State {
    queue: VecDeque<Command>,
    /// What waits, by [`Command::cost`].
    backlog: ByteBudget,
    end: End,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Commands are taken.
    Open,
    /// No more mail is taken, but what waits is still handled.
    Closed,
    /// Another join has taken this channel's place.
    Replaced,
    /// The task has ended.
    Over,
}

/// A mailbox in which `limit` bytes may wait.
pub(crate) fn channel(limit: usize) -> (Owner, Receiver) {
    let state = State {
        queue: VecDeque::new(),
        backlog: ByteBudget::new(limit),
        end: End::Open,
        waker: None,
    };
    let shared = Arc::new(Shared(Mutex::new(state)));
    (Owner(Sender(Arc::clone(&shared))), Receiver(shared))
}

impl Owner {
    pub(crate) fn sender(&self) -> &Sender {
        &self.0
    }

    /// Marks the channel as previous. `false` if it has ended on its own already.
    pub(crate) fn replace(&self) -> bool {
        let mut state = self.0.0.lock();
        let alive = state.end != End::Over;
        if alive {
            state.end = End::Replaced;
        }
        alive
    }

    /// Lets a previous channel say no more, even if its task has not ended yet.
    pub(crate) fn mute(&self) {
        self.0.0.lock().end = End::Over;
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        if state.end == End::Open {
            state.end = End::Closed;
            State::wake(state);
        }
    }
}

impl Sender {
    /// Puts a mail at the end of the queue.
    pub(crate) fn send(&self, mail: Command) -> Result<(), SendError> {
        let mut state = self.0.lock();
        if state.end != End::Open {
            return Err(SendError::Closed);
        }
        if !state.backlog.add(mail.cost()) {
            return Err(SendError::Full);
        }
        state.queue.push_back(mail);
        State::wake(state);
        Ok(())
    }

    /// Whether both lead to the same channel.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the channel has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.0.lock().end == End::Over
    }

    /// Runs `say` unless the channel has ended: nothing may follow its last words. The lock is held
    /// meanwhile, so that they cannot be said in between.
    pub(crate) fn unless_over(&self, say: impl FnOnce()) {
        let state = self.0.lock();
        if state.end != End::Over {
            say();
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the channel has ended",
            Self::Full => "too much waits for the channel",
        })
    }
}

impl std::error::Error for SendError {}

impl Receiver {
    /// The next mail, or `None` once the client is gone.
    ///
    /// Cancel safety: nothing is taken until it is returned.
    pub(crate) async fn next(&mut self) -> Option<Command> {
        poll_fn(|cx| {
            let mut state = self.0.lock();
            if let Some(mail) = state.queue.pop_front() {
                state.backlog.remove(mail.cost());
                if state.queue.is_empty() && state.queue.capacity() > 4 {
                    state.queue = VecDeque::new();
                }
                return Poll::Ready(Some(mail));
            }
            if state.end == End::Closed {
                return Poll::Ready(None);
            }
            // A previous channel waits for nothing but to be cancelled.
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Gives back the room in which mail waited, if none does.
    pub(crate) fn shrink(&mut self) {
        let mut state = self.0.lock();
        if state.queue.is_empty() {
            state.queue = VecDeque::new();
        }
    }

    /// Refuses further mail and hands out what waited. The `on_exit` are said before anyone can
    /// see that it is over. If another join took over nothing is said, and nothing handed out: that
    /// one speaks of the end.
    pub(crate) fn end(&mut self, on_exit: impl FnOnce()) -> VecDeque<Command> {
        let mut state = self.0.lock();
        let mut waiting = std::mem::take(&mut state.queue);
        let waker = state.waker.take();
        let is_own = matches!(state.end, End::Open | End::Closed);
        state.end = End::Over;
        if is_own {
            on_exit();
        }
        drop(state);
        drop(waker);
        if !is_own {
            waiting.clear();
        }
        waiting
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end(|| {});
    }
}

impl Shared {
    /// Nothing panics while holding the lock, so poison has no meaning here.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(mut state: MutexGuard<'_, Self>) {
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Command {
    /// What it counts against the limit.
    fn cost(&self) -> usize {
        let payload = match self {
            Self::Push { payload, .. } | Self::Resume { payload, .. } => payload.len(),
            Self::Broadcast(broadcast) => broadcast.payload().len(),
            Self::Info(_) | Self::Detached | Self::Leave { .. } | Self::InvalidEvent => 0,
        };
        size_of::<Self>() + payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(size: usize) -> Command {
        let payload = Payload::binary(vec![0; size]);
        Command::Push { reference: Ref::NULL, event: "e".into(), payload }
    }

    #[tokio::test]
    async fn what_waits_is_handled_after_the_socket_is_gone() {
        let (mailbox, mut commands) = channel(1000);
        mailbox.sender().send(mail(1)).expect("open");
        drop(mailbox);
        assert!(commands.next().await.is_some());
        assert!(commands.next().await.is_none());
    }

    #[tokio::test]
    async fn a_full_mailbox_refuses_until_it_is_read() {
        let (mailbox, mut commands) = channel(1000);
        mailbox.sender().send(mail(2000)).expect("one always fits");
        mailbox.sender().send(mail(1000)).expect("and what may wait behind it");
        assert_eq!(mailbox.sender().send(mail(1)), Err(SendError::Full));
        commands.next().await;
        commands.next().await;
        mailbox.sender().send(mail(1)).expect("there is room again");
    }

    #[test]
    fn an_ended_channel_takes_no_mail() {
        let (mailbox, commands) = channel(1000);
        drop(commands);
        assert!(mailbox.sender().is_over());
        assert_eq!(mailbox.sender().send(mail(1)), Err(SendError::Closed));
        assert!(!mailbox.replace());
    }

    #[test]
    fn a_channel_has_last_words_unless_it_was_replaced() {
        for previous in [false, true] {
            let (mailbox, mut commands) = channel(1000);
            mailbox.sender().send(mail(1)).expect("open");
            assert!(!previous || mailbox.replace());
            let mut said = false;
            let waiting = commands.end(|| said = true);
            assert_eq!((said, waiting.len()), (!previous, usize::from(!previous)));
        }
    }

    #[test]
    fn a_channel_that_is_over_or_silenced_says_nothing_more() {
        let says = |mailbox: &Owner| {
            let mut said = false;
            mailbox.sender().unless_over(|| said = true);
            said
        };
        let (first, commands) = channel(1000);
        let (second, _letters) = channel(1000);
        assert!(says(&first) && says(&second));
        drop(commands);
        second.mute();
        assert!(!says(&first) && !says(&second));
    }
}
