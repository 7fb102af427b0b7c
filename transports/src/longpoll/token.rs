//! What a client carries from one request to the next: which session is its own, and the number of
//! the last message that an answer brought. The next poll with it acknowledges.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A session's name. It is drawn at random and cannot be guessed: who knows it is the client.
pub(super) type Id = [u8; 16];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) id: Id,
    /// The number of the last message of the answer that carried this token; 0 before any.
    pub(super) cursor: u64,
}

impl Token {
    /// As text.
    pub(super) fn encode(&self) -> [u8; 32] {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.id);
        bytes[16..].copy_from_slice(&self.cursor.to_be_bytes());
        let mut text = [0; 32];
        // It has just the size for it.
        let _ = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text);
        text
    }

    /// `None` for whatever was not encoded here.
    pub(super) fn decode(text: impl AsRef<[u8]>) -> Option<Self> {
        let mut bytes = [0; 24];
        if URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()? != bytes.len() {
            return None;
        }
        let (id, cursor) = bytes.split_at(16);
        Some(Self { id: id.try_into().ok()?, cursor: u64::from_be_bytes(cursor.try_into().ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes() {
        for cursor in [0, 1, u64::MAX] {
            let token = Token { id: *b"0123456789abcdef", cursor };
            assert_eq!(Token::decode(token.encode()), Some(token));
        }
    }

    #[test]
    fn a_token_needs_no_escaping_in_a_query() {
        let text = Token { id: [0xff; 16], cursor: u64::MAX }.encode();
        assert!(text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)));
    }

    #[test]
    fn anything_else_is_none() {
        let good = Token { id: [7; 16], cursor: 9 }.encode();
        let good = str::from_utf8(&good).unwrap();
        let (short, long) = (&good[1..], format!("{good}AAAA"));
        for text in ["", "null", "undefined", "SFMyNTY.x.y", "é", short, &long, &format!("{good}=")]
        {
            assert_eq!(Token::decode(text), None, "{text}");
        }
    }
}
