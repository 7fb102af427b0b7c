//! [`Responder`]: encodes messages for one client and puts them into its outbox.

use tower_channels_transports::{Close, Message, limited, outbox};

use crate::history::Position;
use crate::message::{Ref, Topic};
use crate::payload::Payload;
use crate::reply::Reply;
use crate::serializer::{ServerMessage, Version};
use crate::telemetry::MESSAGES_SKIPPED;

/// Encodes messages for one client and puts them into its outbox. A cheap clone.
#[derive(Clone, Debug)]
pub(crate) struct Responder {
    pub(crate) outbox: outbox::Sender,
    pub(crate) version: Version,
    /// Whether the session is resumable. Then messages carry no join_ref, as it is not known yet
    /// which join the client will have sent last when it receives them. Only the end of a channel
    /// does, so that no client takes it for the end of a channel that it has joined since.
    pub(crate) resumable: bool,
    pub(crate) positions: Positions,
}

/// Which messages of a topic with a history tell the client where they stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Positions {
    /// None.
    Unwanted,
    /// Texts, in the place of their ref.
    Refs,
    /// Binary messages as well, as pushes and in the place of their join_ref.
    All,
}

impl Positions {
    /// What a client asks for with the connect parameter `positions`.
    pub(crate) fn from_param(value: Option<&str>) -> Self {
        match value {
            Some("refs") => Self::Refs,
            Some("all") => Self::All,
            _ => Self::Unwanted,
        }
    }

    pub(crate) fn are_wanted(self) -> bool {
        self != Self::Unwanted
    }

    /// Returns whether a message with this payload carries its position.
    pub(crate) fn fit(self, payload: &Payload) -> bool {
        match self {
            Self::Unwanted => false,
            Self::Refs => payload.as_binary().is_none(),
            Self::All => true,
        }
    }
}

/// The event that tells a client nothing but a position.
const POSITION: &str = "phx_position";

/// How a channel ends for its client: the event and its payload, as JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit {
    event: &'static str,
    payload: &'static str,
}

impl Exit {
    /// The channel ended in order, and the client does not join again by itself.
    pub(crate) const CLOSE: Self = Self { event: "phx_close", payload: "{}" };

    /// The channel crashed, and the client joins again.
    pub(crate) const CRASH: Self =
        Self { event: "phx_error", payload: r#"{"reason":"channel_crash"}"# };
}

impl Responder {
    /// Encodes a message. `None` if the client's version cannot carry it, which is counted and
    /// logged.
    pub(crate) fn encode(&self, message: &ServerMessage<'_>) -> Option<Message> {
        let encoded = self.version.encode(message);
        if encoded.is_none() {
            self.skip();
        }
        encoded
    }

    /// Counts and logs a message that the client's version cannot carry.
    pub(crate) fn skip(&self) {
        MESSAGES_SKIPPED.add(1);
        limited!(DEBUG, "skipped a message that the client's protocol version cannot carry");
    }

    /// Encodes a reply. `None` for [`Reply::None`], or if it cannot be encoded.
    pub(crate) fn encode_reply(
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
            // The ref came in a binary frame and is not UTF-8, so JSON cannot repeat it. Phoenix
            // crashes.
            self.outbox.close(Close::Malformed);
            return None;
        }
        let join_ref = self.wire_join_ref(join_ref);
        self.encode(&ServerMessage::Reply { join_ref, reference, topic, status, response })
    }

    /// Encodes a position in the history of a topic, without a message that stands there. It neither counts nor logs,
    /// and so may run under a lock.
    pub(crate) fn encode_position(&self, topic: &str, position: Position) -> Option<Message> {
        let (event, payload, position) = (POSITION, &Payload::EMPTY, Some(position));
        self.version.encode(&ServerMessage::Broadcast { topic, event, payload, position })
    }

    /// Encodes the end of a channel. It neither counts nor logs, and so may run under a lock.
    pub(crate) fn encode_exit(&self, join_ref: &Ref, topic: &str, exit: Exit) -> Option<Message> {
        let (reference, Exit { event, payload }) = (self.wire_join_ref(join_ref), exit);
        self.version.encode(&ServerMessage::End { join_ref, reference, topic, event, payload })
    }

    /// The join_ref in messages of a channel that was joined with this one.
    pub(crate) fn wire_join_ref<'a>(&self, join_ref: &'a Ref) -> &'a Ref {
        static NULL: Ref = Ref::NULL;
        if self.resumable { &NULL } else { join_ref }
    }

    /// Replies to a message.
    pub(crate) fn reply(&self, join_ref: &Ref, reference: &Ref, topic: &Topic<'_>, reply: &Reply) {
        if let Some(message) = self.encode_reply(join_ref, reference, topic, reply) {
            self.outbox.push(message);
        }
    }

    /// Replies to a message ahead of everything that waits in the channel's stream.
    pub(crate) fn reply_first(
        &self,
        join_ref: &Ref,
        reference: &Ref,
        topic: &Topic<'_>,
        reply: &Reply,
    ) {
        if let Some(message) = self.encode_reply(join_ref, reference, topic, reply) {
            self.outbox.priority().push(message);
        }
    }

    /// Replies to a message for a topic that is not joined: without a join_ref, even if the message
    /// had one, as Phoenix does.
    pub(crate) fn reply_unmatched(&self, reference: &Ref, topic: &Topic<'_>) {
        self.reply(&Ref::NULL, reference, topic, &Reply::reason("unmatched topic"));
    }

    /// Reports which refs were handled, as JSON, and whether the client has resumed its session.
    pub(crate) fn reply_handled(&self, reference: &Ref, is_resumed: bool, refs: &str) {
        let response = format!(r#"{{"resumed":{is_resumed},"refs":{refs}}}"#);
        let reply = Reply::Ok(Payload::from_json_text(&response));
        self.reply(&Ref::NULL, reference, &Topic::from("phoenix"), &reply);
    }

    /// Replies to a heartbeat.
    pub(crate) fn reply_to_heartbeat(&self, reference: &Ref, topic: &Topic<'_>) {
        if let Some(message) = self.encode_reply(&Ref::NULL, reference, topic, &Reply::ack()) {
            // A client that matches no reply sends heartbeats by the clock.
            if reference.is_null() {
                self.outbox.priority().push(message);
            } else {
                self.outbox.push_heartbeat_reply(message);
            }
        }
    }

    /// Notifies the client of the end of a channel.
    pub(crate) fn notify_exit(&self, join_ref: &Ref, topic: &str, exit: Exit) {
        if let Some(message) = self.encode_exit(join_ref, topic, exit) {
            self.outbox.push(message);
        }
    }
}
