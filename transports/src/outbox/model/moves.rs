//! The client reconnects, and its session may move to other nodes before.

use super::super::budget::ByteBudget;
use super::super::loss::Loss;
use super::super::replay_buffer::ReplayBuffer;
use super::Walk;

impl Walk {
    /// The client reconnects, unless it would miss messages.
    pub(super) fn attach(&mut self) {
        self.attach_on(0);
    }

    /// The client reconnects after the session has moved several times.
    pub(super) fn attach_on(&mut self, moves: usize) {
        let has_missed = self.read_to() < self.acked;
        let has_arrived = |buffer: &ReplayBuffer, stream: &_| buffer.has_reply_arrived(*stream);
        let arrived = self.streams.keys().copied().filter(|it| has_arrived(&self.buffer, it));
        let arrived: Vec<_> = arrived.collect();
        (0..moves).for_each(|_| self.change_node());
        self.stale = self.buffer.epoch();
        let received = self.numbered.then_some(self.received);
        if self.buffer.attach(received, &mut self.budget).is_none() {
            assert!(has_missed, "a client that has read everything may resume");
            self.has_ended = true;
            return;
        }
        assert_eq!(self.buffer.epoch(), self.stale + 1);
        self.wire.clear();
        self.sent.clear();
        self.streams.values_mut().for_each(|stream| stream.is_resumed = false);
        assert!(arrived.iter().all(|it| has_arrived(&self.buffer, it)), "what arrived has arrived");
        self.buffer.detach(self.stale, Loss::Cut);
        assert!(self.buffer.is_attached(), "an older epoch ends nothing");
        self.acked = self.buffer.position();
        (self.attached, self.beating) = (true, false);
    }

    /// Continues the session in a new buffer, to which the client has not come yet.
    fn change_node(&mut self) {
        let epoch = self.buffer.epoch();
        let received = self.numbered.then_some(self.received);
        assert_eq!(self.buffer.fence(received, &mut self.budget), epoch + 1);
        self.buffer.set_active(epoch);
        assert!(!self.buffer.is_attached(), "an older epoch is over");
        let moved = self.buffer.export();
        let (mut buffer, mut budget) = (ReplayBuffer::new(0), ByteBudget::new(self.limit));
        buffer.attach(None, &mut budget);
        buffer.detach(buffer.epoch(), Loss::GivenUp);
        buffer.import(moved.clone(), &mut budget);
        assert_eq!(buffer.export(), moved, "what arrives is what has left");
        (self.buffer, self.budget) = (buffer, budget);
        // What resumes a stream here is another reply.
        self.replies.clear();
        self.streams.values_mut().for_each(|stream| stream.is_known = false);
        // Positions begin anew.
        (self.beat, self.acked) = (0, 0);
        self.check();
    }
}
