//! The bounded queue in front of a channel's task, and the state of its end.
//!
//! Only the socket holds the [`Owner`]; dropping it tells the task that the client is gone, after
//! everything that waits. All others hold a [`Sender`], which keeps nothing alive.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use parking_lot::Mutex;
use smol_str::SmolStr;
use tower_channels_transports::ByteBudget;

use crate::message::Ref;
use crate::payload::{ALLOCATION, Payload, heap_size};
use crate::pubsub::broadcast::Broadcast;
use crate::pubsub::subscriber::{Inbox, Undelivered};

/// What a channel's task is to handle.
pub(crate) enum Command {
    /// A push from the client.
    Push { reference: Ref, event: SmolStr, payload: Payload },
    /// A broadcast that the channel intercepts.
    Broadcast(Arc<Broadcast>),
    /// A `Channel::Info` from `Handle::send`, as a `Guarded`.
    Info(Box<dyn Any + Send>),
    /// The client has joined again in a resumable session.
    Resume { reference: Ref, payload: Payload, epoch: u64 },
    /// The client is away, and its session is resumable.
    Detached,
    /// The client was taken for away, and goes on without joining again.
    Reattached,
    /// The client leaves.
    Leave { reference: Ref },
    /// The client sent an event that is not a string.
    InvalidEvent,
}

/// Error returned by [`Handle::send`](crate::Handle::send).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The channel has ended, or will end once it has handled what waits.
    Closed,
    /// Too much waits for the channel already.
    Full,
}

/// The handle that keeps the channel alive. Dropping it closes the mailbox behind the commands that
/// wait.
pub(crate) struct Owner(Sender);

/// Sends commands to a channel. A cheap clone.
#[derive(Clone)]
pub(crate) struct Sender(Arc<Mailbox>);

/// The end of the channel's task. Dropping it ends the channel silently.
pub(crate) struct Receiver(Arc<Mailbox>);

struct Mailbox {
    /// Guards the queue, and the order between a channel's end and what other tasks send to its
    /// client in its name: nothing follows the end. The channel's own task sends without it, as it
    /// alone ends the channel, so handling a push takes it twice, to send the command and to
    /// receive it. Held for a few instructions, and while one message is put into an outbox.
    state: Mutex<State>,
    /// Whether the channel was abandoned; see [`Owner::abandon`].
    is_muted: AtomicBool,
}

struct State {
    queue: VecDeque<Command>,
    /// What waits, by [`Command::cost`].
    budget: ByteBudget,
    phase: Phase,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Commands are accepted.
    Open,
    /// The owner is gone: what waits is still handled, and then the channel ends.
    Closed,
    /// Another join has taken the channel's place, and will notify the client of its end.
    Replaced,
    /// The join that took the channel's place has failed before the channel ended.
    Abandoned,
    /// The channel has ended.
    Over,
}

/// Who notifies the client of a channel's end, from [`Receiver::end`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The channel, of its own reason.
    Own,
    /// The join that replaced it.
    Replaced,
    /// The channel, of its replacement by a join that has failed.
    Abandoned,
}

/// Creates a mailbox in which `limit` bytes may wait.
pub(crate) fn channel(limit: usize) -> (Owner, Receiver) {
    let state = State {
        queue: VecDeque::new(),
        budget: ByteBudget::new(limit),
        phase: Phase::Open,
        waker: None,
    };
    let mailbox = Mailbox { state: Mutex::new(state), is_muted: AtomicBool::new(false) };
    let mailbox = Arc::new(mailbox);
    (Owner(Sender(Arc::clone(&mailbox))), Receiver(mailbox))
}

impl Owner {
    pub(crate) fn sender(&self) -> &Sender {
        &self.0
    }

    /// Lets another join take the channel's place. Returns `false` if the channel has ended
    /// already.
    pub(crate) fn replace(&self) -> bool {
        let mut state = self.0.0.state.lock();
        let is_alive = state.phase != Phase::Over;
        if is_alive {
            state.phase = Phase::Replaced;
        }
        is_alive
    }

