//! The priority queue of a replay buffer: messages that overtake all streams.

use std::collections::VecDeque;
use std::mem;

use super::streams::StreamId;
use crate::frame::Message;
use crate::memory::Cost;

#[derive(Debug, Default)]
pub(super) struct PriorityQueue(VecDeque<(Message, Kind)>);

/// What the buffer learns when the message is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Plain,
    /// The client may send its next heartbeat only after it has read this reply.
    HeartbeatReply,
    /// The reply that resumed a stream.
    ResumeReply(StreamId),
}

impl PriorityQueue {
    pub(super) fn push(&mut self, message: Message, kind: Kind) {
        self.0.push_back((message, kind));
    }

    /// The next message.
    pub(super) fn first(&self) -> Option<&Message> {
        self.0.front().map(|(message, _)| message)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes the next message.
    pub(super) fn pop(&mut self) -> Option<(Message, Kind)> {
        let next = self.0.pop_front()?;
        // Priority messages are rare: an idle session keeps no allocation for them.
        if self.0.is_empty() {
            self.0 = VecDeque::new();
        }
        Some(next)
    }

    /// Lets what was to resume a stream resume it no more, which has ended.
    pub(super) fn disown(&mut self, stream: StreamId) {
        for (_, kind) in &mut self.0 {
            if matches!(kind, Kind::ResumeReply(of) if *of == stream) {
                *kind = Kind::Plain;
            }
        }
    }

    /// Drops all messages, and returns their cost.
    pub(super) fn clear(&mut self) -> Cost {
        mem::take(self).cost()
    }

    /// The cost of all messages.
    pub(super) fn cost(&self) -> Cost {
        self.0.iter().map(|(message, _)| message.cost()).sum()
    }
}
