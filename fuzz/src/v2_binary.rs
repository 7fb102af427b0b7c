//! Binary frames of protocol 2.0.0: 0, four lengths, join_ref, ref, topic, event, data.

use tower_channels::internals::{ClientMessage, ClientPayload, Ref, Version};
use tower_channels_transports::Inbound;

/// Asserts that a frame decodes if and only if its lengths fit and its topic is UTF-8, that its
/// parts are those delimited by the lengths, and that encoding them again yields the same message.
pub fn check(data: &[u8]) {
    let decoded = Version::V2.decode(Inbound::Binary(data)).ok();
    let parts = split(data).filter(|parts| str::from_utf8(parts[2]).is_ok());
    assert_eq!(decoded.is_some(), parts.is_some(), "decoded, split");
    let (Some(message), Some([join_ref, reference, topic, event, data])) = (decoded, parts) else {
        return;
    };
    assert_ref(&message.join_ref, join_ref);
    assert_ref(&message.reference, reference);
    assert_eq!(message.topic.as_text().map(str::as_bytes), Some(topic));
    assert_eq!(message.event.as_text(), Some(&*String::from_utf8_lossy(event)));
    assert_eq!(message.payload, ClientPayload::Binary(data));
    assert_reencoding_is_equal(&message, event);
}

/// Splits a frame by its definition.
fn split(data: &[u8]) -> Option<[&[u8]; 5]> {
    let [0, join_ref, reference, topic, event, rest @ ..] = data else { return None };
    let (join_ref, rest) = rest.split_at_checked((*join_ref).into())?;
    let (reference, rest) = rest.split_at_checked((*reference).into())?;
    let (topic, rest) = rest.split_at_checked((*topic).into())?;
    let (event, rest) = rest.split_at_checked((*event).into())?;
    Some([join_ref, reference, topic, event, rest])
}

/// Asserts that a ref of a binary frame is a string, which has a JSON form if it is UTF-8.
fn assert_ref(read: &Ref, bytes: &[u8]) {
    assert!(!read.is_null());
    let json = read.as_json().map(|json| serde_json::from_str::<String>(json).expect("a string"));
    assert_eq!(json.as_deref(), str::from_utf8(bytes).ok());
    assert_eq!(Some(read), Ref::from_bytes(bytes).as_ref());
}

fn assert_reencoding_is_equal(message: &ClientMessage<'_>, event: &[u8]) {
    let text = |read: &Ref| serde_json::from_str::<String>(read.as_json()?).ok();
    let (Some(join_ref), Some(reference)) = (text(&message.join_ref), text(&message.reference))
    else {
        return;
    };
    let ClientPayload::Binary(data) = message.payload else { return };
    let topic = message.topic.as_text().unwrap_or_default();
    let texts = [join_ref.as_bytes(), reference.as_bytes(), topic.as_bytes(), event];
    let mut written = vec![0];
    written.extend(texts.map(|text| u8::try_from(text.len()).expect("at most 255 bytes")));
    written.extend([&texts[..], &[data]].concat().concat());
    let again = Version::V2.decode(Inbound::Binary(&written));
    assert_eq!(again.as_ref(), Ok(message), "encoded as {written:?}");
}
