//! The token that a client carries from one request to the next.
//!
//! It names the session and the last message that an answer carried, which the next poll acknowledges.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The id of a session: 128 random bits in base64url. It cannot be guessed, so knowing it authenticates
/// the client.
pub(super) type Id = [u8; 22];

/// A token; its text is the id followed by the cursor in decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) id: Id,
    /// The position behind the last message of the answer that carried this token; 0 before any.
    pub(super) cursor: u64,
}

/// Draws the id of a session.
pub(super) fn draw_id() -> Result<Id, getrandom::Error> {
    let (mut random, mut id) = ([0; 16], Id::default());
    getrandom::fill(&mut random)?;
    // 16 bytes are encoded in exactly 22 characters.
    let _ = URL_SAFE_NO_PAD.encode_slice(random, &mut id);
    Ok(id)
}

impl Token {
    /// Appends the text of the token.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id);
        // Writing into memory cannot fail.
        let _ = write!(out, "{}", self.cursor);
    }

    /// Parses the text of a token. Returns `None` for text that [`write`](Self::write) never produces.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (id, cursor) = (text.as_bytes().first_chunk()?, text.get(size_of::<Id>()..)?);
        let canonical = cursor == "0" || matches!(cursor.bytes().next(), Some(b'1'..=b'9'));
        Some(Self { id: *id, cursor: cursor.parse().ok().filter(|_| canonical)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(id: Id, cursor: u64) -> String {
        let mut text = Vec::new();
        Token { id, cursor }.write(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_token_that_is_written_is_parsed_back() {
        let id = draw_id().unwrap();
        for cursor in [0, 1, 9, 10, 1234567890, u64::MAX] {
            assert_eq!(Token::parse(&text(id, cursor)), Some(Token { id, cursor }));
        }
    }

    #[test]
    fn a_token_needs_no_escaping_in_a_query() {
        let text = text(draw_id().unwrap(), u64::MAX);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    }

    #[test]
    fn other_text_is_no_token() {
        let id = "0123456789abcdefghijkl";
        assert!(Token::parse(&format!("{id}9")).is_some());
        for cursor in ["", "+9", "-1", "09", "00", "9 ", "9=", "é", "99999999999999999999"] {
            assert_eq!(Token::parse(&format!("{id}{cursor}")), None, "{cursor}");
        }
        for text in
            ["", "null", "undefined", "SFMyNTY.x.y", "é", &id[1..], "0123456789abcdefghijké9"]
        {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }
}
