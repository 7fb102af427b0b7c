//! The state of a long-poll session: its connection, cursors and polls.

use std::mem;
use std::task::Waker;

use bytes::Bytes;
use tokio::time::Instant;

use super::first_use::Claiming;
use super::repeats::Repeats;
use super::shared_answer::{BUFFERED, SharedAnswer};
use super::token::Id;
use crate::frame::Close;
use crate::outbox::{self, Collected};
use crate::progress::{after, at_floor};
use crate::resume::expiry::{Scheduled, Timer};
use crate::resume::{Connected, Epoch};
use crate::session::Session;

#[derive(Debug)]
pub(super) struct State<S: Session> {
    pub(super) attach: AttachState<S>,
    /// The newest cursor that was handed out.
    pub(super) sent: u64,
    /// The newest poll; older ones get no messages.
    pub(super) newest: PollId,
    pub(super) repeats: Repeats,
    /// The last response with messages.
    pub(super) answer: SharedAnswer,
    /// How many bytes the newest poll was answered with.
    pub(super) answered: usize,
    /// When the newest poll ended.
    pub(super) ended_at: Instant,
    /// When the client is done with the last poll; `None` while one waits.
    pub(super) idle_since: Option<Instant>,
    pub(super) scheduled: Scheduled,
}

#[derive(Debug)]
pub(super) enum AttachState<S: Session> {
    /// The token has not been used: clients request tokens that they never use.
    Unused(Connected<S>),
    /// The first use is under way, in the turn.
    Attaching,
    /// The first use waits until the session was looked for on the other nodes.
    Claiming(Claiming),
    /// `epoch` is that of a resumable session.
    Attached { receiver: outbox::Receiver, epoch: Option<Epoch<S>> },
    /// The session is over. What was not acknowledged can still be polled.
    Ended(Option<outbox::Receiver>),
}

/// Polls are numbered, so that an older one notices a newer one.
pub(super) type PollId = u64;

/// The cursor was never handed out, or the session is over: as if there were no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// The answer to a poll.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// The rendered response with the messages that are not acknowledged.
    Messages(Bytes),
    /// No message came, or a newer poll gets it.
    Nothing,
    /// The session is over, and no message will come.
    Over,
}

impl<S: Session> State<S> {
    pub(super) fn new(attach: AttachState<S>, now: Instant) -> Self {
        let (idle_since, scheduled) = (Some(now), Scheduled::default());
        let (repeats, answer) = (Repeats::new(now), SharedAnswer::default());
        Self {
            attach,
            sent: 0,
            newest: 0,
            repeats,
            answer,
            answered: 0,
            ended_at: now,
            idle_since,
            scheduled,
        }
    }

    pub(super) fn receiver(&self) -> Option<&outbox::Receiver> {
        match &self.attach {
            AttachState::Attached { receiver, .. } | AttachState::Ended(Some(receiver)) => {
                Some(receiver)
            }
            AttachState::Unused(_)
            | AttachState::Attaching
            | AttachState::Claiming(_)
            | AttachState::Ended(None) => None,
        }
    }

    pub(super) fn epoch(&self) -> Option<&Epoch<S>> {
        match &self.attach {
            AttachState::Attached { epoch, .. } => epoch.as_ref(),
            _ => None,
        }
    }

    pub(super) fn is_attached(&self) -> bool {
        matches!(self.attach, AttachState::Attached { .. } | AttachState::Ended(_))
    }

    pub(super) fn is_attaching(&self) -> bool {
        matches!(self.attach, AttachState::Attaching)
    }

    /// The outbox, used or not.
    pub(super) fn outbox(&self) -> Option<&outbox::Receiver> {
        match &self.attach {
            AttachState::Unused(connected) => connected.receiver(),
            _ => self.receiver(),
        }
    }

    /// Whether a newer connection has the session.
    pub(super) fn is_superseded(&self) -> bool {
        self.receiver().is_some_and(outbox::Receiver::is_superseded)
    }

    /// A poll waits.
    pub(super) fn set_active(&mut self) {
        self.idle_since = None;
        match (self.epoch(), self.receiver()) {
            (Some(epoch), _) => epoch.set_active(),
            (None, Some(receiver)) => receiver.set_active(),
            (None, None) => {}
        }
    }

    /// When the client has read the answer to the newest poll, if it reads at the slowest rate that
    /// counts as progress: when the last of it is written, the network may hold some of it.
    pub(super) fn read_by(&self, now: Instant) -> Instant {
        let slowest = after(self.ended_at, at_floor(self.answered));
        let written = self.answer.written(now).unwrap_or(self.ended_at);
        let written = written.clamp(self.ended_at, slowest);
        after(written, at_floor(self.answered.min(BUFFERED)))
    }

    /// No poll waits.
    pub(super) fn set_idle(&mut self, now: Instant) {
        self.idle_since = Some(now);
        match (self.epoch(), self.receiver()) {
            (Some(epoch), _) => epoch.set_idle(now),
            (None, Some(receiver)) => receiver.set_idle(),
            (None, None) => {}
        }
    }

    pub(super) fn acknowledge(&self, cursor: u64) -> Result<(), Gone> {
        if cursor > self.sent {
            return Err(Gone);
        }
        self.receiver().map_or(Ok(()), |receiver| receiver.acknowledge(cursor).map_err(|_| Gone))
    }

    /// Collects what waits in the outbox, and notices its end.
    pub(super) fn collect(&mut self, reads_binary: bool) -> Collected {
        let is_open = match &self.attach {
            AttachState::Unused(connected) => connected.is_open(),
            AttachState::Attaching | AttachState::Claiming(_) => true,
            AttachState::Attached { .. } | AttachState::Ended(_) => false,
        };
        let unattached = Collected { is_open, ..Collected::default() };
        let collected = self.receiver().map_or(unattached, |outbox| outbox.collect(reads_binary));
        self.end_unless(collected.is_open);
        collected
    }

    pub(super) fn end_unless(&mut self, is_open: bool) {
        if !is_open {
            self.attach = match mem::replace(&mut self.attach, AttachState::Ended(None)) {
                AttachState::Attached { receiver, .. } => AttachState::Ended(Some(receiver)),
                attach => attach,
            };
        }
    }

    /// Ends the session, with everything that was not acknowledged.
    pub(super) fn close(&mut self, close: Close) -> Closed<S> {
        let waker = self.take_waker();
        let attach = mem::replace(&mut self.attach, AttachState::Ended(None));
        Closed { attach, waker, close }
    }

    pub(super) fn take_waker(&self) -> Option<Waker> {
        self.receiver()?.take_waker()
    }

    pub(super) fn schedule(&mut self, timer: &Timer<Id>, at: Instant) {
        self.scheduled.schedule(timer, at);
    }
}

impl<S: Session> AttachState<S> {
    /// Takes the session out for the first use of the token.
    pub(super) fn begin(&mut self) -> Option<Connected<S>> {
        match mem::replace(self, Self::Attaching) {
            Self::Unused(connected) => Some(connected),
            attach => {
                *self = attach;
                None
            }
        }
    }
}

/// A session that was closed under the lock, with what is left to do without it.
pub(super) struct Closed<S: Session> {
    /// May own what the application made.
    attach: AttachState<S>,
    waker: Option<Waker>,
    close: Close,
}

impl<S: Session> Closed<S> {
    pub(super) fn finish(self) {
        if let AttachState::Attached { receiver, .. } | AttachState::Ended(Some(receiver)) =
            self.attach
        {
            receiver.close(self.close);
        }
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}
