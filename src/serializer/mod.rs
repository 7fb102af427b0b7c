//! The serializers of both protocol versions: pure functions between frames and messages.

pub(crate) mod json;
mod server_message;
mod v1;
mod v2;

use serde_json::Value;
use tower_channels_transports::{Inbound, Message};

pub use self::server_message::ServerMessage;
use crate::message::{ClientMessage, DecodeError};

/// A version of the Phoenix Channels protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Version {
    /// `1.0.0`: JSON objects.
    V1,
    /// `2.0.0`: JSON arrays, and binary frames.
    V2,
}

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
}
