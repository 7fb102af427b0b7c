//! Frames of protocol 1.0.0: `{"topic":…,"event":…,"payload":…,"ref":…}`, optionally with a
//! `join_ref`.

use tower_channels::internals::{ClientMessage, ClientPayload, Version};
use tower_channels_transports::Inbound;

use crate::json;

/// Asserts that a binary frame decodes like a text frame, that valid payloads can be parsed, and that
/// a message encoded differently, such as with keys in another order, decodes to the same.
pub fn check(data: &[u8]) {
    let binary = Version::V1.decode(Inbound::Binary(data));
    let text = str::from_utf8(data).ok();
    assert_eq!(binary.ok(), text.and_then(decode), "binary and text differ");
    if let Some(message) = text.and_then(decode) {
        assert_reencoding_is_equal(&message);
    }
}

fn decode(text: &str) -> Option<ClientMessage<'_>> {
    Version::V1.decode(Inbound::Text(text)).ok()
}

fn assert_reencoding_is_equal(message: &ClientMessage<'_>) {
    let payload = match message.payload {
        ClientPayload::Json(payload) => payload,
        // The decoder does not keep it.
        ClientPayload::Invalid => "[1e400]",
        ClientPayload::Binary(_) => panic!("not JSON: {message:?}"),
    };
    json::assert_validated(message.payload, payload);
    let join_ref = json::reencoded(message.join_ref.as_json().expect("a ref of a text frame"));
    let reference = json::reencoded(message.reference.as_json().expect("a ref of a text frame"));
    let (topic, event) = (json::topic(&message.topic), json::event(&message.event));
    let mut fields = vec![
        format!(r#""ref":{reference}"#),
        format!(r#""event" : {event}"#),
        format!(r#""p\u0061yload":{payload}"#),
        format!(r#""topic":{topic}"#),
        format!(r#""join_ref":{join_ref}"#),
        r#""other":[{"ref":"no"}]"#.to_owned(),
    ];
    let after = message.after.map(|after| json::escaped(&after.to_string()));
    fields.extend(after.map(|after| format!(r#""aft\u0065r" : {after}"#)));
    for _ in 0..fields.len() {
        fields.rotate_left(1);
        let written = format!(" {{{}}}\n", fields.join(", "));
        assert_eq!(decode(&written).as_ref(), Some(message), "encoded as {written}");
    }
    // The first of duplicate keys counts.
    let twice = format!(r#"{{{},"ref":1,"topic":{{}},"payload":1,"event":1}}"#, fields.join(","));
    assert_eq!(decode(&twice).as_ref(), Some(message), "encoded as {twice}");
}
