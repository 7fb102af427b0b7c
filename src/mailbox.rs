//! The bounded queue in front of a channel's task.
//!
//! Only the socket holds the [`Mailbox`]; dropping it tells the task that the client is gone, after
//! everything that waits. All others hold an [`Address`], which keeps nothing alive.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use smol_str::SmolStr;
use tower_channels_transports::Backlog;

use crate::message::Ref;
use crate::payload::Payload;
use crate::pubsub::Broadcast;

/// What may reach a channel's task.
pub(crate) enum Mail {
    /// A push of the client.
    In { reference: Ref, event: SmolStr, payload: Payload },
    /// A broadcast that the channel intercepts.
    Out(Arc<Broadcast>),
    /// What the application sent with `Handle::send`: a `Channel::Info`, as an `Option`.
    Info(Box<dyn Any + Send>),
    /// The client joins again in a kept session.
    Resume { reference: Ref, payload: Payload, attachment: u64 },
    /// The client is away, and its session is kept.
    Rest,
    /// The client leaves.
    Leave { reference: Ref },
    /// The client sent what no handler could be given.
    Nonsense,
}

/// Why [`Handle::send`](crate::Handle::send) was in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// The channel has ended, or ends once it has handled what waits.
    Ended,
    /// Too much waits already.
    Full,
}

/// The end that keeps the channel alive; dropping it closes the mailbox behind what waits in it.
pub(crate) struct Mailbox(Address);

/// A way to send mail. A cheap clone.
#[derive(Clone)]
pub(crate) struct Address(Arc<Shared>);

/// The channel task's end; dropping it refuses all further mail.
pub(crate) struct Letters(Arc<Shared>);

/// The lock guards the queue for a few instructions and is never held across an await.
struct Shared(Mutex<State>);

struct State {
    queue: VecDeque<Mail>,
    /// What waits, by [`Mail::cost`].
    backlog: Backlog,
    end: End,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Mail is taken.
    Open,
    /// No more mail is taken, but what waits is still handled.
    Closed,
    /// Another join has taken this channel's place.
    Replaced,
    /// The task has ended.
    Over,
}

/// A mailbox in which `limit` bytes may wait.
pub(crate) fn mailbox(limit: usize) -> (Mailbox, Letters) {
    let state =
        State { queue: VecDeque::new(), backlog: Backlog::new(limit), end: End::Open, waker: None };
    let shared = Arc::new(Shared(Mutex::new(state)));
    (Mailbox(Address(Arc::clone(&shared))), Letters(shared))
}

impl Mailbox {
    pub(crate) fn address(&self) -> &Address {
        &self.0
    }

    /// Marks the channel as replaced. `false` if it has ended on its own already.
    pub(crate) fn replace(&self) -> bool {
        let mut state = self.0.0.lock();
        let alive = state.end != End::Over;
        if alive {
            state.end = End::Replaced;
        }
        alive
    }

    /// Lets a replaced channel say no more, even if its task has not ended yet.
    pub(crate) fn silence(&self) {
        self.0.0.lock().end = End::Over;
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        if state.end == End::Open {
            state.end = End::Closed;
            State::wake(state);
        }
    }
}

impl Address {
    /// Puts a mail at the end of the queue.
    pub(crate) fn send(&self, mail: Mail) -> Result<(), Undelivered> {
        let mut state = self.0.lock();
        if state.end != End::Open {
            return Err(Undelivered::Ended);
        }
        if !state.backlog.add(mail.cost()) {
            return Err(Undelivered::Full);
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

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "the channel has ended",
            Self::Full => "too much waits for the channel",
        })
    }
}

impl std::error::Error for Undelivered {}

impl Letters {
    /// The next mail, or `None` once the client is gone.
    ///
    /// Cancel safety: nothing is taken until it is returned.
    pub(crate) async fn next(&mut self) -> Option<Mail> {
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
            // A replaced channel waits for nothing but to be cancelled.
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

    /// Refuses further mail and hands out what waited. The `last_words` are said before anyone can
    /// see that it is over. If another join took over nothing is said, and nothing handed out: that
    /// one speaks of the end.
    pub(crate) fn end(&mut self, last_words: impl FnOnce()) -> VecDeque<Mail> {
        let mut state = self.0.lock();
        let mut waiting = std::mem::take(&mut state.queue);
        let waker = state.waker.take();
        let is_own = matches!(state.end, End::Open | End::Closed);
        state.end = End::Over;
        if is_own {
            last_words();
        }
        drop(state);
        drop(waker);
        if !is_own {
            waiting.clear();
        }
        waiting
    }
}

impl Drop for Letters {
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

impl Mail {
    /// What it counts against the limit.
    fn cost(&self) -> usize {
        let payload = match self {
            Self::In { payload, .. } | Self::Resume { payload, .. } => payload.len(),
            Self::Out(broadcast) => broadcast.payload().len(),
            Self::Info(_) | Self::Rest | Self::Leave { .. } | Self::Nonsense => 0,
        };
        size_of::<Self>() + payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(size: usize) -> Mail {
        let payload = Payload::binary(vec![0; size]);
        Mail::In { reference: Ref::NULL, event: "e".into(), payload }
    }

    #[tokio::test]
    async fn what_waits_is_handled_after_the_socket_is_gone() {
        let (mailbox, mut letters) = mailbox(1000);
        mailbox.address().send(mail(1)).expect("open");
        drop(mailbox);
        assert!(letters.next().await.is_some());
        assert!(letters.next().await.is_none());
    }

    #[tokio::test]
    async fn a_full_mailbox_refuses_until_it_is_read() {
        let (mailbox, mut letters) = mailbox(1000);
        mailbox.address().send(mail(2000)).expect("one always fits");
        mailbox.address().send(mail(1000)).expect("and what may wait behind it");
        assert_eq!(mailbox.address().send(mail(1)), Err(Undelivered::Full));
        letters.next().await;
        letters.next().await;
        mailbox.address().send(mail(1)).expect("there is room again");
    }

    #[test]
    fn an_ended_channel_takes_no_mail() {
        let (mailbox, letters) = mailbox(1000);
        drop(letters);
        assert!(mailbox.address().is_over());
        assert_eq!(mailbox.address().send(mail(1)), Err(Undelivered::Ended));
        assert!(!mailbox.replace());
    }

    #[test]
    fn a_channel_has_last_words_unless_it_was_replaced() {
        for replaced in [false, true] {
            let (mailbox, mut letters) = mailbox(1000);
            mailbox.address().send(mail(1)).expect("open");
            assert!(!replaced || mailbox.replace());
            let mut said = false;
            let waiting = letters.end(|| said = true);
            assert_eq!((said, waiting.len()), (!replaced, usize::from(!replaced)));
        }
    }

    #[test]
    fn a_channel_that_is_over_or_silenced_says_nothing_more() {
        let says = |mailbox: &Mailbox| {
            let mut said = false;
            mailbox.address().unless_over(|| said = true);
            said
        };
        let (first, letters) = mailbox(1000);
        let (second, _letters) = mailbox(1000);
        assert!(says(&first) && says(&second));
        drop(letters);
        second.silence();
        assert!(!says(&first) && !says(&second));
    }
}
