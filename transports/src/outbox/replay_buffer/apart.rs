//! Two sessions of one id, which know nothing of each other.

use super::ReplayBuffer;

impl ReplayBuffer {
    /// Keeps the numbers that are given here apart from those of another session of the same id, which a node may have
    /// that could not be asked: the client may come back to that one, and then here again. So that a number of the one
    /// acknowledges nothing of the other, those here begin a `gap`, drawn at random, behind what the client has seen.
    pub(in crate::outbox) fn keep_apart(&mut self, gap: u64) {
        self.gap = gap;
        // A client that has seen no number has no other session.
        if self.next_number > 1 {
            self.next_number = self.next_number.saturating_add(gap);
        }
    }

    /// The first number after that of another session.
    pub(super) fn number_behind(&self, received: u64) -> u64 {
        received.saturating_add(self.gap).saturating_add(1)
    }
}
