//! The messages in the body of a POST: a single text message or, as `application/x-ndjson`, one message
//! per line.
//!
//! A line that begins with `[` is a text message, as every message of serializer 2.0.0 does. Any other
//! line is a binary message in base64 (standard alphabet, with padding). Empty lines are skipped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use memchr::memchr;

use crate::frame::{Close, Inbound};

/// A validated body: all its messages are handled, or none of them.
#[derive(Debug)]
pub(super) struct Batch {
    body: Bytes,
    ndjson: bool,
    /// Where the messages begin that are not handled yet. `None` once all are.
    rest: Option<usize>,
}

/// Returns whether a body with these headers is NDJSON. The parameters of the media type are ignored.
pub(super) fn is_ndjson(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next());
    media_type.is_some_and(|name| name.trim().eq_ignore_ascii_case("application/x-ndjson"))
}

/// Why no message of a body is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchError {
    /// A line is neither a text message nor base64.
    Undecodable,
    /// A message is larger than the limit.
    TooLarge,
}

impl Batch {
    /// Validates a body. `limit` is the largest size of one message, of a binary one after decoding.
    pub(super) fn new(body: Bytes, ndjson: bool, limit: usize) -> Result<Self, BatchError> {
        let batch = Self { body, ndjson, rest: Some(0) };
        let mut buffer = Vec::new();
        for line in batch.lines() {
            let size = if batch.is_text(line) {
                line.len()
            } else {
                decode(line, &mut buffer).ok_or(BatchError::Undecodable)?.len()
            };
            if size > limit {
                return Err(BatchError::TooLarge);
            }
        }
        Ok(batch)
    }

    /// How many messages and bytes the body has.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.lines().count(), self.body.len())
    }

    /// The size of the largest body that is read: it holds one binary message of `limit` bytes in
    /// base64, and some white space.
    pub(super) fn largest_body(limit: usize) -> usize {
        (limit / 3).saturating_mul(4).saturating_add(4 << 10)
    }

    /// Passes the next messages to `handle_in` in order, at most `count` and up to the first error.
    /// Returns whether there are more.
    pub(super) fn deliver(
        &mut self,
        count: usize,
        mut handle_in: impl FnMut(Inbound<'_>) -> Result<(), Close>,
    ) -> Result<bool, Close> {
        let mut buffer = Vec::new();
        let mut lines = self.lines();
        let delivered = lines.by_ref().take(count).try_for_each(|line| {
            if self.is_text(line) {
                let text = std::str::from_utf8(line).map_err(|_| Close::InvalidUtf8)?;
                handle_in(Inbound::Text(text))
            } else {
                let bytes = decode(line, &mut buffer).ok_or(Close::Malformed)?;
                handle_in(Inbound::Binary(bytes))
            }
        });
        self.rest = lines.rest.map(|rest| self.body.len() - rest.len());
        delivered.map(|()| self.rest.is_some())
    }

    /// The messages that are not handled yet, still encoded.
    fn lines(&self) -> Lines<'_> {
        let rest = self.rest.and_then(|start| self.body.get(start..));
        Lines { rest, ndjson: self.ndjson }
    }

    fn is_text(&self, line: &[u8]) -> bool {
        !self.ndjson || line.starts_with(b"[")
    }
}

/// The messages of a body. One that is not NDJSON is a single message, even if it is empty.
struct Lines<'a> {
    rest: Option<&'a [u8]>,
    ndjson: bool,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if !self.ndjson {
            return self.rest.take();
        }
        loop {
            let body = self.rest?;
            let line = match memchr(b'\n', body) {
                Some(end) => {
                    self.rest = Some(&body[end + 1..]);
                    &body[..end]
                }
                None => self.rest.take()?,
            };
            match line {
                [] | [b'\r'] => {}
                [line @ .., b'\r'] => return Some(line),
                line => return Some(line),
            }
        }
    }
}

