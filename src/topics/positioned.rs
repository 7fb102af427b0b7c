//! [`Positioned`]: what a broadcast that is kept has beside its content.

use crate::history::Position;

/// Where a broadcast stands in the history of its topic.
#[derive(Debug)]
pub(crate) struct Positioned {
    pub(crate) position: Position,
    /// The number of the message before it.
    #[allow(dead_code)]
    pub(crate) previous: u64,
}
