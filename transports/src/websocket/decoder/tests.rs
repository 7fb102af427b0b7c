use super::*;

const LIMIT: usize = 70_000;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message(Inbound::Text(text)) => Self::Text(text.to_owned()),
            Event::Message(Inbound::Binary(bytes)) => Self::Binary(bytes.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(code) => Self::Close(code),
        }
    }
}

/// A masked frame; `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 127);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
    frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect()
}

fn decode_chunks<'a>(
    decoder: &mut Decoder,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<Seen>, Result<(), Close>) {
    let mut seen = Vec::new();
    for chunk in chunks {
        let result = decoder.decode(&mut chunk.to_vec(), &mut 1000, |event| {
            seen.push(event.into());
            Ok(())
        });
        match result {
            Ok(left) => assert_eq!(left, 0),
            Err(close) => return (seen, Err(close)),
        }
    }
    (seen, Ok(()))
}

fn decode(bytes: &[u8]) -> (Vec<Seen>, Result<(), Close>) {
    decode_chunks(&mut Decoder::new(LIMIT), [bytes])
}

fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

#[test]
fn events_are_the_same_however_the_bytes_are_cut() {
    let bytes = frames(&[
        (0x81, "hé".as_bytes()),
        (0x82, b""),
        (0x01, b"k\xce"),
        (0x89, b"in between"),
        (0x00, b"\xba!"),
        (0x80, b""),
        (0x8a, b""),
        (0x02, b""),
        (0x80, &[1; 300]),
        (0x88, b"\x03\xe8bye"),
    ]);
    let expected = vec![
        text("hé"),
        Seen::Binary(vec![]),
        Seen::Ping(b"in between".to_vec()),
        text("kκ!"),
        Seen::Pong(vec![]),
        Seen::Binary(vec![1; 300]),
        Seen::Close(Some(1000)),
    ];
    for size in 1..=bytes.len() {
        let mut decoder = Decoder::new(LIMIT);
        let seen = decode_chunks(&mut decoder, bytes.chunks(size));
        assert_eq!(seen, (expected.clone(), Ok(())), "chunks of {size}");
        assert!(decoder.unfinished.is_none(), "nothing is unfinished");
    }
    for cut in 0..bytes.len() {
        let (first, second) = bytes.split_at(cut);
        let seen = decode_chunks(&mut Decoder::new(LIMIT), [first, second]);
        assert_eq!(seen, (expected.clone(), Ok(())), "cut at {cut}");
    }
}

#[test]
fn a_large_message_is_the_same_however_it_is_cut() {
    let large: Vec<u8> = (0..66_000).map(|i| i as u8).collect();
    let bytes = frame(0x82, &large);
    for size in [1, 3, 4, 13, 4096, 65_536, 100_000] {
        let (seen, result) = decode_chunks(&mut Decoder::new(LIMIT), bytes.chunks(size));
        assert!(seen == [Seen::Binary(large.clone())] && result == Ok(()), "{size}");
    }
}

#[test]
fn every_broken_rule_has_its_close_reason_however_the_bytes_are_cut() {
    let cases: &[(&str, Vec<u8>, Close)] = &[
        ("not masked", vec![0x81, 0x00], Close::Protocol),
        ("reserved bit", frame(0xc1, b""), Close::Protocol),
        ("reserved opcode", frame(0x83, b""), Close::Protocol),
        ("reserved control opcode", frame(0x8b, b""), Close::Protocol),
        ("fragmented Ping", frame(0x09, b""), Close::Protocol),
        ("long Ping", frame(0x89, &[0; 126]), Close::Protocol),
        ("long Pong", frame(0x8a, &[0; 126]), Close::Protocol),
        ("long CLOSE", frame(0x88, &[3; 126]), Close::Protocol),
        ("continuation without a beginning", frame(0x80, b"x"), Close::Protocol),
        ("fragment without a beginning", frame(0x00, b"x"), Close::Protocol),
        ("text inside a message", frames(&[(0x01, b"a"), (0x81, b"b")]), Close::Protocol),
        ("binary inside a text", frames(&[(0x01, b"a"), (0x02, b"b")]), Close::Protocol),
        ("empty continuation", frames(&[(0x01, b"a"), (0x00, b"")]), Close::Policy),
        ("not UTF-8", frame(0x81, b"\xff"), Close::InvalidUtf8),
        ("half a character", frame(0x81, b"\xc3"), Close::InvalidUtf8),
        ("half, in pieces", frames(&[(0x01, b"a"), (0x80, b"\xc3")]), Close::InvalidUtf8),
        (
            "frame too big",
            vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x11, 0x71, 0, 0, 0, 0],
            Close::TooBig,
        ),
        ("sum too big", frames(&[(0x02, &[0; 69_999]), (0x80, b"ab")]), Close::TooBig),
        ("announced 2^63", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], Close::Protocol),
        (
            "announced 2^63-1",
            {
                let mut head = vec![0x82, 0xff, 0x7f];
                head.extend([0xff; 7]);
                head.extend([0; 4]);
                head
            },
            Close::TooBig,
        ),
        ("CLOSE of one byte", frame(0x88, b"\x03"), Close::Protocol),
        ("CLOSE with a bad reason", frame(0x88, b"\x03\xe8\xff"), Close::Protocol),
    ];
    for (name, bytes, close) in cases {
        assert_eq!(decode(bytes), (vec![], Err(*close)), "{name}");
        let (seen, result) = decode_chunks(&mut Decoder::new(LIMIT), bytes.chunks(1));
        assert_eq!((seen, result), (vec![], Err(*close)), "{name}, byte by byte");
    }
}