fn decode<'a>(line: &[u8], buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    buffer.clear();
    STANDARD.decode_vec(line, buffer).ok()?;
    Some(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8], ndjson: bool, limit: usize) -> Result<Vec<String>, BatchError> {
        let mut messages = Vec::new();
        let mut batch = Batch::new(Bytes::copy_from_slice(body), ndjson, limit)?;
        let mut next = || {
            batch.deliver(2, |message| {
                messages.push(match message {
                    Inbound::Text(text) => format!("text {text}"),
                    Inbound::Binary(bytes) => format!("binary {}", bytes.escape_ascii()),
                });
                Ok(())
            })
        };
        while next().unwrap() {}
        Ok(messages)
    }

    fn ndjson(body: &str) -> Result<Vec<String>, BatchError> {
        read(body.as_bytes(), true, 1000)
    }

    #[test]
    fn each_line_of_ndjson_is_a_message() {
        assert_eq!(ndjson("[1]\n[2]\r\n[3]").unwrap(), ["text [1]", "text [2]", "text [3]"]);
    }

    #[test]
    fn a_line_that_does_not_begin_with_a_bracket_is_base64() {
        assert_eq!(
            ndjson("[1]\nAAH/\nbg==").unwrap(),
            ["text [1]", r"binary \x00\x01\xff", "binary n"]
        );
    }

    #[test]
    fn empty_lines_are_skipped() {
        assert_eq!(ndjson("\n\r\n[1]\n\n[2]\n").unwrap(), ["text [1]", "text [2]"]);
        assert!(ndjson("").unwrap().is_empty());
        assert!(ndjson(&"\n".repeat(1_000_000)).unwrap().is_empty());
    }

    #[test]
    fn one_undecodable_line_rejects_the_whole_body() {
        for line in ["{}", "bg", "bg=", "_w==", "data:;base64,bg==", " [1]", "é", "\r[1]"] {
            assert_eq!(
                ndjson(&format!("[1]\n{line}\n[2]")),
                Err(BatchError::Undecodable),
                "{line}"
            );
        }
    }

    #[test]
    fn a_body_of_another_content_type_is_one_text_message() {
        for body in ["[1]\n[2]\n", "{}", "", "\r\n"] {
            assert_eq!(read(body.as_bytes(), false, 1000).unwrap(), [format!("text {body}")]);
        }
    }

    #[test]
    fn a_message_may_have_exactly_the_limit() {
        assert!(read(b"12345678", false, 8).is_ok());
        assert_eq!(read(b"123456789", false, 8), Err(BatchError::TooLarge));
        assert!(read(b"[123456]\n[123456]", true, 8).is_ok());
        assert_eq!(read(b"[1]\n[1234567]", true, 8), Err(BatchError::TooLarge));
        assert!(read(b"MTIzNDU2Nzg=", true, 8).is_ok());
        assert_eq!(read(b"MTIzNDU2Nzg5", true, 8), Err(BatchError::TooLarge));
    }

    #[test]
    fn the_largest_message_in_base64_fits_into_the_largest_body() {
        for limit in [1, 2, 3, 1000, 1 << 20] {
            assert!(STANDARD.encode(vec![0; limit]).len() + 2 <= Batch::largest_body(limit));
        }
        assert_eq!(Batch::largest_body(usize::MAX), usize::MAX);
    }

    #[test]
    fn a_text_that_is_not_utf8_fails_after_the_messages_before_it() {
        let mut batch = Batch::new(b"[1]\n[\xff]\n[2]"[..].into(), true, 1000).unwrap();
        let mut handled = 0;
        let result = batch.deliver(10, |_| {
            handled += 1;
            Ok(())
        });
        assert_eq!((result, handled), (Err(Close::InvalidUtf8), 1));
    }

    #[test]
    fn a_slice_ends_after_so_many_messages_and_the_next_one_goes_on() {
        let mut batch = Batch::new(b"[1]\n\n[2]\n[3]"[..].into(), true, 1000).unwrap();
        let mut handled = Vec::new();
        let mut next = || {
            let more = batch.deliver(2, |message| {
                handled.push(format!("{message:?}"));
                Ok(())
            });
            (more, handled.len())
        };
        assert_eq!([next(), next(), next()], [(Ok(true), 2), (Ok(false), 3), (Ok(false), 3)]);
    }

    #[test]
    fn nothing_is_handled_after_an_error() {
        let mut batch = Batch::new(b"[1]\n[2]\n[3]"[..].into(), true, 1000).unwrap();
        let mut handled = 0;
        let result = batch.deliver(10, |_| {
            handled += 1;
            if handled == 2 { Err(Close::Malformed) } else { Ok(()) }
        });
        assert_eq!((result, handled), (Err(Close::Malformed), 2));
    }
}
