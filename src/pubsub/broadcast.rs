//! [`Broadcast`], encoded once per protocol version however many clients receive it.

use std::fmt;
use std::sync::OnceLock;

use smol_str::SmolStr;
use tower_channels_transports::Message;

use crate::message::Ref;
use crate::payload::Payload;
use crate::serializer::{ServerMessage, Version};

/// A message to every subscriber of a topic.
pub(crate) struct Broadcast {
    topic: SmolStr,
    event: SmolStr,
    payload: Payload,
    volatile: bool,
    /// By [`Version::index`]; `None` where the version cannot carry it.
    encoded: [OnceLock<Option<Message>>; Version::COUNT],
}

impl Broadcast {
    pub(crate) fn new(topic: SmolStr, event: SmolStr, payload: Payload) -> Self {
        Self { topic, event, payload, volatile: false, encoded: Default::default() }
    }

    /// Makes it volatile: worthless to a client that was away and is sent its subject anew.
    pub(crate) fn volatile(self) -> Self {
        Self { volatile: true, ..self }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn event(&self) -> &str {
        &self.event
    }

    pub(crate) fn payload(&self) -> &Payload {
        &self.payload
    }

    pub(super) fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// The bytes that it takes to keep.
    pub(super) fn cost(&self) -> usize {
        self.payload.len() + self.topic.len() + self.event.len() + size_of::<Self>()
    }

    /// Encodes it for clients of `version`, or returns `None` if the version cannot carry it.
    pub(super) fn encode(&self, version: Version) -> Option<&Message> {
        let Self { topic, event, payload, .. } = self;
        let encode = || {
            let message = version.encode(&ServerMessage::Broadcast { topic, event, payload })?;
            let message = message.for_many();
            Some(if self.volatile { message.volatile() } else { message })
        };
        self.encoded[version.index()].get_or_init(encode).as_ref()
    }

    /// Encodes it as a push to a channel of one client. Only the join_ref is the client's own; the
    /// rest is shared by all recipients.
    pub(crate) fn encode_push(&self, version: Version, join_ref: &Ref) -> Option<Message> {
        let shared = self.encode(version)?.clone();
        Some(match join_ref.as_json() {
            Some(text) if version == Version::V2 && !join_ref.is_null() => {
                shared.with_start(["[", text].concat(), "[null".len())
            }
            _ => shared,
        })
    }
}

impl fmt::Debug for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, event, .. } = self;
        f.debug_struct("Broadcast")
            .field("topic", topic)
            .field("event", event)
            .finish_non_exhaustive()
    }
}
