//! What a long poll does with its outbox, all of it under one lock.
//!
//! A WebSocket takes messages out and writes them. A poll is answered with what the log has, and with
//! the same again if it asks again.

use std::task::Waker;

use super::budget::ByteBudget;
use super::replay_buffer::{ReplayBuffer, Unknown};
use crate::frame::{Close, Message};

/// A look into a resumable outbox; see [`outbox::Receiver::visit`](super::outbox::Receiver::visit).
pub(crate) struct Visit<'a> {
    /// `None` once a newer connection has the session.
    pub(super) log: Option<&'a mut ReplayBuffer>,
    pub(super) backlog: &'a mut ByteBudget,
    pub(super) close: Option<Close>,
    pub(super) waker: &'a mut Option<Waker>,
}

impl Visit<'_> {
    /// Moves what waits to what was sent, and shows it to `see`. `false` once nothing more will come.
    pub(crate) fn collect(&mut self, see: impl FnMut(&Message)) -> bool {
        let Some(log) = &mut self.log else { return false };
        log.take(usize::MAX, usize::MAX, see);
        self.close.is_none()
    }

    /// What was sent and not acknowledged.
    pub(crate) fn unacknowledged(&self) -> impl Iterator<Item = &Message> {
        self.log.iter().flat_map(|log| log.unacknowledged())
    }

    /// The position behind all that was sent.
    pub(crate) fn position(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.position())
    }

    /// Everything before this position has arrived.
    pub(crate) fn acknowledge(&mut self, position: u64) -> Result<(), Unknown> {
        self.log.as_mut().map_or(Ok(()), |log| log.acknowledge(position, self.backlog))
    }

    /// The connection is there.
    pub(crate) fn unpark(&mut self) {
        if let Some(log) = &mut self.log {
            log.return_to(log.epoch());
        }
    }

    /// The connection is idle, and may never come back: its session is parked, for now. Nobody knows
    /// what the client made of what it was told last.
    pub(crate) fn park(&mut self) {
        if let Some(log) = &mut self.log {
            log.idle(log.epoch(), true);
        }
    }

    /// Lets the next push or close wake a task.
    pub(crate) fn wait(&mut self, waker: &Waker) {
        if self.log.is_some() && !self.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            *self.waker = Some(waker.clone());
        }
    }

    /// The task that waits, and does so no longer. It is woken and dropped outside the lock.
    pub(crate) fn take_waiting(&mut self) -> Option<Waker> {
        self.log.as_ref().and_then(|_| self.waker.take())
    }
}
