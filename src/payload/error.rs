//! Errors of parsing a payload.

use std::error::Error;
use std::fmt::{self, Write};

/// Error returned by [`Payload::parse`](super::Payload::parse): the payload is not what the application
/// expects. It is displayed as serde describes it, cut after 256 bytes, because what the client has sent
/// may be part of it.
///
/// Its conversion into a [`channel::Error`](crate::channel::Error) is an error reply.
#[derive(Debug)]
pub struct InvalidPayload(Detail);

impl InvalidPayload {
    pub(super) fn new(error: &serde_json::Error) -> Self {
        let mut detail = Detail(String::new());
        // It fails where the text is cut.
        let _ = write!(detail, "{error}");
        Self(detail)
    }

    /// Returns what was wrong with the payload, if such an error is the cause of this one.
    pub(crate) fn detail_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a str> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(invalid) = error.downcast_ref::<Self>() {
                return Some(&invalid.0.0);
            }
            // A type that conceals the error it was made from, as that of anyhow does, shows its source.
            if let Some(detail) = error.downcast_ref::<Detail>() {
                return Some(&detail.0);
            }
            cause = error.source();
        }
        None
    }
}

impl fmt::Display for InvalidPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.0)
    }
}

impl Error for InvalidPayload {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

/// The source of an [`InvalidPayload`], with its text.
#[derive(Debug)]
struct Detail(String);

/// The longest text of an [`InvalidPayload`], in bytes.
const MAX_DETAIL: usize = 256;

impl Write for Detail {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.0.len() + character.len_utf8() > MAX_DETAIL {
                return Err(fmt::Error);
            }
            self.0.push(character);
        }
        Ok(())
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid payload")
    }
}

impl Error for Detail {}

/// Error returned by [`Payload::parse_event`](super::Payload::parse_event).
#[derive(Debug)]
#[non_exhaustive]
pub enum EventError {
    /// There is no such event.
    Unknown(String),
    /// The payload is not that of the event.
    Payload(InvalidPayload),
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(event) => write!(f, "no clause for the event {event:?}"),
            Self::Payload(invalid) => invalid.fmt(f),
        }
    }
}

impl Error for EventError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unknown(_) => None,
            Self::Payload(invalid) => invalid.source(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Payload;
    use super::*;

    #[test]
    fn a_long_detail_is_cut_between_two_characters() {
        for length in 0..300 {
            let text = Payload::from(format!("{}{}", "x".repeat(length), "\u{10348}".repeat(100)));
            let detail = text.parse::<u64>().unwrap_err().to_string();
            assert!(detail.starts_with("invalid type: string"), "{detail}");
            assert!((MAX_DETAIL - 3..=MAX_DETAIL).contains(&detail.len()), "{}", detail.len());
        }
    }

    #[test]
    fn a_short_detail_names_the_field() {
        #[derive(Debug, serde::Deserialize)]
        struct Message {
            #[expect(dead_code)]
            body: String,
        }
        let error = Payload::EMPTY.parse::<Message>().unwrap_err();
        assert_eq!(error.to_string(), "missing field `body` at line 1 column 2");
        assert_eq!(InvalidPayload::detail_of(&error), Some(&*error.to_string()));
    }
}
