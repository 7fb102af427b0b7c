//! What is known of the replies that resume streams, which are not replayed.

use super::super::loss::Loss;
use super::super::streams::StreamId;
use super::ReplayBuffer;

impl ReplayBuffer {
    /// Records that the client has asked again for a stream to be resumed.
    pub(in crate::outbox) fn expect_reply(&mut self, stream: StreamId) {
        self.streams.expect_reply(stream, self.read_to());
    }

    /// Returns whether the reply to the last request to resume a stream has arrived, in this epoch or
    /// an earlier one.
    pub(in crate::outbox) fn has_reply_arrived(&self, stream: StreamId) -> bool {
        self.streams.has_reply_arrived(stream, |position| self.sent.is_acked(position))
    }

    /// Records that the client has read a reply that resumed a stream.
    pub(in crate::outbox) fn set_known(&mut self, stream: StreamId) {
        self.streams.set_known(stream);
    }

    /// Returns whether the client has read any of the replies that have resumed a stream.
    pub(in crate::outbox) fn is_known(&self, stream: StreamId) -> bool {
        self.streams.is_known(stream, self.read_to())
    }

    /// Returns whether anything that this epoch sent has been acknowledged.
    pub(in crate::outbox) fn has_acked(&self) -> bool {
        self.sent.has_acked()
    }

    /// The position before which the replies that this epoch sent have reached the page, and not only its network. (A page
    /// may still drop a message that it has polled, if it ends at this moment.)
    pub(super) fn read_to(&self) -> u64 {
        match self.loss() {
            // It reads what has reached its network.
            Some(Loss::Cut) => self.sent.acked(),
            _ => self.sent.first().max(self.polled),
        }
    }
}
