//! How a replay buffer leaves its node, and arrives at another one.

use super::super::budget::ByteBudget;
use super::super::loss::Loss;
use super::super::moved::MovedOutbox;
use super::{Connection, ReplayBuffer};

impl ReplayBuffer {
    /// Begins an epoch without a connection. The connection before is superseded, as by one that follows, whose client has
    /// seen the number `received`, if it reads numbers.
    pub(in crate::outbox) fn fence(
        &mut self,
        received: Option<u64>,
        budget: &mut ByteBudget,
    ) -> u64 {
        self.detach(self.epoch, Loss::GivenUp);
        // A number that was not given here acknowledges nothing.
        if let Some(received) = received.filter(|received| *received < self.next_number) {
            self.sent.forget_seen(received, budget);
        }
        self.epoch += 1;
        self.epoch
    }

    /// Returns all that another node needs to [continue](Self::import): an epoch that begins there sends what one that
    /// begins here would have sent.
    pub(in crate::outbox) fn export(&self) -> MovedOutbox {
        let (sent, acked) = self.sent.export(|stream, message| self.streams.keeps(stream, message));
        MovedOutbox {
            next_number: self.next_number,
            evicted: self.sent.evicted(),
            was_cut: self.loss() == Some(Loss::Cut),
            last_stream: self.streams.last(),
            streams: self.streams.export(|position| self.sent.is_acked(position)),
            sent,
            acked,
        }
    }

    /// Continues the buffer of another node, without a connection. What this one has is dropped.
    pub(in crate::outbox) fn import(&mut self, moved: MovedOutbox, budget: &mut ByteBudget) {
        self.clear(budget);
        // What the client has seen of another session is for the next epoch to judge.
        self.next_number = moved.next_number;
        self.connection = Connection::Lost(if moved.was_cut { Loss::Cut } else { Loss::GivenUp });
        (self.heartbeat_reply, self.has_counted_try, self.polled) = (None, false, 0);
        self.streams.import(moved.last_stream, moved.streams, budget);
        self.sent.import(moved.sent, moved.acked, moved.evicted, budget);
    }
}
