//! The serializers of both protocol versions: pure functions between frames and messages.

mod json;
mod v1;
mod v2;

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use serde_json::Value;
use tower_channels_transports::{Inbound, Message};

use crate::message::{ClientMessage, Event, LONGEST_NAME, Ref, Topic};
use crate::payload::Payload;

/// A version of the Phoenix Channels protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Version {
    /// `1.0.0`: JSON objects.
    V1,
    /// `2.0.0`: JSON arrays, and binary frames.
    V2,
}

/// Error returned for a frame that is not a valid message. It ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError;

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the frame is not a valid message")
    }
}

impl Error for DecodeError {}

impl Version {
    /// The number of versions.
    pub(crate) const COUNT: usize = 2;

    /// Selects the version for the connect parameter `vsn`: any patch of 1.0 or 2.0, and 1.0.0
    /// without the parameter. `None` if the version is not supported.
    pub fn negotiate(vsn: Option<&Value>) -> Option<Self> {
        let Some(vsn) = vsn else { return Some(Self::V1) };
        let (version, patch) = vsn.as_str()?.rsplit_once('.')?;
        let is_number = patch.bytes().all(|byte| byte.is_ascii_digit())
            && (patch == "0" || !patch.is_empty() && !patch.starts_with('0'));
        match version {
            "1.0" if is_number => Some(Self::V1),
            "2.0" if is_number => Some(Self::V2),
            _ => None,
        }
    }

    /// Decodes a frame. Like Phoenix, version 1 decodes a binary frame as text.
    ///
    /// # Errors
    /// If the frame is not a valid message.
    pub fn decode(self, frame: Inbound<'_>) -> Result<ClientMessage<'_>, DecodeError> {
        match (self, frame) {
            (Self::V1, Inbound::Text(text)) => v1::decode(text),
            (Self::V1, Inbound::Binary(bytes)) => {
                v1::decode(str::from_utf8(bytes).map_err(|_| DecodeError)?)
            }
            (Self::V2, Inbound::Text(text)) => v2::decode_text(text),
            (Self::V2, Inbound::Binary(bytes)) => v2::decode_binary(bytes),
            _ => Err(DecodeError),
        }
    }

    /// Encodes a message. `None` if this version cannot represent it: a binary payload in version 1,
    /// or a ref that is not UTF-8 in a text frame.
    pub fn encode(self, message: &ServerMessage<'_>) -> Option<Message> {
        match self {
            Self::V1 => v1::encode(message),
            Self::V2 => v2::encode(message),
        }
    }

    /// Returns the index of this version in a table with one entry per version.
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// A message for a client, not yet encoded.
#[derive(Clone, Copy, Debug)]
pub enum ServerMessage<'a> {
    /// `phx_reply`, the reply to a message.
    Reply {
        /// The join that the message belongs to.
        join_ref: &'a Ref,
        /// The ref of the message.
        reference: &'a Ref,
        /// The topic of the message.
        topic: &'a Topic<'a>,
        /// `ok` or `error`.
        status: &'a str,
        /// The response.
        response: &'a Payload,
    },
    /// A message to one channel of one client.
    Push {
        /// The join of the channel.
        join_ref: &'a Ref,
        /// The topic.
        topic: &'a str,
        /// The event.
        event: &'a str,
        /// The payload.
        payload: &'a Payload,
    },
    /// A message to all subscribers of a topic, the same for each.
    Broadcast {
        /// The topic.
        topic: &'a str,
        /// The event.
        event: &'a str,
        /// The payload.
        payload: &'a Payload,
    },
    /// `phx_close` or `phx_error`, the end of a channel. Its ref is the join_ref of the channel.
    End {
        /// The join_ref, as the client sent it.
        join_ref: &'a Ref,
        /// The topic.
        topic: &'a str,
        /// The event.
        event: &'a str,
        /// The payload, as JSON text.
        payload: &'a str,
    },
}

/// Decodes a topic from valid JSON text.
fn decode_topic(json: &str) -> Result<Topic<'_>, DecodeError> {
    Ok(decode_name(json)?.map_or(Topic::Other(json), Topic::Text))
}

/// Decodes an event from valid JSON text.
fn decode_event(json: &str) -> Result<Event<'_>, DecodeError> {
    Ok(decode_name(json)?.map_or(Event::Other, Event::Text))
}

/// Decodes a JSON string of bounded length. `None` for any other JSON value.
fn decode_name(json: &str) -> Result<Option<Cow<'_, str>>, DecodeError> {
    let Some(inner) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Ok(None);
    };
    let text = if inner.contains('\\') {
        Cow::Owned(serde_json::from_str(json).map_err(|_| DecodeError)?)
    } else {
        Cow::Borrowed(inner)
    };
    if text.len() > LONGEST_NAME { Err(DecodeError) } else { Ok(Some(text)) }
}

/// Appends `{"status":…,"response":…}`. `None` if the response is binary.
fn write_reply(out: &mut String, status: &str, response: &Payload) -> Option<()> {
    out.push_str("{\"status\":\"");
    out.push_str(status);
    out.push_str("\",\"response\":");
    out.push_str(response.as_json()?);
    out.push('}');
    Some(())
}

/// Appends a topic as JSON.
fn write_topic(out: &mut String, topic: &Topic<'_>) {
    match topic {
        Topic::Text(topic) => write_string(out, topic),
        Topic::Other(json) => out.push_str(json),
    }
}

/// Appends a JSON string.
fn write_string(out: &mut String, text: &str) {
    let needs_escape = |byte| matches!(byte, ..b' ' | b'"' | b'\\');
    if text.bytes().any(needs_escape) {
        out.push_str(&Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

/// Returns the length byte of a text in a binary frame. `None` if the text is too long.
fn length_byte(text: &[u8]) -> Option<u8> {
    text.len().try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_patch_of_both_versions_is_supported_and_nothing_else() {
        assert_eq!(Version::negotiate(None), Some(Version::V1));
        for (vsn, version) in [
            ("1.0.0", Version::V1),
            ("1.0.5", Version::V1),
            ("2.0.0", Version::V2),
            ("2.0.7", Version::V2),
        ] {
            assert_eq!(Version::negotiate(Some(&json!(vsn))), Some(version));
        }
        for vsn in [
            "1.1.0",
            "2.1.0",
            "3.0.0",
            "2.0",
            "2",
            "2.0.0-rc.1",
            "abc",
            "",
            "2.0.",
            "2.0.00",
            "2.0.x",
        ] {
            assert_eq!(Version::negotiate(Some(&json!(vsn))), None, "{vsn}");
        }
        assert_eq!(Version::negotiate(Some(&json!(["2.0.0"]))), None);
    }

    #[test]
    fn version_1_decodes_binary_frames_as_text() {
        let text = r#"{"topic":"t","event":"e","payload":{},"ref":"1"}"#;
        assert_eq!(
            Version::V1.decode(Inbound::Binary(text.as_bytes())),
            Version::V1.decode(Inbound::Text(text))
        );
        assert_eq!(Version::V1.decode(Inbound::Binary(b"\xff")), Err(DecodeError));
    }

    #[test]
    fn strings_are_escaped_as_serde_json_escapes_them() {
        for text in ["", "room:1", "é😀\u{7f}", "\"", "\\", "line\nbreak", "\u{0}\u{1f} /"] {
            let mut out = String::from("[");
            write_string(&mut out, text);
            assert_eq!(out[1..], serde_json::to_string(text).expect("a string"));
        }
    }
}