#[test]
fn only_close_codes_that_a_client_may_send_are_accepted() {
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4999, 5000, 65535] {
        let bytes = frame(0x88, &u16::to_be_bytes(code));
        assert_eq!(decode(&bytes), (vec![Seen::Close(Some(code))], Ok(())), "{code}");
    }
    for code in [0, 999, 1004, 1005, 1006, 1012, 1015, 1016, 2999] {
        let bytes = frame(0x88, &u16::to_be_bytes(code));
        assert_eq!(decode(&bytes), (vec![], Err(Close::Protocol)), "{code}");
    }
    assert_eq!(decode(&frame(0x88, b"")), (vec![Seen::Close(None)], Ok(())));
}

#[test]
fn a_message_of_exactly_the_limit_is_accepted_whole_or_fragmented() {
    let exact = vec![0; LIMIT];
    assert_eq!(decode(&frame(0x82, &exact)), (vec![Seen::Binary(exact.clone())], Ok(())));
    let (first, second) = exact.split_at(LIMIT / 2);
    let bytes = frames(&[(0x02, first), (0x89, &[0; 125]), (0x80, second)]);
    assert_eq!(decode(&bytes).0.last(), Some(&Seen::Binary(exact)));
}

#[test]
fn a_message_over_the_limit_is_refused_before_its_payload_arrives() {
    let bytes = frame(0x82, &vec![0; LIMIT + 1]);
    assert_eq!(decode(&bytes[..MAX_HEAD]), (vec![], Err(Close::TooBig)));
}

#[test]
fn an_announced_length_reserves_no_memory() {
    let mut decoder = Decoder::new(usize::MAX);
    let head = [0x82, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'x'];
    assert_eq!(decode_chunks(&mut decoder, [&head[..]]), (vec![], Ok(())));
    let message = decoder.unfinished.and_then(|unfinished| unfinished.message);
    assert!(matches!(message, Some(Assembly::Binary(bytes)) if bytes.capacity() < 64));
}

#[test]
fn invalid_utf8_in_an_unfinished_frame_is_refused_as_soon_as_it_arrives() {
    let bytes = frame(0x81, b"ok \xf4\x90 and much more");
    let end = bytes.len() - " and much more".len();
    assert_eq!(decode(&bytes[..end]), (vec![], Err(Close::InvalidUtf8)));
    assert_eq!(decode(&bytes[..end - 1]), (vec![], Ok(())));
}

#[test]
fn empty_continuations_are_accepted_where_they_are_allowed() {
    let bytes = frames(&[(0x01, b""), (0x00, b""), (0x00, b""), (0x80, b"x")]);
    assert_eq!(decode(&bytes), (vec![], Err(Close::Policy)));
    let mut decoder = Decoder::new(LIMIT).empty_continuations(true);
    assert_eq!(decode_chunks(&mut decoder, [&bytes[..]]), (vec![text("x")], Ok(())));
}

#[test]
fn an_error_of_deliver_stops_the_decoding() {
    let mut seen = 0;
    let mut bytes = frames(&[(0x81, b"a"), (0x81, b"b")]);
    let result = Decoder::new(LIMIT).decode(&mut bytes, &mut 10, |_| {
        seen += 1;
        Err(Close::Malformed)
    });
    assert_eq!((seen, result), (1, Err(Close::Malformed)));
}
