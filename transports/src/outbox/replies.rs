//! What is known of the replies that resume the streams of an outbox.

use super::sender::Sender;

impl Sender {
    /// Records that the client has asked again for the stream to be resumed, and waits for the reply.
    pub fn expect_reply(&self) {
        if let Some((buffer, _)) = self.shared.state.lock().replay() {
            buffer.expect_reply(self.stream);
        }
    }

    /// Returns whether the reply that resumed the stream is known to have arrived, on this connection
    /// or an earlier one.
    pub fn has_reply_arrived(&self) -> bool {
        match self.shared.state.lock().replay() {
            None => true,
            Some((buffer, _)) => buffer.has_reply_arrived(self.stream),
        }
    }

    /// Returns whether anything that was sent on this connection has been acknowledged, so that more
    /// acknowledgements can be expected.
    pub fn has_acked(&self) -> bool {
        self.shared.state.lock().replay().is_none_or(|(buffer, _)| buffer.has_acked())
    }

    /// Records that the client has shown that it has read a reply which resumed the stream.
    pub fn set_known(&self) {
        if let Some((buffer, _)) = self.shared.state.lock().replay() {
            buffer.set_known(self.stream);
        }
    }

    /// Returns whether the client has read any of the replies that have resumed the stream on this node, on whatever
    /// connection. A reply that has reached its network may still be lost, as by a page that closes its connection.
    pub fn is_known(&self) -> bool {
        match self.shared.state.lock().replay() {
            None => true,
            Some((buffer, _)) => buffer.is_known(self.stream),
        }
    }
}
