//! [`PublishError`] and [`ReadError`].

use std::fmt;

/// Error returned by [`PubSub::publish`](crate::PubSub::publish).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic has no history.
    NoHistory,
    /// The payload has more than 256 KiB.
    TooLarge,
    /// The store does not answer within two seconds, refuses, or has too much to do. The message may be kept all the same,
    /// and reaches everybody if it is.
    Unavailable,
}

/// Error returned by [`PubSub::history`](crate::PubSub::history).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The topic has no history.
    NoHistory,
    /// The store does not answer within two seconds, or refuses.
    Unavailable,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHistory => NO_HISTORY,
            Self::TooLarge => "a message that is kept has at most 256 KiB",
            Self::Unavailable => UNAVAILABLE,
        })
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoHistory => NO_HISTORY,
            Self::Unavailable => UNAVAILABLE,
        })
    }
}

const NO_HISTORY: &str = "the topic has no history";
const UNAVAILABLE: &str = "the store of the history is unavailable";

impl std::error::Error for PublishError {}

impl std::error::Error for ReadError {}
