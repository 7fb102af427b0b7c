//! The tokens of long-poll clients.

use tower_channels_transports::internals::fuzzing::{read_token, write_token};

/// Asserts that a valid token is encoded as the same text again, so that each cursor of a session
/// has one token; and that any session and cursor survive a round trip through a token that needs
/// no escaping in a query.
pub fn check(data: &[u8]) {
    let text = str::from_utf8(data).unwrap_or_default();
    if let Some((id, cursor)) = read_token(text) {
        assert_eq!(write_token(id, cursor), text.as_bytes());
    }
    let Some((id, rest)) = data.split_first_chunk::<22>() else { return };
    let id = id.map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()]);
    let mut cursor = [0; 8];
    let size = rest.len().min(8);
    cursor[..size].copy_from_slice(&rest[..size]);
    let cursor = u64::from_be_bytes(cursor);
    let text = String::from_utf8(write_token(id, cursor)).expect("text");
    assert_eq!(read_token(&text), Some((id, cursor)), "{text}");
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)));
}

/// The alphabet of session names.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