    /// Lets a replaced channel notify its client of its end itself, because the join that replaced
    /// it ends first; until then it sends nothing more. Returns `false` if the channel has ended
    /// already.
    pub(crate) fn abandon(&self) -> bool {
        let mut state = self.0.0.state.lock();
        let is_alive = state.phase != Phase::Over;
        if is_alive {
            state.phase = Phase::Abandoned;
            self.0.0.is_muted.store(true, Ordering::Relaxed);
        }
        is_alive
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = self.0.0.state.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Closed;
            let waker = state.waker.take();
            drop(state);
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl Sender {
    /// Appends a command to the queue.
    pub(crate) fn send(&self, command: Command) -> Result<(), SendError> {
        let waker = self.0.enqueue(command)?;
        waker.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// The mailbox as an inbox for broadcasts.
    pub(crate) fn inbox(&self) -> Arc<dyn Inbox> {
        Arc::clone(&self.0) as Arc<dyn Inbox>
    }

    /// Returns whether the channel has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.0.state.lock().phase == Phase::Over
    }

    /// Returns whether the channel's own task may not send anything more.
    pub(crate) fn is_muted(&self) -> bool {
        self.0.is_muted.load(Ordering::Relaxed)
    }

    /// Runs `work` under the lock unless the channel has ended or is muted, and so before its end.
    /// It must not call foreign code, such as wakers.
    pub(crate) fn while_alive<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        let state = self.0.state.lock();
        let is_alive = !matches!(state.phase, Phase::Over | Phase::Abandoned);
        is_alive.then(work)
    }
}

impl Receiver {
    /// Receives the next command, or `None` once the client is gone.
    ///
    /// Cancel safety: no command is lost.
    pub(crate) async fn recv(&mut self) -> Option<Command> {
        poll_fn(|cx| {
            let mut state = self.0.state.lock();
            if let Some(command) = state.queue.pop_front() {
                state.budget.release(command.cost());
                if state.queue.is_empty() && state.queue.capacity() > 4 {
                    state.queue = VecDeque::new();
                }
                return Poll::Ready(Some(command));
            }
            if state.phase == Phase::Closed {
                return Poll::Ready(None);
            }
            // A replaced channel waits for nothing but its cancellation.
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                state.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Releases the memory of an empty queue.
    pub(crate) fn shrink(&mut self) {
        let mut state = self.0.state.lock();
        if state.queue.is_empty() {
            state.queue = VecDeque::new();
        }
    }

    /// Ends the channel, and returns the commands that waited, or none if the channel was replaced or
    /// abandoned. `notify` puts the end into the outbox, before anybody can see that the
    /// channel has ended. It runs under the lock and must not call foreign code.
    pub(crate) fn end<R>(&mut self, notify: impl FnOnce(Ending) -> R) -> (VecDeque<Command>, R) {
        let mut state = self.0.state.lock();
        let mut waiting = std::mem::take(&mut state.queue);
        let waker = state.waker.take();
        let ending = match state.phase {
            Phase::Open | Phase::Closed => Ending::Own,
            Phase::Replaced | Phase::Over => Ending::Replaced,
            Phase::Abandoned => Ending::Abandoned,
        };
        state.phase = Phase::Over;
        let notified = notify(ending);
        drop(state);
        drop(waker);
        if ending != Ending::Own {
            waiting.clear();
        }
        (waiting, notified)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end(|_| ());
    }
}

impl Mailbox {
    /// Appends a command, and returns the task to wake once no lock is held.
    fn enqueue(&self, command: Command) -> Result<Option<Waker>, SendError> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Err(SendError::Closed);
        }
        if !state.budget.try_acquire(command.cost()) {
            return Err(SendError::Full);
        }
        state.queue.push_back(command);
        Ok(state.waker.take())
    }
}

impl Inbox for Mailbox {
    fn deliver(&self, broadcast: &Arc<Broadcast>) -> Result<Option<Waker>, Undelivered> {
        self.enqueue(Command::Broadcast(Arc::clone(broadcast))).map_err(|_| Undelivered)
    }
}

impl Command {
    /// The bytes that it holds: its place in the queue, which may be twice as large as what waits in
    /// it, and what it points to.
    fn cost(&self) -> usize {
        let heap = match self {
            Self::Push { reference, event, payload } => {
                reference.heap_size() + heap_size(event) + payload.heap_size()
            }
            Self::Resume { reference, payload, .. } => reference.heap_size() + payload.heap_size(),
            Self::Broadcast(broadcast) => broadcast.payload().len(),
            Self::Info(info) => size_of_val(&**info) + ALLOCATION,
            Self::Leave { reference } => reference.heap_size(),
            Self::Detached | Self::Reattached | Self::InvalidEvent => 0,
        };
        2 * size_of::<Self>() + heap
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the channel has ended",
            Self::Full => "the channel's mailbox is full",
        })
    }
}

