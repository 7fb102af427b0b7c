//! What a connection may read before other tasks get their turn.

/// The rest of a turn: reading stops when either is used up.
pub(super) struct Turn {
    bytes: usize,
    pub(super) messages: usize,
}

impl Turn {
    pub(super) fn new() -> Self {
        Self { bytes: MAX_BYTES, messages: MAX_MESSAGES }
    }

    /// Takes a read of `size` bytes from the turn.
    pub(super) fn spend(&mut self, size: usize) {
        self.bytes = self.bytes.saturating_sub(size.max(READ_COST));
    }

    pub(super) fn is_over(&self) -> bool {
        self.bytes == 0 || self.messages == 0
    }
}

/// How many bytes a connection may read in one turn of its task.
pub(super) const MAX_BYTES: usize = 128 * 1024;

/// How many messages and control frames a connection may handle in one turn. The scheduler looks for
/// new input after dozens of turns, so that this bounds the latency of everybody else.
pub(super) const MAX_MESSAGES: usize = 32;

/// The least that a read counts against the turn, which bounds the number of tiny reads.
const READ_COST: usize = 4 * 1024;
