use super::*;
use crate::payload::Payload;

fn encoded(message: &ServerMessage<'_>) -> String {
    let message = encode(message).expect("representable");
    String::from_utf8_lossy(&message.to_bytes()).into_owned()
}

#[test]
fn a_text_frame_is_an_array_of_at_least_five() {
    let frame = decode_text(r#" ["1",2,"room:a","ping",{"a":[1, 2]},"more",[]] "#).expect("valid");
    assert_eq!(frame.join_ref.as_json(), Some("\"1\""));
    assert_eq!(frame.reference.as_json(), Some("2"));
    assert_eq!(frame.topic, Topic::from("room:a"));
    assert_eq!(frame.event, Event::from("ping"));
    assert_eq!(frame.payload, ClientPayload::Json(r#"{"a":[1, 2]}"#));
}

#[test]
fn both_ways_to_split_a_frame_agree() {
    for text in [
        r#"["1","23","room:a","ping",{"a":[1, "é"]}]"#,
        r#"[null,"é","","phx_join",null]"#,
        r#"[null,null,"t","e","\u0041"]"#,
    ] {
        let slowly = decode_slow(text).expect("valid");
        assert_eq!(decode_fast(text).map(|five| (five, None)), Some(slowly), "{text}");
        assert!(decode_fast(text).is_some(), "{text}");
    }
    for text in [
        r#"["1","2","t","e",{},"more"]"#,
        r#"["1","2","t\n","e",{}]"#,
        r#"["1",2,"t","e",{}]"#,
        r#"["1","2","t","e",{}"#,
        r#"["1","2","t","e",]"#,
        r#"["1""2","t","e",{}]"#,
        r#"["1","2",null"t","e",{}]"#,
        r#"["1","2",é"e",{}]"#,
        "[\"1\",\"2\",\"t\n\",\"e\",{}]",
        r#"[123","2","t","e",{}]"#,
        r#"["1","2","t","e",{}]]"#,
        "[]",
        "[",
    ] {
        assert_eq!(decode_fast(text), None, "{text}");
    }
}

#[test]
fn anything_but_an_array_of_five_is_malformed() {
    for text in [
        "",
        " ",
        "x",
        "{}",
        "[]",
        r#"["1","1","t","e"]"#,
        r#"["1","1","t","e",{}"#,
        r#"["1","1","t","e",{}]]"#,
        r#"["1","1","t","e",{},1e400]"#,
        r#"[1.5,"1","t","e",{}]"#,
        r#"["1",{},"t","e",{}]"#,
        r#"["1","1","\ud83d","e",{}]"#,
    ] {
        assert_eq!(decode_text(text), Err(DecodeError), "{text}");
    }
}

#[test]
fn a_join_names_a_position_in_a_sixth_element() {
    let decode = |event: &str, sixth: &str| {
        let text = format!(r#"["1","1","t","{event}",{{}},{sixth}]"#);
        decode_text(&text).expect("valid").after
    };
    let position = Some(Position { epoch: 1, number: 17 });
    assert_eq!(decode("phx_join", r#"{"after":"AAAAAAAAAAE.17"}"#), position);
    assert_eq!(decode("phx_join", r#"{ "a":[1], "after":"AAAAAAAAAAE.\u00317" },{}"#), position);
    for sixth in [
        "{}",
        "null",
        "[]",
        r#""AAAAAAAAAAE.17""#,
        r#"{"after":17}"#,
        r#"{"after":null}"#,
        r#"{"after":"AAAAAAAAAAE"}"#,
        r#"{"after":"AAAAAAAAAAE.17","after":"AAAAAAAAAAE.17"}"#,
        r#"{},{"after":"AAAAAAAAAAE.17"}"#,
    ] {
        assert_eq!(decode("phx_join", sixth), None, "{sixth}");
    }
    assert_eq!(decode("e", r#"{"after":"AAAAAAAAAAE.17"}"#), None);
}

#[test]
fn a_payload_that_not_every_parser_reads_is_invalid() {
    for payload in ["1e400", r#"{"a":"\ud83d"}"#, &"1".repeat(400)] {
        for refs in [r#""1","1""#, r#""1",1"#] {
            let text = format!(r#"[{refs},"t","e",{payload}]"#);
            let message = decode_text(&text).expect("a sound envelope");
            assert_eq!(message.payload, ClientPayload::Invalid, "{text}");
            assert_eq!(message.topic, Topic::from("t"));
        }
    }
}

#[test]
fn topics_and_events_may_be_any_json_and_are_bounded() {
    let frame = decode_text(r#"[null,null,5,null,null]"#).expect("valid");
    assert_eq!((frame.topic, frame.event), (Topic::Other("5"), Event::Other));
    let escaped = decode_text(r#"[null,null,"a\u0062","e",null]"#).expect("valid");
    assert_eq!(escaped.topic, Topic::from("ab"));
    assert!(decode_text(&format!(r#"[null,null,"{}","e",null]"#, "x".repeat(255))).is_ok());
    assert!(decode_text(&format!(r#"[null,null,"{}","e",null]"#, "x".repeat(256))).is_err());
}

#[test]
fn a_binary_frame_is_split_by_its_lengths() {
    let frame = decode_binary(b"\x00\x01\x02\x01\x04123tping\x00\xff").expect("valid");
    assert_eq!(frame.join_ref, Ref::from_bytes(b"1").expect("short"));
    assert_eq!(frame.reference, Ref::from_bytes(b"23").expect("short"));
    assert_eq!((frame.topic, frame.event), (Topic::from("t"), Event::from("ping")));
    assert_eq!(frame.payload, ClientPayload::Binary(b"\x00\xff"));
}

#[test]
fn a_truncated_binary_frame_or_one_of_another_kind_is_malformed() {
    for frame in [
        &b""[..],
        b"\x00",
        b"\x00\x01\x02\x01",
        b"\x00\x01\x02\x01\x04123tpin",
        b"\x01\0\0\0\0",
        b"[\"1\"]",
    ] {
        assert_eq!(decode_binary(frame), Err(DecodeError), "{frame:?}");
    }
    assert_eq!(decode_binary(b"\x00\0\0\x01\0\xff"), Err(DecodeError));
}

#[test]
fn messages_are_encoded_as_phoenix_encodes_them() {
    let one = Ref::from_json("\"1\"").expect("a ref");
    let payload = Payload::from_json_text(r#"{"a":1}"#);
    let (null, topic) = (Ref::NULL, Topic::from("t"));
    let reply = |response| ServerMessage::Reply {
        join_ref: &one,
        reference: &null,
        topic: &topic,
        status: "ok",
        response,
    };
    assert_eq!(
        encoded(&reply(&payload)),
        r#"["1",null,"t","phx_reply",{"status":"ok","response":{"a":1}}]"#
    );
    assert_eq!(encoded(&reply(&Payload::binary("d"))), "\u{1}\u{1}\u{0}\u{1}\u{2}1tokd");
    let push = |payload, position| {
        let (topic, event) = ("t", "e");
        encoded(&ServerMessage::Push { join_ref: &one, topic, event, payload, position })
    };
    let binary = Payload::binary("d");
    assert_eq!(push(&payload, None), r#"["1",null,"t","e",{"a":1}]"#);
    assert_eq!(push(&binary, None), "\u{0}\u{1}\u{1}\u{1}1ted");
    let broadcast = |payload, position| {
        let (topic, event) = ("t\"", "e");
        encoded(&ServerMessage::Broadcast { topic, event, payload, position })
    };
    assert_eq!(broadcast(&payload, None), r#"[null,null,"t\"","e",{"a":1}]"#);
    assert_eq!(broadcast(&binary, None), "\u{2}\u{2}\u{1}t\"ed");
    let position = Some(Position { epoch: 1, number: 17 });
    assert_eq!(push(&payload, position), r#"["1","p:AAAAAAAAAAE.17","t","e",{"a":1}]"#);
    assert_eq!(push(&binary, position), "\u{0}\u{10}\u{1}\u{1}p:AAAAAAAAAAE.17ted");
    assert_eq!(broadcast(&payload, position), r#"[null,"p:AAAAAAAAAAE.17","t\"","e",{"a":1}]"#);
    assert_eq!(broadcast(&binary, position), "\u{0}\u{10}\u{2}\u{1}p:AAAAAAAAAAE.17t\"ed");
    let end = |reference| {
        let (event, payload) = ("phx_close", "{}");
        ServerMessage::End { join_ref: &one, reference, topic: "t", event, payload }
    };
    assert_eq!(encoded(&end(&one)), r#"["1","1","t","phx_close",{}]"#);
    assert_eq!(encoded(&end(&null)), r#"["1",null,"t","phx_close",{}]"#);
    let like_a_position = Ref::from_json("\"p:1\"").expect("a ref");
    let plain = Message::text(r#"["1","p:1","t","phx_close",{}]"#);
    assert_eq!(encode(&end(&like_a_position)), Some(plain));
}
