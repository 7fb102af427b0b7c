//! [`Position`]: where a message stands in the history of its topic.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Where a message stands in the history of its topic.
///
/// Its text, such as `AAAAAAAAAAE.17`, is what a client remembers and names when it joins again. Numbers grow along a
/// topic, and not necessarily by one. Numbers of different epochs have nothing to do with each other: a store that has
/// forgotten everything begins a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// What the number is good for.
    pub epoch: u64,
    /// Grows with each message.
    pub number: u64,
}

/// The length of an epoch as text.
const EPOCH: usize = 11;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; EPOCH];
        // Eight bytes are eleven characters.
        let _ = URL_SAFE_NO_PAD.encode_slice(self.epoch.to_be_bytes(), &mut text);
        write!(f, "{}.{}", str::from_utf8(&text).unwrap_or_default(), self.number)
    }
}

/// Error returned when a text is not a [`Position`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPosition;

impl fmt::Display for InvalidPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a position in a history")
    }
}

impl std::error::Error for InvalidPosition {}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (epoch, number) = text.split_once('.').ok_or(InvalidPosition)?;
        let mut bytes = [0; 8];
        if epoch.len() != EPOCH || !number.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(InvalidPosition);
        }
        URL_SAFE_NO_PAD.decode_slice(epoch, &mut bytes).map_err(|_| InvalidPosition)?;
        let number = number.parse().map_err(|_| InvalidPosition)?;
        Ok(Self { epoch: u64::from_be_bytes(bytes), number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_its_own_text() {
        for epoch in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            for number in [0, 9, u64::MAX] {
                let position = Position { epoch, number };
                assert_eq!(position.to_string().parse(), Ok(position));
            }
        }
        assert_eq!(Position { epoch: 1, number: 17 }.to_string(), "AAAAAAAAAAE.17");
    }

    #[test]
    fn any_other_text_is_refused() {
        for text in [
            "",
            ".",
            "AAAAAAAAAAE",
            "AAAAAAAAAAE.",
            "AAAAAAAAAAE.+1",
            "AAAAAAAAAAE.-1",
            "AAAAAAAAAAE.18446744073709551616",
            "AAAAAAAAAAF.1",
            "AAAAAAAAAA=.1",
            "AAAAAAAAAAAE.1",
            "äAAAAAAAAA.1",
        ] {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text}");
        }
    }
}
