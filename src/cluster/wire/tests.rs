use super::*;

const NODE: NodeId = NodeId(0x0102_0304_0506_0708);

fn broadcast(payload: &'static [u8]) -> Body {
    let (topic, event) = (Bytes::from("room:1"), Bytes::from("new_msg"));
    let payload = Bytes::from_static(payload);
    Body::Broadcast(Broadcast { topic, event, payload, is_binary: false })
}

#[test]
fn a_frame_survives_encoding_and_decoding() {
    let mut frame = encode(1, NODE, broadcast(b"{}"));
    set_number(&mut frame, 7);
    let (header, body) = decode_header(frame.freeze(), VERSIONS).unwrap();
    assert_eq!(header, Header { from: NODE, number: 7 });
    assert_eq!(decode_body(body), Ok(Some(broadcast(b"{}"))));
}

/// What other releases rely on.
#[test]
fn the_layout_of_a_frame_is_fixed() {
    let mut frame = encode(1, NODE, broadcast(b"{}"));
    set_number(&mut frame, 0x1122);
    let header = [0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0x11, 0x22];
    let body = b"\x0a\x15\x0a\x06room:1\x12\x07new_msg\x1a\x02{}";
    assert_eq!(frame, [&header[..], body].concat());
}

#[test]
fn a_broadcast_is_encoded_as_any_other_body() {
    let long = "x".repeat(300);
    for (topic, event, payload) in
        [("room:1", "new_msg", "{}"), ("", "", ""), ("t", &*long, &*long)]
    {
        for is_binary in [false, true] {
            let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
            let (topic_bytes, event_bytes) = (copy(topic), copy(event));
            let body = Broadcast {
                topic: topic_bytes,
                event: event_bytes,
                payload: copy(payload),
                is_binary,
            };
            let encoded = encode_broadcast(1, NODE, topic, event, payload.as_bytes(), is_binary);
            assert_eq!(encoded, encode(1, NODE, Body::Broadcast(body)));
        }
    }
}

#[test]
fn the_topic_of_a_broadcast_is_read_without_the_rest() {
    let body = |body| body_of(encode(1, NODE, body));
    assert_eq!(topic_of(&body(broadcast(b"{}"))), Some("room:1"));
    assert_eq!(topic_of(&body(broadcast(b"{}"))[..10]), Some("room:1"));
    for other in
        [Body::Bye(0), Body::Resend(Resend::default()), Body::Broadcast(Broadcast::default())]
    {
        assert_eq!(topic_of(&body(other)), None);
    }
    for broken in [&b""[..], b"\x0a", b"\x0a\x08\x0a\x06room", b"\x0a\x03\x0a\x01\xff"] {
        assert_eq!(topic_of(broken), None);
    }
}

#[test]
fn the_payload_is_a_slice_of_the_frame() {
    let frame = encode(1, NODE, broadcast(b"{\"a\":1}")).freeze();
    let range = frame.as_ptr_range();
    let (_, body) = decode_header(frame, VERSIONS).unwrap();
    let Ok(Some(Body::Broadcast(Broadcast { payload, .. }))) = decode_body(body) else { panic!() };
    assert!(range.contains(&payload.as_ptr()));
}

#[test]
fn a_frame_of_an_unknown_version_is_refused_as_such() {
    let decode = |version| {
        let frame = encode(version, NODE, broadcast(b"{}")).freeze();
        decode_header(frame, Versions { min: 2, max: 3 }).map(|_| ())
    };
    let refused = Err(DecodeError::Version);
    assert_eq!([1, 2, 3, 4].map(decode), [refused, Ok(()), Ok(()), refused]);
}

#[test]
fn fields_and_kinds_that_are_unknown_are_ignored() {
    let mut body = body_of(encode(1, NODE, broadcast(b"{}"))).to_vec();
    // Field 15 of the envelope, 3 bytes.
    body.extend(*b"\x7a\x03abc");
    assert_eq!(decode_body(body.into()), Ok(Some(broadcast(b"{}"))));
    assert_eq!(decode_body(Bytes::from_static(b"\x7a\x03abc")), Ok(None));
}

#[test]
fn what_is_no_frame_is_malformed() {
    for bytes in [&b""[..], b"\x11", b"{\"json\":1}", &[0x11; 16]] {
        let bytes = Bytes::from_static(bytes);
        assert_eq!(decode_header(bytes, VERSIONS), Err(DecodeError::Malformed));
    }
    assert_eq!(decode_body(Bytes::from_static(b"\x0a\xff")), Err(DecodeError::Malformed));
}

/// What other releases rely on.
#[test]
fn the_layout_of_a_question_and_its_answer_is_fixed() {
    let post = questions::Post { token: "t".into(), is_ndjson: true, body: "[]".into() };
    let ask = Ask { id: 7, endpoint: 1, question: Some(questions::Question::Post(post)) };
    let body = |body| body_of(encode(1, NODE, body));
    let expected = b"\x52\x0f\x08\x07\x10\x01\x22\x09\x0a\x01t\x10\x01\x1a\x02[]";
    assert_eq!(body(Body::Ask(ask)), &expected[..]);
    let relayed = questions::Relayed { status: 200, retry_after: Some(0), body: "{}".into() };
    let answer = Answered { id: 7, answer: Some(questions::Answer::Relayed(relayed)) };
    let expected = b"\x5a\x0d\x08\x07\x22\x09\x08\xc8\x01\x10\x00\x1a\x02{}";
    assert_eq!(body(Body::Answer(answer)), &expected[..]);
    let ids = Ids { ids: vec![1, 300] };
    assert_eq!(body(Body::Accepted(ids.clone())), &b"\x62\x05\x0a\x03\x01\xac\x02"[..]);
    assert_eq!(body(Body::Cancel(ids)), &b"\x6a\x05\x0a\x03\x01\xac\x02"[..]);
}

#[test]
fn the_body_of_an_answer_is_a_slice_of_the_frame() {
    let answer = questions::Answer::Given(Bytes::from_static(b"state"));
    let frame = encode(1, NODE, Body::Answer(Answered { id: 7, answer: Some(answer) })).freeze();
    let range = frame.as_ptr_range();
    let (_, body) = decode_header(frame, VERSIONS).unwrap();
    let Ok(Some(Body::Answer(Answered { answer, .. }))) = decode_body(body) else { panic!() };
    let Some(questions::Answer::Given(state)) = answer else { panic!() };
    assert!(range.contains(&state.as_ptr()));
}

#[test]
fn a_question_that_a_later_release_asks_is_known_by_its_id() {
    let ask = b"\x52\x07\x08\x07\x7a\x03abc";
    let known = Ask { id: 7, endpoint: 0, question: None };
    assert_eq!(decode_body(Bytes::from_static(ask)), Ok(Some(Body::Ask(known))));
}