impl std::error::Error for SendError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(size: usize) -> Command {
        let payload = Payload::binary(vec![0; size]);
        Command::Push { reference: Ref::NULL, event: "e".into(), payload }
    }

    #[tokio::test]
    async fn what_waits_is_handled_after_the_socket_is_gone() {
        let (mailbox, mut commands) = channel(1000);
        mailbox.sender().send(push(1)).expect("open");
        drop(mailbox);
        assert!(commands.recv().await.is_some());
        assert!(commands.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_full_mailbox_refuses_commands_until_it_is_read() {
        let (mailbox, mut commands) = channel(1000);
        mailbox.sender().send(push(2000)).expect("one always fits");
        mailbox.sender().send(push(1000)).expect("and what may wait behind it");
        assert_eq!(mailbox.sender().send(push(1)), Err(SendError::Full));
        commands.recv().await;
        commands.recv().await;
        mailbox.sender().send(push(1)).expect("there is room again");
    }

    #[test]
    fn a_full_mailbox_holds_as_much_as_its_limit() {
        const LIMIT: usize = 1 << 20;
        let text = |size| SmolStr::from("x".repeat(size));
        let push = |size, reference: &str| {
            let reference = Ref::from_json(reference).expect("a ref");
            Command::Push { reference, event: text(size), payload: Payload::binary(vec![0; size]) }
        };
        let long_ref = "7".repeat(200);
        let commands: [&dyn Fn() -> Command; 6] = [
            &|| push(0, "1"),
            &|| push(200, "1"),
            &|| push(200, &long_ref),
            &|| Command::Leave { reference: Ref::from_json(&long_ref).expect("a ref") },
            &|| Command::Info(Box::new(Some([0_u8; 5000]))),
            &|| Command::Detached,
        ];
        for (kind, command) in commands.iter().enumerate() {
            let (mailbox, _commands) = channel(LIMIT);
            let held =
                allocation_counter::measure(|| while mailbox.sender().send(command()).is_ok() {});
            assert!(held.bytes_current <= (LIMIT + LIMIT / 4) as i64, "{kind}: {held:?}");
            assert!(held.bytes_current >= (LIMIT / 2) as i64, "{kind}: {held:?}");
        }
    }

    #[test]
    fn an_ended_channel_accepts_no_commands() {
        let (mailbox, commands) = channel(1000);
        drop(commands);
        assert!(mailbox.sender().is_over());
        assert_eq!(mailbox.sender().send(push(1)), Err(SendError::Closed));
        assert!(!mailbox.replace() && !mailbox.abandon());
    }

    #[test]
    fn a_channel_notifies_its_client_of_its_end_unless_its_successor_does() {
        let ended = |act: fn(&Owner)| {
            let (mailbox, mut commands) = channel(1000);
            mailbox.sender().send(push(1)).expect("open");
            act(&mailbox);
            let (waiting, ending) = commands.end(|ending| ending);
            (waiting.len(), ending)
        };
        assert_eq!(ended(|_| ()), (1, Ending::Own));
        assert_eq!(ended(|mailbox| assert!(mailbox.replace())), (0, Ending::Replaced));
        let replace_and_abandon = |mailbox: &Owner| assert!(mailbox.replace() && mailbox.abandon());
        assert_eq!(ended(replace_and_abandon), (0, Ending::Abandoned));
    }

    #[test]
    fn a_channel_that_has_ended_or_was_abandoned_sends_nothing_more() {
        let sends = |mailbox: &Owner| mailbox.sender().while_alive(|| ()).is_some();
        let (first, commands) = channel(1000);
        let (second, _commands) = channel(1000);
        assert!(sends(&first) && sends(&second) && !second.sender().is_muted());
        drop(commands);
        assert!(second.abandon() && second.sender().is_muted());
        assert!(!sends(&first) && !sends(&second));
    }
}
