//! [`PresenceError`].

use std::fmt;

use super::tracker::TrackError;

/// Error returned when presence cannot be tracked or updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceError {
    /// This channel already tracks the key: [`Presence::update`](crate::Presence::update) changes
    /// its meta.
    AlreadyTracked,
    /// This channel does not track the key.
    NotTracked,
    /// The channel has ended.
    Ended,
    /// The key is the name of a property that every JavaScript object has, such as `toString`:
    /// phoenix.js could not hold it.
    ReservedKey,
    /// The key has more than 255 bytes.
    KeyTooLong,
    /// The meta is not a JSON object.
    NotAnObject,
    /// The meta has more bytes than [`PresenceConfig::max_meta`](crate::PresenceConfig::max_meta).
    MetaTooLong,
}

impl From<TrackError> for PresenceError {
    fn from(error: TrackError) -> Self {
        match error {
            TrackError::AlreadyTracked => Self::AlreadyTracked,
            TrackError::NotTracked => Self::NotTracked,
            TrackError::TooLarge => Self::MetaTooLong,
            TrackError::NotAnObject => Self::NotAnObject,
        }
    }
}

impl fmt::Display for PresenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadyTracked => "the key is already tracked",
            Self::NotTracked => "the key is not tracked",
            Self::Ended => "the channel has ended",
            Self::ReservedKey => "the key is a reserved property name in JavaScript",
            Self::KeyTooLong => "the key is longer than 255 bytes",
            Self::NotAnObject => "the meta is not a JSON object",
            Self::MetaTooLong => "the meta is too long",
        })
    }
}

impl std::error::Error for PresenceError {}
