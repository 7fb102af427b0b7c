//! The four binary layouts of 2.0.0: kind, field sizes, fields, data.

pub(crate) fn client_push(
    join_ref: &str,
    reference: &str,
    topic: &str,
    event: &str,
    data: &[u8],
) -> Vec<u8> {
    layout(
        0,
        &[join_ref.as_bytes(), reference.as_bytes(), topic.as_bytes(), event.as_bytes()],
        data,
    )
}

pub(crate) fn push(join_ref: &str, topic: &str, event: &str, data: &[u8]) -> Vec<u8> {
    layout(0, &[join_ref.as_bytes(), topic.as_bytes(), event.as_bytes()], data)
}

pub(crate) fn reply(
    join_ref: &str,
    reference: &str,
    topic: &str,
    status: &str,
    data: &[u8],
) -> Vec<u8> {
    layout(
        1,
        &[join_ref.as_bytes(), reference.as_bytes(), topic.as_bytes(), status.as_bytes()],
        data,
    )
}

pub(crate) fn broadcast(topic: &str, event: &str, data: &[u8]) -> Vec<u8> {
    layout(2, &[topic.as_bytes(), event.as_bytes()], data)
}

pub(crate) fn layout(kind: u8, fields: &[&[u8]], data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(fields.iter().map(|field| u8::try_from(field.len()).expect("at most 255 bytes")));
    bytes.extend(fields.concat());
    bytes.extend_from_slice(data);
    bytes
}
