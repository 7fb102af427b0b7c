//! How a long-poll session reads its outbox.
//!
//! A WebSocket takes messages out and writes them once. A poll is answered with what is not
//! acknowledged, as much of it as fits in a response, and with the same again if it is repeated.

use std::task::{Context, Poll, Waker};

use super::budget::ByteBudget;
use super::receiver::Receiver;
use super::replay_buffer::{ReplayBuffer, UnknownPosition};
use crate::frame::{Close, Message};
use crate::limited;
use crate::telemetry::LONGPOLL_BINARY_SKIPPED;

/// What a look into the outbox of a long-poll session showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Collected {
    /// Whether more may come: the outbox is open, and this connection has it.
    pub(crate) is_open: bool,
    /// Whether there are unacknowledged messages that the client can read.
    pub(crate) has_unread: bool,
    /// The position of the first message that is not acknowledged.
    pub(crate) acked: u64,
    /// The position behind everything that was sent.
    pub(crate) position: u64,
    /// How many binary messages were dropped because the client cannot read them.
    pub(crate) skipped: u64,
}

impl Collected {
    /// Whether nothing is left to poll, now or later.
    pub(crate) fn is_over(&self) -> bool {
        !self.is_open && !self.has_unread
    }

    /// Counts and logs the messages that were dropped. The caller holds no lock.
    pub(crate) fn report_skipped(&self) {
        let skipped = self.skipped;
        if skipped > 0 {
            LONGPOLL_BINARY_SKIPPED.add(skipped);
            limited!(DEBUG, skipped, "binary messages skipped: the client cannot read them");
        }
    }

    /// Where the messages of the next response begin and end.
    pub(crate) fn range(&self) -> (u64, u64) {
        (self.acked, self.position)
    }
}

impl Receiver {
    /// Marks what waits and fits in a response as sent. Binary messages are skipped unless the client
    /// reads them.
    pub(crate) fn collect(&self, reads_binary: bool) -> Collected {
        let mut state = self.shared.state.lock();
        let is_open = state.close.is_none();
        match state.replay_of(self.epoch) {
            Some((buffer, budget)) => collect(buffer, budget, is_open, reads_binary),
            None => Collected::default(),
        }
    }

    /// Collects until there are unacknowledged messages that the client can read.
    ///
    /// `Pending` means that there are none yet, and that the task is woken at the next push or close.
    pub(crate) fn poll_collect(
        &self,
        cx: &mut Context<'_>,
        reads_binary: bool,
    ) -> (Poll<()>, Collected) {
        let mut state = self.shared.state.lock();
        let is_open = state.close.is_none();
        let Some((buffer, budget)) = state.replay_of(self.epoch) else {
            return (Poll::Ready(()), Collected::default());
        };
        let collected = collect(buffer, budget, is_open, reads_binary);
        if collected.has_unread || !is_open {
            return (Poll::Ready(()), collected);
        }
        let replaced = state.wait(cx.waker());
        drop(state);
        drop(replaced);
        (Poll::Pending, collected)
    }

    /// The unacknowledged messages that the client can read.
    pub(crate) fn unread(&self, reads_binary: bool) -> Vec<Message> {
        match self.shared.state.lock().replay_of(self.epoch) {
            Some((buffer, _)) => readable(buffer, reads_binary).cloned().collect(),
            None => Vec::new(),
        }
    }

    /// Marks the connection as in use: a poll waits.
    pub(crate) fn set_active(&self) {
        if let Some((buffer, _)) = self.shared.state.lock().replay_of(self.epoch) {
            buffer.set_active(self.epoch);
        }
    }

    /// Marks the connection as idle: no poll waits, and its client may be gone.
    pub(crate) fn set_idle(&self) {
        if let Some((buffer, _)) = self.shared.state.lock().replay_of(self.epoch) {
            buffer.set_idle(self.epoch);
        }
    }

    /// Returns whether the outbox was closed because the server shuts down.
    pub(crate) fn is_restarting(&self) -> bool {
        self.shared.state.lock().close == Some(Close::Restart)
    }

    /// Releases everything before `position`, which the client has received.
    pub(crate) fn acknowledge(&self, position: u64) -> Result<(), UnknownPosition> {
        match self.shared.state.lock().replay_of(self.epoch) {
            Some((buffer, budget)) => buffer.acknowledge(position, budget),
            None => Ok(()),
        }
    }

    /// Takes the waker of the task that waits, for the caller to wake or drop without a lock.
    pub(crate) fn take_waker(&self) -> Option<Waker> {
        let mut state = self.shared.state.lock();
        state.replay_of(self.epoch)?;
        state.waker.take()
    }
}

fn collect(
    buffer: &mut ReplayBuffer,
    budget: &mut ByteBudget,
    is_open: bool,
    reads_binary: bool,
) -> Collected {
    let mut skipped = 0;
    loop {
        let has_taken = buffer.take_up_to(MAX_ANSWER, |message| {
            skipped += u64::from(!reads_binary && message.is_binary());
        });
        // The token acknowledges, and whatever it does not is answered again.
        buffer.ignore_heartbeat();
        let has_unread = readable(buffer, reads_binary).next().is_some();
        let position = buffer.position();
        if !has_taken || has_unread {
            return Collected { is_open, has_unread, acked: buffer.acked(), position, skipped };
        }
        // Only skipped messages were taken: no poll will acknowledge them, and others may wait.
        let _ = buffer.acknowledge(position, budget);
    }
}

fn readable(buffer: &ReplayBuffer, reads_binary: bool) -> impl Iterator<Item = &Message> {
    buffer.unacknowledged().filter(move |message| reads_binary || !message.is_binary())
}

/// How many bytes of messages a response carries, unless the first one alone is larger. On a slow line
/// a larger response would not arrive before its client gives up, and would then begin again.
const MAX_ANSWER: usize = 96 * 1024;
