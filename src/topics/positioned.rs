//! [`Positioned`]: what a broadcast that is kept has beside its content.

use std::sync::OnceLock;

use tower_channels_transports::Message;

use crate::history::Position;
use crate::serializer::Version;

/// Where a broadcast stands in the history of its topic.
#[derive(Debug)]
pub(crate) struct Positioned {
    pub(crate) position: Position,
    /// The number of the message before it.
    #[allow(dead_code)]
    pub(crate) previous: u64,
    /// With its position, by [`Version::index`]; `None` where the version cannot carry it.
    pub(super) encoded: [OnceLock<Option<Message>>; Version::COUNT],
}

impl Positioned {
    pub(super) fn new(position: Position, previous: u64) -> Self {
        Self { position, previous, encoded: Default::default() }
    }
}

#[cfg(test)]
mod tests;
