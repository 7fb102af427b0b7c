//! The body of a POST: `application/x-ndjson`, or a single message.

use tower_channels_transports::internals::fuzzing::{Body, read_body};
use tower_channels_transports::{Close, Inbound};

use crate::base64;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Received {
    Text(String),
    Binary(Vec<u8>),
}

/// Asserts that no message exceeds the limit and that a larger one invalidates the body, that the
/// messages of a body are exactly its lines, and that a body made of arbitrary messages is read as
/// these.
pub fn check(data: &[u8]) {
    for limit in [4, 64, data.len()] {
        check_lines(data, limit);
        check_one_message(data, limit);
    }
    check_made_of(&messages(data));
}

fn check_lines(body: &[u8], limit: usize) {
    let (received, end) = read(body, true, limit);
    let lines: Vec<&[u8]> = body
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
        .collect();
    let is_too_large = |line: &&[u8]| match line.first() {
        Some(b'[') => line.len() > limit,
        _ => line.len() / 4 * 3 > limit + 2,
    };
    match end {
        Body::Undecodable => assert!(lines.iter().any(|line| !line.starts_with(b"["))),
        Body::TooLarge => assert!(lines.iter().any(|line| line.len() > limit)),
        Body::Handled(result) => {
            assert!(!lines.iter().any(is_too_large), "a line exceeds {limit}");
            assert!(
                received.iter().all(|message| message.len() <= limit),
                "a message exceeds {limit}"
            );
            let written: Vec<_> = received.iter().map(Received::line).collect();
            assert_eq!(written, lines[..received.len()], "as lines");
            match result {
                Ok(()) => assert_eq!(received.len(), lines.len(), "a line is missing"),
                Err(close) => {
                    assert_eq!(close, Close::InvalidUtf8);
                    assert!(str::from_utf8(lines[received.len()]).is_err());
                }
            }
        }
    }
}

fn check_one_message(body: &[u8], limit: usize) {
    let (received, end) = read(body, false, limit);
    let expected = match str::from_utf8(body) {
        _ if body.len() > limit => (vec![], Body::TooLarge),
        Ok(text) => (vec![Received::Text(text.to_owned())], Body::Handled(Ok(()))),
        Err(_) => (vec![], Body::Handled(Err(Close::InvalidUtf8))),
    };
    assert_eq!((received, end), expected);
}

fn check_made_of(messages: &[Received]) {
    let largest = messages.iter().map(Received::len).max().unwrap_or(0);
    for end_of_line in [&b"\n"[..], b"\r\n", b"\n\n"] {
        let lines: Vec<_> = messages.iter().map(Received::line).collect();
        for body in [lines.join(end_of_line), [&*lines.join(end_of_line), end_of_line].concat()] {
            let (received, end) = read(&body, true, largest);
            assert_eq!((received.as_slice(), end), (messages, Body::Handled(Ok(()))), "{body:?}");
            if largest > 0 {
                assert_eq!(read(&body, true, largest - 1), (vec![], Body::TooLarge));
            }
        }
    }
}

fn read(body: &[u8], ndjson: bool, limit: usize) -> (Vec<Received>, Body) {
    let mut received = Vec::new();
    let end = read_body(body, ndjson, limit, |message| {
        received.push(match message {
            Inbound::Text(text) => Received::Text(text.to_owned()),
            Inbound::Binary(bytes) => Received::Binary(bytes.to_vec()),
            _ => unreachable!("there is no other kind"),
        });
        Ok(())
    });
    (received, end)
}

/// Interprets arbitrary bytes as messages, each preceded by its length. A text of serializer 2
/// starts with `[` and has no unescaped line breaks; an empty binary message would be an empty
/// line.
fn messages(mut data: &[u8]) -> Vec<Received> {
    let mut messages = Vec::new();
    while let Some((&length, rest)) = data.split_first() {
        let (bytes, rest) = rest.split_at(usize::from(length).min(rest.len()));
        data = rest;
        match str::from_utf8(bytes) {
            Ok(text) if text.starts_with('[') && !text.contains(['\n', '\r']) => {
                messages.push(Received::Text(text.to_owned()));
            }
            _ if !bytes.is_empty() => messages.push(Received::Binary(bytes.to_vec())),
            _ => {}
        }
    }
    messages
}

impl Received {
    fn line(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Binary(bytes) => base64::encode(bytes).into_bytes(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}
