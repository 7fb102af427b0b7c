//! The bounded queue in front of a channel's task, and the state of its end.
//!
//! Only the socket holds the [`Owner`]; dropping it tells the task that the client is gone, after
//! everything that waits. All others hold a [`Sender`], which keeps nothing alive and belongs to one
//! *instance* of the channel: a join behind the end of an instance begins the next one on the mailbox.

mod command;
mod cost;

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};

use parking_lot::{Mutex, MutexGuard};
use tower_channels_transports::{Account, ByteBudget, Memory};

pub(crate) use self::command::{Command, Rejoin};
use crate::topics::broadcast::Broadcast;
use crate::topics::subscriber::{Inbox, Undelivered};

/// Error returned by [`Handle::send`](crate::Handle::send).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The channel has ended, or will end once it has handled what waits.
    Closed,
    /// Too much waits for the channel already.
    Full,
}

/// The handle that keeps the channel alive, and sends it the commands of the client. Dropping it
/// closes the mailbox behind the commands that wait.
pub(crate) struct Owner(Arc<Mailbox>);

/// Sends commands to one instance of a channel. A cheap clone.
#[derive(Clone)]
pub(crate) struct Sender {
    mailbox: Arc<Mailbox>,
    instance: u32,
}

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
    /// Whether the instance has joined.
    has_joined: bool,
    /// The number of the instance that has the mailbox.
    instance: u32,
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

/// Whether another instance can take the mailbox over.
pub(crate) enum Succession {
    /// If the client has joined again meanwhile.
    Possible,
    /// With this join, which was received last.
    With(Box<Rejoin>),
    Impossible,
}

/// What an instance leaves behind, from [`Receiver::end`].
pub(crate) struct Ended<R> {
    /// The commands that waited, or none if the channel was replaced or abandoned.
    pub(crate) waiting: VecDeque<Command>,
    /// The join with which the next instance begins. It receives what the client sent behind it.
    pub(crate) rejoin: Option<Box<Rejoin>>,
    pub(crate) notified: R,
}

/// Creates a mailbox in which `limit` bytes may wait, reserved from the account of the session.
pub(crate) fn channel(limit: usize, account: Option<&Arc<Account>>) -> (Owner, Receiver) {
    let state = State {
        queue: VecDeque::new(),
        budget: ByteBudget::within(limit, account),
        phase: Phase::Open,
        has_joined: false,
        instance: 0,
        waker: None,
    };
    let (state, is_muted) = (Mutex::new(state), AtomicBool::new(false));
    let mailbox = Arc::new(Mailbox { state, is_muted });
    (Owner(Arc::clone(&mailbox)), Receiver(mailbox))
}

impl Owner {
    /// Appends a command of the client to the queue.
    pub(crate) fn send(&self, command: Command) -> Result<(), SendError> {
        self.0.send(command, None)
    }

    /// Returns whether the channel has joined, and not ended.
    pub(crate) fn has_joined(&self) -> bool {
        let state = self.0.state.lock();
        state.has_joined && state.phase != Phase::Over
    }

    /// Returns whether the channel has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.0.state.lock().phase == Phase::Over
    }

    /// Lets another join take the channel's place. Returns `false` if the channel has ended
    /// already.
    pub(crate) fn replace(&self) -> bool {
        let mut state = self.0.state.lock();
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
        let mut state = self.0.state.lock();
        let is_alive = state.phase != Phase::Over;
        if is_alive {
            state.phase = Phase::Abandoned;
            self.0.is_muted.store(true, Ordering::Relaxed);
        }
        is_alive
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Closed;
            let waker = state.waker.take();
            drop(state);
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

impl Sender {
    /// Appends a command to the queue, unless the instance has ended.
    pub(crate) fn send(&self, command: Command) -> Result<(), SendError> {
        self.mailbox.send(command, Some(self.instance))
    }

    /// The mailbox as an inbox for broadcasts.
    pub(crate) fn inbox(&self) -> Arc<dyn Inbox> {
        Arc::clone(&self.mailbox) as Arc<dyn Inbox>
    }

    /// Returns whether the instance has handled everything that has come until now, or has ended.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.mailbox.state.lock();
        let is_over = state.phase == Phase::Over || state.instance != self.instance;
        is_over || (state.queue.is_empty() && state.waker.is_some())
    }

    /// Returns whether the channel's own task may not send anything more.
    pub(crate) fn is_muted(&self) -> bool {
        self.mailbox.is_muted.load(Ordering::Relaxed)
    }

    /// Runs `work` under the lock unless the instance has ended or is muted, and so before its end.
    /// It must not call foreign code, such as wakers.
    pub(crate) fn while_alive<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        let state = self.mailbox.state.lock();
        let is_over = matches!(state.phase, Phase::Over | Phase::Abandoned);
        (!is_over && state.instance == self.instance).then(work)
    }
}

impl Receiver {
    /// Returns a sender of the instance that has the mailbox.
    pub(crate) fn sender(&self) -> Sender {
        let instance = self.0.state.lock().instance;
        Sender { mailbox: Arc::clone(&self.0), instance }
    }

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

