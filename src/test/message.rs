//! [`Message`], decoded from what the server sent.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;
use tower_channels_transports as transports;

use crate::history::Position;
use crate::payload::Payload;
use crate::pubsub::Broadcast;
use crate::reply::Reply;

/// A message from the server, returned by [`Client::next_message`](super::Client::next_message).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// The `join_ref`, if there is one.
    pub join_ref: Option<String>,
    /// The `ref` of the push that this is the reply to.
    pub reference: Option<String>,
    /// The topic.
    pub topic: String,
    /// The event; `phx_reply` for a reply.
    pub event: String,
    /// Where it stands in the history of the topic, if the client has asked with the parameter `positions`.
    pub position: Option<Position>,
    /// The payload; for a binary reply, the response without its status.
    pub payload: Payload,
    /// The status of a binary reply.
    status: Option<String>,
}

impl Message {
    /// Decodes a message of protocol 2.0.0.
    ///
    /// # Panics
    /// If it is malformed, which would be a bug of the server.
    pub(super) fn decode(message: &transports::Message) -> Self {
        let decoded = if message.is_binary() {
            Self::decode_binary(&message.to_bytes())
        } else {
            Self::decode_text(&message.to_bytes())
        };
        let decoded = decoded.map(Self::with_position);
        decoded.unwrap_or_else(|| panic!("not a message of protocol 2.0.0: {message:?}"))
    }

    /// Takes the position out of the ref, or out of the join_ref of a binary message.
    fn with_position(mut self) -> Self {
        let in_join_ref =
            self.join_ref.as_deref().and_then(|text| text.strip_prefix("p:")?.parse().ok());
        if let Some(position) = in_join_ref {
            return Self { join_ref: None, position: Some(position), ..self };
        }
        let (number, position) = match self.reference.as_deref() {
            Some(text) if text.starts_with("p:") => (None, &text["p:".len()..]),
            Some(text) if text.starts_with("s:") => {
                let Some((number, position)) = text["s:".len()..].split_once(':') else {
                    return self;
                };
                (Some(format!("s:{number}")), position)
            }
            _ => return self,
        };
        if let Ok(position) = position.parse() {
            (self.reference, self.position) = (number, Some(position));
        }
        self
    }

    fn decode_text(text: &[u8]) -> Option<Self> {
        type Five<'a> = (Option<String>, Option<String>, String, String, &'a RawValue);
        let (join_ref, reference, topic, event, payload): Five<'_> =
            serde_json::from_slice(text).ok()?;
        let payload = Payload::from_json_text(payload.get());
        Some(Self { join_ref, reference, topic, event, position: None, payload, status: None })
    }

    fn decode_binary(frame: &[u8]) -> Option<Self> {
        const PUSH: u8 = 0;
        const REPLY: u8 = 1;
        const BROADCAST: u8 = 2;
        let (kind, rest) = frame.split_first()?;
        let count = match *kind {
            PUSH => 3,
            REPLY => 4,
            BROADCAST => 2,
            _ => return None,
        };
        let (lengths, mut rest) = rest.split_at_checked(count)?;
        let mut texts = Vec::new();
        for length in lengths {
            let (text, after) = rest.split_at_checked((*length).into())?;
            texts.push(String::from_utf8(text.to_vec()).ok()?);
            rest = after;
        }
        let payload = Payload::binary(rest.to_vec());
        let mut texts = texts.into_iter();
        let join_ref = if *kind == BROADCAST { None } else { texts.next() };
        let reference = if *kind == REPLY { texts.next() } else { None };
        let (topic, last) = (texts.next()?, texts.next()?);
        let (event, status) =
            if *kind == REPLY { ("phx_reply".into(), Some(last)) } else { (last, None) };
        Some(Self { join_ref, reference, topic, event, position: None, payload, status })
    }

    /// Converts a broadcast.
    pub(super) fn of(broadcast: &Broadcast) -> Self {
        Self {
            join_ref: None,
            reference: None,
            topic: broadcast.topic().to_owned(),
            event: broadcast.event().to_owned(),
            position: broadcast.position(),
            payload: broadcast.payload().clone(),
            status: None,
        }
    }

    /// Returns whether it is a push or a broadcast.
    pub(super) fn is_push(&self) -> bool {
        self.event != "phx_reply"
    }

    /// Returns whether presence has sent it.
    pub(super) fn is_of_presence(&self) -> bool {
        matches!(&*self.event, "presence_state" | "presence_diff")
    }

    /// Updates the last received sequence number. A text message carries its number in place of its
    /// ref, and loses it here; a binary message counts one.
    pub(super) fn take_number(&mut self, received: &mut u64) {
        let number = self.reference.as_deref().and_then(|text| text.strip_prefix("s:"));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            *received = number;
            self.reference = None;
        } else if self.payload.as_binary().is_some() && self.event != "phx_reply" {
            *received += 1;
        }
    }

    /// Converts a `phx_reply` into the reply that it carries.
    pub(super) fn into_reply(self) -> Reply {
        #[derive(Deserialize)]
        struct Body<'a> {
            status: String,
            #[serde(borrow)]
            response: &'a RawValue,
        }
        let (status, response) = match self.status {
            Some(status) => (status, self.payload),
            None => {
                let body = self.payload.as_json().unwrap_or_default();
                let body: Body<'_> =
                    serde_json::from_str(body).expect("a reply has a status and a response");
                (body.status, Payload::from_json_text(body.response.get()))
            }
        };
        if status == "ok" { Reply::Ok(response) } else { Reply::Error(response) }
    }
}

/// As an array of protocol 2.0.0.
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &Option<String>| match text {
            Some(text) => format!("{text:?}"),
            None => "null".to_owned(),
        };
        let (join_ref, reference) = (text(&self.join_ref), text(&self.reference));
        let Self { topic, event, payload, .. } = self;
        write!(f, "[{join_ref},{reference},{topic:?},{event:?},{payload:?}]")
    }
}
