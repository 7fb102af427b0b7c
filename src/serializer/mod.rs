//! The two spellings of the protocol: pure functions between frames and messages.

mod json;
mod v1;
mod v2;

use std::borrow::Cow;

use serde_json::Value;
use tower_channels_transports::{Inbound, Message};

use crate::message::{ClientMessage, LONGEST_NAME, Name, Ref};
use crate::payload::Payload;

/// The version of the protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// `1.0.0`: JSON objects.
    V1,
    /// `2.0.0`: JSON arrays, and binary frames.
    V2,
}

/// A frame that is no message. It ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError;

impl Version {
    /// Both, in the order of [`Version::index`].
    pub(crate) const COUNT: usize = 2;

    /// Reads the parameter `vsn`: any patch of 1.0 and 2.0, and 1.0.0 without one.
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

    /// Reads a frame. Of version 1 a binary frame is read as text too, as Phoenix does.
    pub fn decode(self, frame: Inbound<'_>) -> Result<ClientMessage<'_>, DecodeError> {
        match (self, frame) {
            (Self::V1, Inbound::Text(text)) => v1::decode(text),
            (Self::V1, Inbound::Binary(bytes)) => {
                v1::decode(str::from_utf8(bytes).map_err(|_| DecodeError)?)
            }
            (Self::V2, Inbound::Text(text)) => v2::decode_text(text),
            (Self::V2, Inbound::Binary(bytes)) => v2::decode_binary(bytes),
        }
    }

    /// Writes a message. `None` if this version cannot say it: binary in version 1, a ref that is no
    /// text in a text frame.
    pub fn encode(self, message: &ServerMessage<'_>) -> Option<Message> {
        match self {
            Self::V1 => v1::encode(message),
            Self::V2 => v2::encode(message),
        }
    }

    /// A small number for tables of one entry a version.
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// A message for a client, before a version spells it.
#[derive(Clone, Copy, Debug)]
pub enum ServerMessage<'a> {
    /// The answer to a message.
    Reply {
        /// The join that it belongs to.
        join_ref: &'a Ref,
        /// The ref of what it answers.
        reference: &'a Ref,
        /// Its topic, which is repeated whatever it was.
        topic: &'a Name<'a>,
        /// `ok` or `error`.
        status: &'a str,
        /// What it carries.
        response: &'a Payload,
    },
    /// A message to one channel of one client.
    Push {
        /// The channel's join.
        join_ref: &'a Ref,
        /// Its topic.
        topic: &'a str,
        /// Its event.
        event: &'a str,
        /// What it carries.
        payload: &'a Payload,
    },
    /// A message to everyone on a topic, the same for all.
    Broadcast {
        /// Its topic.
        topic: &'a str,
        /// Its event.
        event: &'a str,
        /// What it carries.
        payload: &'a Payload,
    },
    /// `phx_close` or `phx_error`, whose ref is the channel's join_ref.
    End {
        /// The channel's join, as it was sent.
        join_ref: &'a Ref,
        /// Its topic.
        topic: &'a str,
        /// Its event.
        event: &'a str,
        /// JSON text.
        payload: &'a str,
    },
}

/// A topic or an event out of valid JSON.
fn name(json: &str) -> Result<Name<'_>, DecodeError> {
    let Some(inner) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return Ok(Name::Other(json));
    };
    let text = if inner.contains('\\') {
        Cow::Owned(serde_json::from_str(json).map_err(|_| DecodeError)?)
    } else {
        Cow::Borrowed(inner)
    };
    if text.len() > LONGEST_NAME { Err(DecodeError) } else { Ok(Name::Text(text)) }
}

/// `{"status":…,"response":…}`. `None` for a binary response.
fn write_reply(out: &mut Vec<u8>, status: &str, response: &Payload) -> Option<()> {
    out.extend_from_slice(b"{\"status\":\"");
    out.extend_from_slice(status.as_bytes());
    out.extend_from_slice(b"\",\"response\":");
    out.extend_from_slice(response.as_json()?);
    out.push(b'}');
    Some(())
}

/// A JSON string.
fn write_json(out: &mut Vec<u8>, text: &str) {
    // Writing a string into memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// The length byte of a binary frame.
fn short(text: &[u8]) -> Option<u8> {
    text.len().try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_patch_of_both_versions_is_spoken_and_nothing_else() {
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
    fn version_1_reads_binary_frames_as_text() {
        let text = r#"{"topic":"t","event":"e","payload":{},"ref":"1"}"#;
        assert_eq!(
            Version::V1.decode(Inbound::Binary(text.as_bytes())),
            Version::V1.decode(Inbound::Text(text))
        );
        assert_eq!(Version::V1.decode(Inbound::Binary(b"\xff")), Err(DecodeError));
    }
}
