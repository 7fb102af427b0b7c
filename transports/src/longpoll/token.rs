//! What a client carries from one request to the next: which session is its own, and the number of
//! the last message that an answer brought. The next poll with it acknowledges.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A session's name, as its token begins: 128 bits drawn at random, which cannot be guessed. Who
/// knows it is the client.
pub(super) type Id = [u8; 22];

/// As text it is the name, and the cursor in decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) id: Id,
    /// The number of the last message of the answer that carried this token; 0 before any.
    pub(super) cursor: u64,
}

/// Draws the name of a session.
pub(super) fn draw_id() -> Result<Id, getrandom::Error> {
    let (mut random, mut id) = ([0; 16], Id::default());
    getrandom::fill(&mut random)?;
    // It has just the size for it.
    let _ = URL_SAFE_NO_PAD.encode_slice(random, &mut id);
    Ok(id)
}

impl Token {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id);
        // Writing into memory cannot fail.
        let _ = write!(out, "{}", self.cursor);
    }

    /// `None` for whatever was not written here.
    pub(super) fn read(text: &str) -> Option<Self> {
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
    fn what_is_written_is_read() {
        let id = draw_id().unwrap();
        for cursor in [0, 1, 9, 10, 1234567890, u64::MAX] {
            assert_eq!(Token::read(&text(id, cursor)), Some(Token { id, cursor }));
        }
    }

    #[test]
    fn a_token_needs_no_escaping_in_a_query() {
        let text = text(draw_id().unwrap(), u64::MAX);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    }

    #[test]
    fn anything_else_is_none() {
        let id = "0123456789abcdefghijkl";
        assert!(Token::read(&format!("{id}9")).is_some());
        for cursor in ["", "+9", "-1", "09", "00", "9 ", "9=", "é", "99999999999999999999"] {
            assert_eq!(Token::read(&format!("{id}{cursor}")), None, "{cursor}");
        }
        for text in
            ["", "null", "undefined", "SFMyNTY.x.y", "é", &id[1..], "0123456789abcdefghijké9"]
        {
            assert_eq!(Token::read(text), None, "{text}");
        }
    }
}
