//! The way to one client: its outbox, and the version of the protocol that it speaks.

use tower_channels_transports::{Close, Message, outbox};

use crate::message::{Ref, Topic};
use crate::reply::Reply;
use crate::serializer::{ServerMessage, Version};

/// The way to one client. A cheap clone.
#[derive(Clone, Debug)]
pub(crate) struct Responder {
    pub(crate) outbox: outbox::Sender,
    pub(crate) version: Version,
    /// Whether the session outlives its connections. Then messages bear no join_ref: which join they
    /// will meet is not known when they are written down.
    pub(crate) kept: bool,
}

impl Responder {
    /// Sends a message, unless the client's version cannot say it: that is counted and logged, and
    /// hurts nobody else.
    pub(crate) fn send(&self, message: &ServerMessage<'_>) {
        if let Some(message) = self.encode(message) {
            self.outbox.push(message);
        }
    }

    /// Sends a message that is worthless once the connection is gone.
    pub(crate) fn send_volatile(&self, message: &ServerMessage<'_>) {
        if let Some(message) = self.encode(message) {
            self.outbox.push(message.volatile());
        }
    }

    /// The join_ref that a message of a channel bears, which joined with this one.
    pub(crate) fn wire_join_ref<'a>(&self, join_ref: &'a Ref) -> &'a Ref {
        static NULL: Ref = Ref::NULL;
        if self.kept { &NULL } else { join_ref }
    }

    fn encode(&self, message: &ServerMessage<'_>) -> Option<Message> {
        let encoded = self.version.encode(message);
        if encoded.is_none() {
            Self::skipped();
        }
        encoded
    }

    /// Counts a message that this client's version cannot say.
    pub(crate) fn skipped() {
        metrics::counter!("tower_channels_messages_skipped").increment(1);
        tracing::debug!("a message was skipped that the client's protocol version cannot say");
    }

    /// Answers a message. Nothing is sent for [`Reply::None`].
    pub(crate) fn reply(&self, join_ref: &Ref, reference: &Ref, topic: &Topic<'_>, reply: &Reply) {
        if let Some(message) = self.encode_reply(join_ref, reference, topic, reply) {
            self.outbox.push(message);
        }
    }

    /// Answers a heartbeat.
    pub(crate) fn reply_to_heartbeat(&self, reference: &Ref, topic: &Topic<'_>) {
        if let Some(message) = self.encode_reply(&Ref::NULL, reference, topic, &Reply::ack()) {
            self.outbox.push_heartbeat_reply(message);
        }
    }

    /// Answers a join: from here on the channel's messages flow, as long as `epoch` lasts.
    pub(crate) fn open(
        &self,
        epoch: u64,
        join_ref: &Ref,
        reference: &Ref,
        topic: &Topic<'_>,
        reply: &Reply,
    ) {
        if let Some(message) = self.encode_reply(join_ref, reference, topic, reply) {
            self.outbox.resume(epoch, message);
        }
    }

    /// The same client, past all that waits.
    pub(crate) fn priority(&self) -> Self {
        Self { outbox: self.outbox.priority(), ..self.clone() }
    }

    fn encode_reply(
        &self,
        join_ref: &Ref,
        reference: &Ref,
        topic: &Topic<'_>,
        reply: &Reply,
    ) -> Option<Message> {
        let (status, response) = match reply {
            Reply::None => return None,
            Reply::Ok(response) => ("ok", response),
            Reply::Error(response) => ("error", response),
        };
        if reference.as_json().is_none() && response.as_binary().is_none() {
            // The ref came in a binary frame and JSON cannot repeat it; Phoenix dies of that too.
            self.outbox.close(Close::Malformed);
            return None;
        }
        let join_ref = self.wire_join_ref(join_ref);
        self.encode(&ServerMessage::Reply { join_ref, reference, topic, status, response })
    }

    /// Answers a message to a topic on which nothing is joined: without a join_ref, even if one was
    /// sent.
    pub(crate) fn reply_unmatched(&self, reference: &Ref, topic: &Topic<'_>) {
        self.reply(&Ref::NULL, reference, topic, &Reply::reason("unmatched topic"));
    }

    /// Says that a channel has ended, with `phx_close` or `phx_error`.
    pub(crate) fn end(&self, join_ref: &Ref, topic: &str, event: &str, payload: &str) {
        let join_ref = self.wire_join_ref(join_ref);
        self.send(&ServerMessage::End { join_ref, topic, event, payload });
    }
}
