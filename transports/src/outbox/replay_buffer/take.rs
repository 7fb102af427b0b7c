//! How messages leave a replay buffer, and are numbered.

use super::super::priority::Kind;
use super::super::streams::{PRIORITY, StreamId};
use super::ReplayBuffer;
use crate::frame::Message;

impl ReplayBuffer {
    /// Hands the next messages to `send`: priority messages first, then those of resumed streams in
    /// order until about `chunk` bytes. While `window` bytes are in flight only priority messages are
    /// sent. Returns whether there were any.
    pub(in crate::outbox) fn take(
        &mut self,
        chunk: usize,
        window: usize,
        mut send: impl FnMut(&Message),
    ) -> bool {
        let before = self.position();
        while self.send_priority(&mut send) {}
        let mut room = chunk.min(window.saturating_sub(self.sent.in_flight()));
        while room > 0
            && let Some((stream, message)) = self.streams.pop()
        {
            room = room.saturating_sub(message.cost());
            self.send(stream, message, &mut send);
        }
        self.position() > before
    }

    /// Hands the next messages to `send`, priority messages first, as long as no more than `limit`
    /// bytes are in flight; at least one message if nothing is. Returns whether there were any.
    ///
    /// Each connection that was lost over the first of them halves the limit, so that a line too slow for
    /// many messages at once carries fewer.
    pub(in crate::outbox) fn take_up_to(
        &mut self,
        limit: usize,
        mut send: impl FnMut(&Message),
    ) -> bool {
        let before = self.position();
        let tries = self.sent.tries().or_else(|| self.streams.first().map(Message::tries));
        let limit = limit.checked_shr(tries.unwrap_or(0).into()).unwrap_or(0);
        loop {
            let next = self.priority.first().or_else(|| self.streams.first());
            let Some(next) = next else { break };
            let in_flight = self.sent.in_flight();
            if in_flight > 0 && next.cost() > limit.saturating_sub(in_flight) {
                break;
            }
            if !self.send_priority(&mut send)
                && let Some((stream, message)) = self.streams.pop()
            {
                self.send(stream, message, &mut send);
            }
        }
        self.position() > before
    }

    fn send_priority(&mut self, send: &mut impl FnMut(&Message)) -> bool {
        let Some((message, kind)) = self.priority.pop() else { return false };
        let position = self.position();
        match kind {
            Kind::Plain => {}
            Kind::HeartbeatReply => self.heartbeat_reply = Some(position + 1),
            Kind::ResumeReply(stream) => self.streams.set_reply_sent(stream, position),
        }
        self.send(PRIORITY, message, send);
        true
    }

    fn send(&mut self, stream: StreamId, mut message: Message, send: &mut impl FnMut(&Message)) {
        if self.numbered && message.takes_number() {
            message.set_number(self.next_number);
            self.next_number += 1;
        }
        send(&message);
        self.sent.push(stream, message);
    }
}
