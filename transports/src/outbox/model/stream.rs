//! The messages of the model, which carry their names, and the streams that they belong to.

use super::super::streams::StreamId;
use crate::frame::Message;

/// A stream and a place in it.
pub(super) type Name = (StreamId, u32);

#[derive(Default)]
pub(super) struct StreamModel {
    pub(super) pushed: u32,
    /// The client has read everything before this place.
    pub(super) seen: u32,
    pub(super) is_resumed: bool,
    /// The client has read a reply that resumed it on this node.
    pub(super) is_known: bool,
    /// The places at which the stream was restarted. Those before each may be lost.
    restarts: Vec<u32>,
}

impl StreamModel {
    /// The client reads the message at `place`, which may be repeated, and before which replies may
    /// have been evicted.
    pub(super) fn read(&mut self, place: u32, may_repeat: bool, has_evicted: bool) {
        self.skip_lost(place);
        self.skip_replies(has_evicted, place);
        assert!(place <= self.seen, "{place} came, {} is missing", self.seen);
        let is_repeated = place < self.seen;
        assert!(may_repeat || !is_repeated, "{place} came twice");
        self.seen += u32::from(!is_repeated);
    }

    pub(super) fn restart(&mut self) {
        self.restarts.push(self.pushed);
        (self.is_resumed, self.is_known) = (false, false);
    }

    /// Returns whether the place was pushed before the stream was restarted.
    pub(super) fn is_leftover(&self, place: u32) -> bool {
        self.restarts.last().is_some_and(|restart| place < *restart)
    }

    /// Skips, before `place`, what may have been lost.
    pub(super) fn skip_lost(&mut self, place: u32) {
        let restart = self.restarts.iter().rfind(|restart| **restart <= place);
        self.seen = self.seen.max(restart.copied().unwrap_or(0));
    }

    /// Skips the replies before `place` that may have been evicted.
    pub(super) fn skip_replies(&mut self, has_evicted: bool, place: u32) {
        while has_evicted && self.seen < place && self.seen % 3 == 2 {
            self.seen += 1;
        }
    }
}

/// A message of one of three kinds: with a number in its text, counted by its reader, and a reply.
pub(super) fn message((stream, place): Name) -> Message {
    let text = format!("{stream}:{place}");
    match place % 3 {
        0 => Message::with_placeholder(format!("null,{text}"), 0),
        1 => Message::binary(text).numbered(),
        _ => Message::text(text),
    }
}

pub(super) fn name(message: &Message) -> Name {
    let text = str::from_utf8(message.rest()).unwrap_or_default();
    let text = text.rsplit(',').next().unwrap_or_default();
    let mut parts = text.split(':');
    let stream = parts.next().and_then(|stream| stream.parse().ok());
    let place = parts.next().and_then(|place| place.parse().ok());
    match (stream, place) {
        (Some(stream), Some(place)) => (stream, place),
        _ => panic!("not a message of this walk: {text}"),
    }
}
