//! The body of a POST: `application/x-ndjson`, or one message.

use tower_channels_transports::internals::fuzzing::{Body, read_body};
use tower_channels_transports::{Close, Inbound};

use crate::base64;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Text(String),
    Binary(Vec<u8>),
}

/// Nothing panics; no message is larger than the limit, and one that is spoils the body; the
/// messages of a body are its lines, all of them; a body made of any messages is read as these.
pub fn check(data: &[u8]) {
    for limit in [4, 64, data.len()] {
        check_lines(data, limit);
        check_one_message(data, limit);
    }
    check_made_of(&messages(data));
}

fn check_lines(body: &[u8], limit: usize) {
    let (said, end) = read(body, true, limit);
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
            assert!(!lines.iter().any(is_too_large), "a line is larger than {limit}");
            assert!(said.iter().all(|message| message.len() <= limit), "larger than {limit}");
            let written: Vec<_> = said.iter().map(Said::line).collect();
            assert_eq!(written, lines[..said.len()], "as lines");
            match result {
                Ok(()) => assert_eq!(said.len(), lines.len(), "a line is missing"),
                Err(close) => {
                    assert_eq!(close, Close::InvalidUtf8);
                    assert!(str::from_utf8(lines[said.len()]).is_err());
                }
            }
        }
    }
}

fn check_one_message(body: &[u8], limit: usize) {
    let (said, end) = read(body, false, limit);
    let expected = match str::from_utf8(body) {
        _ if body.len() > limit => (vec![], Body::TooLarge),
        Ok(text) => (vec![Said::Text(text.to_owned())], Body::Handled(Ok(()))),
        Err(_) => (vec![], Body::Handled(Err(Close::InvalidUtf8))),
    };
    assert_eq!((said, end), expected);
}

fn check_made_of(messages: &[Said]) {
    let largest = messages.iter().map(Said::len).max().unwrap_or(0);
    for end_of_line in [&b"\n"[..], b"\r\n", b"\n\n"] {
        let lines: Vec<_> = messages.iter().map(Said::line).collect();
        for body in [lines.join(end_of_line), [&*lines.join(end_of_line), end_of_line].concat()] {
            let (said, end) = read(&body, true, largest);
            assert_eq!((said.as_slice(), end), (messages, Body::Handled(Ok(()))), "{body:?}");
            if largest > 0 {
                assert_eq!(read(&body, true, largest - 1), (vec![], Body::TooLarge));
            }
        }
    }
}

fn read(body: &[u8], ndjson: bool, limit: usize) -> (Vec<Said>, Body) {
    let mut said = Vec::new();
    let end = read_body(body, ndjson, limit, |message| {
        said.push(match message {
            Inbound::Text(text) => Said::Text(text.to_owned()),
            Inbound::Binary(bytes) => Said::Binary(bytes.to_vec()),
            _ => unreachable!("there is no other kind"),
        });
        Ok(())
    });
    (said, end)
}

/// Any bytes as messages: each begins with its length. A text of serializer 2 begins with `[` and
/// has no line break outside of an escape; an empty binary message would be an empty line.
fn messages(mut data: &[u8]) -> Vec<Said> {
    let mut messages = Vec::new();
    while let Some((&length, rest)) = data.split_first() {
        let (bytes, rest) = rest.split_at(usize::from(length).min(rest.len()));
        data = rest;
        match str::from_utf8(bytes) {
            Ok(text) if text.starts_with('[') && !text.contains(['\n', '\r']) => {
                messages.push(Said::Text(text.to_owned()));
            }
            _ if !bytes.is_empty() => messages.push(Said::Binary(bytes.to_vec())),
            _ => {}
        }
    }
    messages
}

impl Said {
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
