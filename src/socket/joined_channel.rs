//! [`JoinedChannel`]: a joined topic, as its socket sees it.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_channels_transports::{limited, outbox};

use crate::channel::instance::TopicPermit;
use crate::channel::mailbox::{self, Command, SendError};
use crate::message::Ref;

/// A joined topic, as its socket sees it.
pub(super) struct JoinedChannel {
    /// The join_ref as the client sent it. A message with another one is stale.
    pub(super) sent_join_ref: Ref,
    pub(super) mailbox: mailbox::Owner,
    pub(super) task: JoinHandle<()>,
    /// The stream of the channel.
    pub(super) outbox: outbox::Sender,
    /// The epoch in which the client joined last, and when.
    pub(super) epoch: u64,
    pub(super) joined_at: Instant,
    /// Whether the client has sent a message that shows it received the reply to that join.
    pub(super) join_acked: bool,
    pub(super) permit: TopicPermit,
}

impl JoinedChannel {
    /// Sends a command. A channel whose mailbox is full is slower than its client; it crashes,
    /// because waiting for it would delay the others.
    pub(super) fn send(&self, topic: &str, command: Command) -> Result<(), SendError> {
        let sent = self.mailbox.send(command);
        if let Err(SendError::Full) = sent {
            limited!(ERROR, ?topic, "channel crashed: its mailbox is full");
            self.task.abort();
        }
        sent
    }

    /// Returns whether nothing is left of the channel, nor of those that it has replaced. Until then
    /// it is kept, because the next instance has to wait for the permit.
    pub(super) fn is_gone(&self) -> bool {
        self.mailbox.is_over() && self.permit.try_lock().is_ok()
    }

    /// Returns whether the client may leave because it has not received the reply to its last join:
    /// it is not known to have, and has had the time to wait for it.
    pub(super) fn may_have_timed_out(&self, epoch: u64) -> bool {
        if self.join_acked || self.outbox.has_reply_arrived() {
            return false;
        }
        let shortest = if self.outbox.has_acked() { SHORTEST_TIMEOUT } else { SHORTEST_UNACKED };
        self.epoch != epoch || self.joined_at.elapsed() >= shortest
    }
}

/// No client waits for less for the reply to a join: phoenix.js for 10 s.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(1);

/// The same on a connection that has acknowledged nothing, as without Pongs: there a reply that has
/// arrived looks like a lost reply, and a page may leave a channel that it has just joined.
const SHORTEST_UNACKED: Duration = Duration::from_secs(5);
