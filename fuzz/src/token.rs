//! The tokens of long-poll clients.

use tower_channels_transports::internals::fuzzing::{read_token, write_token};

/// Asserts that a valid token is encoded as the same text again, so that each cursor of a session
/// has one token; and that any session, node and cursor survive a round trip through a token that
/// needs no escaping in a query.
pub fn check(data: &[u8]) {
    let text = str::from_utf8(data).unwrap_or_default();
    if let Some(token) = read_token(text) {
        assert_eq!(write_token(token), text.as_bytes());
    }
    let Some((id, rest)) = data.split_first_chunk::<22>() else { return };
    let id = id.map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()]);
    let (cursor, rest) = number(rest);
    let node = (!rest.is_empty()).then(|| number(rest).0);
    let text = String::from_utf8(write_token((id, node, cursor))).expect("text");
    assert_eq!(read_token(&text), Some((id, node, cursor)), "{text}");
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
}

/// Reads up to eight bytes as the leading ones of a number. Returns it with the rest.
fn number(data: &[u8]) -> (u64, &[u8]) {
    let (bytes, rest) = data.split_at(data.len().min(8));
    let mut number = [0; 8];
    number[..bytes.len()].copy_from_slice(bytes);
    (u64::from_be_bytes(number), rest)
}

/// The alphabet of session names.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
