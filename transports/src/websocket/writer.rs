//! What waits to be written: the sans-io half of a WebSocket that writes.
//!
//! There is no buffer of encoded bytes. The messages themselves wait, and each attempt to write
//! builds as many frames from them as one call can take; what is remembered between two attempts is
//! how much of the first frame has left.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::frame_head::{frame_len, write_head};
use crate::frame::Message;

/// Messages and control frames on their way out, in order.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Messages taken from the outbox, and not wholly written.
    pub(super) batch: VecDeque<Message>,
    /// How much of the first message's frame has left.
    written: usize,
    /// Whole control frames, or what is left of them. They go before the messages, but never inside
    /// a frame.
    pub(super) control: Vec<u8>,
}

impl Writer {
    pub(super) fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.control.is_empty()
    }

    /// All that waits, if it is a single message whose frame was put together before.
    pub(super) fn single(&self) -> Option<&[u8]> {
        let is_single = self.batch.len() == 1 && self.control.is_empty();
        let message = self.batch.front().filter(|_| is_single)?;
        message.frame().map(|frame| &frame[self.written..])
    }

    /// Puts the next bytes together: heads, control frames and payloads of up to `copied` bytes in
    /// `scratch`, the larger payloads as places where they belong between these.
    pub(super) fn gather<'a>(&'a self, copied: usize, scratch: &mut Vec<u8>) -> Payloads<'a> {
        scratch.clear();
        let mut payloads = Payloads::default();
        let mut messages = self.batch.iter();
        if self.written > 0
            && let Some(first) = messages.next()
        {
            payloads.add(first, self.written, copied, scratch);
        }
        scratch.extend_from_slice(&self.control);
        while payloads.have_room(scratch) {
            let Some(message) = messages.next() else { break };
            payloads.add(message, 0, copied, scratch);
        }
        payloads
    }

    /// Takes away what has left. Returns the cost of the messages that are wholly written.
    pub(super) fn advance(&mut self, mut size: usize) -> usize {
        let mut cost = 0;
        if self.written > 0 {
            size = self.advance_message(size, &mut cost);
        }
        if !self.control.is_empty() {
            let control = size.min(self.control.len());
            self.control.drain(..control);
            size -= control;
        }
        while size > 0 && !self.batch.is_empty() {
            size = self.advance_message(size, &mut cost);
        }
        self.give_memory_back();
        cost
    }

    /// Drops what has not begun to leave.
    pub(super) fn abandon(&mut self) {
        self.batch.truncate(usize::from(self.written > 0));
    }

    fn advance_message(&mut self, size: usize, cost: &mut usize) -> usize {
        let Some(message) = self.batch.front() else { return size };
        let left = frame_len(message) - self.written;
        if size < left {
            self.written += size;
            return 0;
        }
        self.written = 0;
        *cost += message.cost();
        self.batch.pop_front();
        size - left
    }

    /// An idle connection holds no room for many messages, and none for control frames.
    fn give_memory_back(&mut self) {
        if self.batch.is_empty() && self.batch.capacity() > KEPT {
            self.batch = VecDeque::new();
        }
        if self.control.is_empty() && self.control.capacity() > 0 {
            self.control = Vec::new();
        }
    }
}

/// Payloads that are not copied, each with the place in the scratch bytes where it belongs. Without
/// a single large one, the usual case, nothing is allocated.
#[derive(Debug, Default)]
pub(super) struct Payloads<'a> {
    places: Vec<(usize, &'a [u8])>,
    /// A payload was cut, and nothing may follow it.
    cut: bool,
    size: usize,
}

impl<'a> Payloads<'a> {
    /// The pieces to write, in order; `None` if they are the scratch bytes alone.
    pub(super) fn between<'s>(&self, scratch: &'s [u8]) -> Option<Vec<IoSlice<'s>>>
    where
        'a: 's,
    {
        if self.places.is_empty() {
            return None;
        }
        let mut slices = Vec::with_capacity(2 * self.places.len() + 1);
        let mut from = 0;
        for &(place, payload) in &self.places {
            slices.push(IoSlice::new(&scratch[from..place]));
            slices.push(IoSlice::new(payload));
            from = place;
        }
        slices.push(IoSlice::new(&scratch[from..]));
        slices.retain(|slice| !slice.is_empty());
        Some(slices)
    }

    fn have_room(&self, scratch: &[u8]) -> bool {
        !self.cut
            && self.places.len() < MAX_PLACES
            && scratch.len() < MAX_COPIED
            && scratch.len() + self.size < MAX_WRITE
    }

    /// Adds a message's frame without its first `skip` bytes.
    fn add(&mut self, message: &'a Message, skip: usize, copied: usize, scratch: &mut Vec<u8>) {
        let payload = if let Some(frame) = message.frame() {
            &frame[skip..]
        } else {
            let from = scratch.len();
            let size = write_head(message, scratch);
            scratch.drain(from..from + skip.min(size));
            &message.rest()[skip.saturating_sub(size)..]
        };
        if payload.len() > copied {
            self.size += payload.len();
            self.places.push((scratch.len(), payload));
        } else {
            let room = payload.len().min(MAX_COPIED);
            self.cut = room < payload.len();
            scratch.extend_from_slice(&payload[..room]);
        }
    }
}

/// The room that an empty queue keeps: a message now and then is not worth an allocation each. The
/// outbox gets it in exchange for its own.
const KEPT: usize = 4;

/// How much may be copied together: enough that a hundred small messages share a system call, so
/// little that an attempt on a blocked connection costs nothing to speak of.
const MAX_COPIED: usize = 16 * 1024;

