//! What the model and the tests check.

use super::ReplayBuffer;

impl ReplayBuffer {
    /// What the budget must be, and the retained bytes, both computed from scratch.
    pub(in super::super) fn costs(&self) -> (usize, usize) {
        let (in_flight, retained) = self.sent.costs();
        (self.priority.cost().bytes() + in_flight + self.streams.cost().bytes(), retained)
    }

    pub(in super::super) fn in_flight(&self) -> usize {
        self.sent.in_flight()
    }

    /// How many streams have not ended.
    pub(in super::super) fn streams(&self) -> usize {
        self.streams.len()
    }
}