    /// Takes the next command, if one waits.
    pub(crate) fn try_recv(&mut self) -> Option<Command> {
        let mut state = self.0.state.lock();
        let command = state.queue.pop_front()?;
        state.budget.release(command.cost());
        Some(command)
    }

    /// The instance has joined.
    pub(crate) fn set_joined(&mut self) {
        self.0.state.lock().has_joined = true;
    }

    /// Releases the memory of an empty queue.
    pub(crate) fn shrink(&mut self) {
        let mut state = self.0.state.lock();
        if state.queue.is_empty() {
            state.queue = VecDeque::new();
        }
    }

    /// Ends the channel. `notify` puts the end into the outbox, before anybody can see that the
    /// channel has ended. It runs under the lock and must not call foreign code.
    pub(crate) fn end<R>(
        &mut self,
        succession: Succession,
        notify: impl FnOnce(Ending) -> R,
    ) -> Ended<R> {
        let mut guard = self.0.state.lock();
        let state = &mut *guard;
        let waker = state.waker.take();
        state.has_joined = false;
        let ending = match state.phase {
            Phase::Open | Phase::Closed => Ending::Own,
            Phase::Replaced | Phase::Over => Ending::Replaced,
            Phase::Abandoned => Ending::Abandoned,
        };
        let (mut waiting, rejoin) = match succession {
            Succession::Possible if state.phase == Phase::Open => state.take_rejoin(),
            Succession::With(rejoin) if state.phase == Phase::Open => {
                (VecDeque::new(), Some(rejoin))
            }
            _ => (VecDeque::new(), None),
        };
        if rejoin.is_some() {
            // In place: as many joins may wait as there is room for.
            state.queue.retain_mut(|command| {
                let stays = command.is_of_client();
                if !stays {
                    waiting.push_back(mem::replace(command, Command::InvalidEvent));
                }
                stays
            });
            waiting.iter().for_each(|command| state.budget.release(command.cost()));
            state.instance = state.instance.wrapping_add(1);
        } else {
            waiting = mem::take(&mut state.queue);
            // Handles keep the mailbox, but nothing waits in it any more.
            state.budget.end_reservation();
            state.phase = Phase::Over;
        }
        let notified = notify(ending);
        drop(guard);
        drop(waker);
        if ending != Ending::Own {
            waiting.clear();
        }
        Ended { waiting, rejoin, notified }
    }
}

impl State {
    /// Takes the first join that waits, and what precedes it.
    fn take_rejoin(&mut self) -> (VecDeque<Command>, Option<Box<Rejoin>>) {
        let is_rejoin = |command: &Command| matches!(command, Command::Rejoin(_));
        let Some(at) = self.queue.iter().position(is_rejoin) else {
            return (VecDeque::new(), None);
        };
        let before = self.queue.drain(..at).collect();
        let rejoin = self.queue.pop_front();
        rejoin.iter().for_each(|rejoin| self.budget.release(rejoin.cost()));
        let rejoin = if let Some(Command::Rejoin(rejoin)) = rejoin { Some(rejoin) } else { None };
        (before, rejoin)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end(Succession::Impossible, |_| ());
    }
}

impl Mailbox {
    /// Appends a command, wakes its receiver, and relieves exceeded memory.
    fn send(&self, command: Command, instance: Option<u32>) -> Result<(), SendError> {
        let mut state = self.enqueue(command, instance)?;
        let (waker, exceeded) = (state.waker.take(), state.budget.take_exceeded());
        drop(state);
        waker.into_iter().for_each(Waker::wake);
        exceeded.iter().for_each(Memory::relieve);
        Ok(())
    }

    /// Appends a command, for this instance or for any, and returns the state with the task to wake
    /// once no lock is held.
    fn enqueue(
        &self,
        command: Command,
        instance: Option<u32>,
    ) -> Result<MutexGuard<'_, State>, SendError> {
        let mut state = self.state.lock();
        let is_for_another = instance.is_some_and(|instance| instance != state.instance);
        if state.phase != Phase::Open || is_for_another {
            return Err(SendError::Closed);
        }
        // A tick costs nothing, and is never refused: at most one of each timer waits.
        let cost = command.cost();
        if cost.bytes() > 0 && !state.budget.try_acquire(cost) {
            return Err(SendError::Full);
        }
        state.queue.push_back(command);
        Ok(state)
    }
}

impl Inbox for Mailbox {
    fn deliver(&self, broadcast: &Arc<Broadcast>) -> Result<Option<Waker>, Undelivered> {
        match self.enqueue(Command::Broadcast(Arc::clone(broadcast)), None) {
            Ok(mut state) => Ok(state.waker.take()),
            // The channel is ending, and has missed nothing.
            Err(SendError::Closed) => Ok(None),
            Err(SendError::Full) => Err(Undelivered),
        }
    }

    fn miss(&self) {
        let _ = self.send(Command::Missed, None);
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
mod tests;