/// How much may be offered in one call.
const MAX_WRITE: usize = 256 * 1024;

/// How many payloads may be offered where they are, in one call.
const MAX_PLACES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const COPIED: usize = 10;

    fn writer(messages: &[Message], control: &[u8]) -> Writer {
        let mut writer = Writer::default();
        writer.batch.extend(messages.iter().cloned());
        writer.control.extend_from_slice(control);
        writer
    }

    fn pieces(writer: &Writer, copied: usize) -> Vec<Vec<u8>> {
        let mut scratch = Vec::new();
        let payloads = writer.gather(copied, &mut scratch);
        match payloads.between(&scratch) {
            None => vec![scratch],
            Some(slices) => slices.iter().map(|slice| slice.to_vec()).collect(),
        }
    }

    /// Everything that `writer` has, written `size` bytes at a time.
    fn write_all(writer: &mut Writer, size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !writer.is_empty() {
            let next = pieces(writer, COPIED).concat();
            let next = &next[..size.min(next.len())];
            out.extend_from_slice(next);
            writer.advance(next.len());
        }
        out
    }

    fn large() -> Message {
        Message::binary(vec![7; 300])
    }

    #[test]
    fn small_messages_leave_as_one_piece() {
        let writer = writer(&[Message::text("a"), Message::binary("bc")], b"");
        assert_eq!(pieces(&writer, COPIED), [b"\x81\x01a\x82\x02bc"]);
    }

    #[test]
    fn large_payloads_are_not_copied() {
        let messages = [Message::text("a"), large(), Message::text("b")];
        let writer = writer(&messages, b"");
        let pieces = pieces(&writer, COPIED);
        assert_eq!(pieces, [&b"\x81\x01a\x82\x7e\x01\x2c"[..], &[7; 300], b"\x81\x01b"]);
        let mut scratch = Vec::new();
        let payloads = writer.gather(COPIED, &mut scratch);
        assert_eq!(payloads.places[0].1.as_ptr(), messages[1].rest().as_ptr());
    }

    #[test]
    fn however_little_leaves_at_a_time_the_bytes_are_the_same() {
        let messages =
            [Message::text("a"), large(), Message::text("b").for_many(), large().for_many()];
        let whole = write_all(&mut writer(&messages, b"control"), usize::MAX);
        for size in 1..whole.len() {
            assert_eq!(write_all(&mut writer(&messages, b"control"), size), whole, "{size}");
        }
    }

    #[test]
    fn a_frame_that_was_put_together_leaves_as_it_is() {
        let frame = b"\x81\x05hello";
        let mut single = writer(&[Message::text("hello").for_many()], b"");
        assert_eq!(single.single(), Some(&frame[..]));
        assert_eq!(pieces(&single, COPIED), [frame]);
        single.advance(3);
        assert_eq!(single.single(), Some(&frame[3..]));
        assert_eq!(pieces(&single, COPIED), [&frame[3..]]);
        single.control.extend_from_slice(b"control");
        assert_eq!(single.single(), None);
        assert_eq!(write_all(&mut single, 2), [&frame[3..], b"control"].concat());
    }

    #[test]
    fn control_frames_go_between_frames_and_never_inside_one() {
        let mut writer = writer(&[large(), Message::text("b")], b"");
        writer.advance(100);
        writer.control.extend_from_slice(b"control");
        let expected = [&[7; 300 - 96][..], b"control", b"\x81\x01b"].concat();
        assert_eq!(write_all(&mut writer, 3), expected);
    }

    #[test]
    fn what_is_written_is_given_back_and_so_is_the_memory() {
        let messages = [Message::text("a"), large()];
        let mut writer = writer(&messages, b"control");
        assert_eq!(writer.advance(7 + 3 + 2), messages[0].cost());
        assert_eq!(writer.advance(301), 0);
        assert_eq!(writer.advance(1), messages[1].cost());
        assert!(writer.batch.capacity() <= KEPT);
        assert_eq!(writer.control.capacity(), 0);
    }

    #[test]
    fn only_a_frame_that_has_begun_survives_being_abandoned() {
        let mut untouched = writer(&[large(), Message::text("b")], b"");
        untouched.abandon();
        assert!(untouched.is_empty());
        let mut begun = writer(&[large(), Message::text("b")], b"");
        begun.advance(1);
        begun.abandon();
        assert_eq!(write_all(&mut begun, 1000).len(), 303);
    }

    #[test]
    fn one_call_is_offered_no_more_than_it_can_take() {
        let many = vec![Message::text("x".repeat(9)); 100_000];
        let size = pieces(&writer(&many, b""), COPIED).concat().len();
        assert!((MAX_COPIED..MAX_COPIED + 11).contains(&size), "{size}");
        let many = vec![large(); 100];
        assert_eq!(pieces(&writer(&many, b""), COPIED).len(), 2 * MAX_PLACES);
        let many = vec![Message::binary(vec![0; 100_000]); 100];
        assert_eq!(pieces(&writer(&many, b""), COPIED).len(), 2 * 3);
    }

    #[test]
    fn a_transport_without_vectored_writes_gets_large_messages_in_pieces() {
        let message = Message::binary(vec![7; 100_000]);
        let mut writer = writer(&[message, Message::text("b")], b"");
        let mut out = Vec::new();
        while !writer.is_empty() {
            let [piece] = &pieces(&writer, usize::MAX)[..] else { panic!("one piece") };
            assert!(piece.len() <= MAX_COPIED + 10);
            out.extend_from_slice(piece);
            writer.advance(piece.len());
        }
        assert_eq!(out.len(), 100_010 + 3);
        assert!(out.ends_with(b"\x07\x81\x01b"));
    }
}
