//! One WebSocket, from the upgrade to the last byte: a single future, and so a single task. Only
//! what is pushed may be written by another task: by the leader of its [`Group`], or at the end of
//! the [`turn`](group::turn) in which it was pushed.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use hyper::rt::{Read, Write};
use pin_project::pin_project;
use tokio::time::Sleep;

use super::config::WebSocketConfig;
use super::framed_io::{FramedIo, Phase};
use super::group::{self, Group, Member};
use crate::limits::Limits;
use crate::outbox;
use crate::session::Session;

/// A WebSocket after its handshake. The future ends when the connection has. It must be polled when
/// it is woken: others may depend on it.
///
/// Cancel safety: dropping it cuts the connection.
#[pin_project]
pub struct Connection<Io, S> {
    owner: Owner<Io, S>,
    /// Never set later than the deadline or the next Ping of a resumable session, and otherwise set anew only
    /// when it fires: a message costs it nothing.
    #[pin]
    timer: Sleep,
}

/// The end of the connection when it is dropped.
struct Owner<Io, S>(Arc<Shared<Io, S>>);

/// What those who write for this connection reach. It is the outbox's waker. In this order, as
/// [`FramedIo`] is.
#[repr(C)]
struct Shared<Io, S> {
    turn: Mutex<Turn>,
    /// None once the connection is over. The lock is held for a turn.
    held: Mutex<Option<Held<Io, S>>>,
}

/// What leads to the next turn of the task. The lock is never held for more than an assignment.
struct Turn {
    task: Waker,
    /// Those for whom the task writes in its next turn.
    leads: Option<Arc<Group>>,
    /// There will be no turn.
    over: bool,
}

#[repr(C)]
struct Held<Io, S> {
    /// What the transport wakes, whoever called it.
    task: Waker,
    wire: FramedIo<Io, S>,
}

impl<Io, S> Connection<Io, S>
where
    Io: Read + Write + Unpin + Send + 'static,
    S: Session,
{
    /// Serves `session` over `io`, on which the handshake is done.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with a timer.
    pub fn new(
        io: Io,
        session: S,
        receiver: outbox::Receiver,
        config: &WebSocketConfig,
        limits: &Limits,
    ) -> Self {
        let turn = Turn { task: Waker::noop().clone(), leads: None, over: false };
        let shared = Arc::new(Shared { turn: Mutex::new(turn), held: Mutex::new(None) });
        let pushed = Arc::clone(&shared).into();
        let wire = FramedIo::new(io, session, receiver, pushed, config, limits);
        let timer = tokio::time::sleep_until(wire.deadline());
        *shared.lock() = Some(Held { task: Waker::noop().clone(), wire });
        Self { owner: Owner(shared), timer }
    }
}

impl<Io, S> Future for Connection<Io, S>
where
    Io: Read + Write + Unpin + Send + 'static,
    S: Session,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let shared = &this.owner.0;
        if let Some(group) = shared.begin_turn(cx.waker()) {
            group.serve();
        }
        let mut held = shared.lock();
        let Some(Held { wire, task }) = &mut *held else { return Poll::Ready(()) };
        if !task.will_wake(cx.waker()) {
            task.clone_from(cx.waker());
        }
        let poll = wire.poll(cx, this.timer);
        let over = if wire.phase == Phase::Open { None } else { wire.session.take() };
        // Its `Drop` is the application's.
        drop(held);
        drop(over);
        poll
    }
}

impl<Io, S> Shared<Io, S> {
    /// A turn of the task begins. Those for whom it is to write come first.
    fn begin_turn(&self, task: &Waker) -> Option<Arc<Group>> {
        let mut turn = self.turn();
        if !turn.task.will_wake(task) {
            turn.task.clone_from(task);
        }
        turn.leads.take()
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic of the session is the end of the task, and so of the connection.
    fn lock(&self) -> MutexGuard<'_, Option<Held<Io, S>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Io, S> Wake for Shared<Io, S>
where
    Io: Read + Write + Unpin + Send + 'static,
    S: Session,
{
    fn wake(self: Arc<Self>) {
        group::join(self);
    }
}

impl<Io, S> Member for Shared<Io, S>
where
    Io: Read + Write + Unpin + Send + 'static,
    S: Session,
{
    fn flush(&self) {
        let needs_task = match self.held.try_lock() {
            Ok(mut held) => held.as_mut().is_some_and(|Held { wire, task }| wire.flush(task)),
            // It has a turn at this moment, which may be past its writing.
            Err(_) => true,
        };
        if needs_task {
            self.wake_task();
        }
    }

    fn lead(&self, group: &Arc<Group>) {
        let mut turn = self.turn();
        let leads = !turn.over && turn.leads.is_none();
        if leads {
            turn.leads = Some(Arc::clone(group));
        }
        drop(turn);
        if !leads {
            drop(group.end());
        }
        self.wake_task();
    }

    fn wake_task(&self) {
        let task = self.turn().task.clone();
        task.wake();
    }
}

impl<Io, S> Drop for Owner<Io, S> {
    fn drop(&mut self) {
        let mut turn = self.0.turn();
        turn.over = true;
        let leads = turn.leads.take();
        drop(turn);
        if let Some(group) = leads {
            drop(group.end());
        }
        let held = self.0.lock().take();
        drop(held);
    }
}

impl<Io, S> fmt::Debug for Connection<Io, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = self.owner.0.lock().as_ref().map(|held| held.wire.phase);
        f.debug_struct("Connection").field("phase", &phase).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
