//! What holds after every step, and at the end of a walk.

use super::super::sent::MAX_RETAINED;
use super::super::streams::PRIORITY;
use super::Walk;
use crate::frame::Message;

impl Walk {
    /// Checks the invariants that hold after every step.
    pub(super) fn check(&self) {
        let (counted, retained) = self.buffer.costs();
        assert_eq!(self.budget.bytes(), counted, "the budget counts what is kept");
        assert!(retained <= MAX_RETAINED);
        assert!(counted <= self.limit + 2 * self.largest.max(MAX_RETAINED), "memory is bounded");
        assert_eq!(
            self.buffer.streams(),
            self.streams.len(),
            "streams that ended leave nothing behind"
        );
        for (stream, model) in &self.streams {
            let may_be_known = model.is_known || self.has_evicted;
            assert!(
                may_be_known || !self.buffer.is_known(*stream),
                "no reply of {stream} was read"
            );
        }
    }

    /// The client reconnects, resumes all streams and reads everything: nothing is missing.
    pub(super) fn finish(&mut self) {
        self.attach();
        if self.has_ended {
            return;
        }
        for stream in self.streams.keys().copied().collect::<Vec<_>>() {
            let place = u32::MAX - u32::try_from(stream).expect("a few streams");
            let reply = Message::text(format!("{PRIORITY}:{place}"));
            self.replies.insert(place, stream);
            self.budget.restore(reply.cost());
            assert!(self.buffer.resume(stream, self.buffer.epoch(), reply));
            self.streams.entry(stream).or_default().is_resumed = true;
        }
        self.take(0);
        self.read(usize::MAX);
        for (stream, model) in &mut self.streams {
            model.skip_lost(model.pushed);
            model.skip_replies(self.has_evicted, model.pushed);
            assert_eq!(model.seen, model.pushed, "stream {stream} is read to its end");
            assert!(!self.buffer.has_reply_arrived(*stream));
        }
        self.acknowledge(0);
        self.check();
        assert!(self.streams.keys().all(|stream| self.buffer.has_reply_arrived(*stream)));
        assert!(self.numbered || self.budget.bytes() == 0);
    }
}
