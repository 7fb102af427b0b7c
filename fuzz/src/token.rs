//! The token of a long-poll client.

use tower_channels_transports::fuzzing::{decode_token, encode_token};

/// Whatever decodes encodes to the same text, so that a session has one token a cursor; and any
/// session and cursor encode to a text that decodes to them and needs no escaping in a query.
pub fn check(data: &[u8]) {
    let text = str::from_utf8(data).unwrap_or_default();
    if let Some((id, cursor)) = decode_token(text) {
        assert_eq!(encode_token(id, cursor), text);
    }
    let Some((id, rest)) = data.split_first_chunk::<16>() else { return };
    let mut cursor = [0; 8];
    let size = rest.len().min(8);
    cursor[..size].copy_from_slice(&rest[..size]);
    let cursor = u64::from_be_bytes(cursor);
    let text = encode_token(*id, cursor);
    assert_eq!(decode_token(&text), Some((*id, cursor)), "{text}");
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)));
}
