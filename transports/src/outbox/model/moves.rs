//! The session moves to another node.

use super::super::budget::ByteBudget;
use super::super::loss::Loss;
use super::super::replay_buffer::ReplayBuffer;
use super::Walk;

impl Walk {
    /// Continues the session in a new buffer, to which the client has not come yet.
    pub(super) fn change_node(&mut self) {
        let epoch = self.buffer.epoch();
        assert_eq!(self.buffer.fence(), epoch + 1);
        self.buffer.set_active(epoch);
        assert!(!self.buffer.is_attached(), "an older epoch is over");
        let moved = self.buffer.export();
        let (mut buffer, mut budget) = (ReplayBuffer::new(0), ByteBudget::new(self.limit));
        buffer.attach(None, &mut budget);
        buffer.detach(buffer.epoch(), Loss::GivenUp);
        buffer.import(moved.clone(), &mut budget);
        assert_eq!(buffer.export(), moved, "what arrives is what has left");
        (self.buffer, self.budget) = (buffer, budget);
        // Positions begin anew.
        (self.beat, self.acked) = (0, 0);
        self.check();
    }
}
