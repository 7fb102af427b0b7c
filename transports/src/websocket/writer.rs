//! The sans-io half of a WebSocket that writes: a queue of messages and control frames.
//!
//! Frames are not encoded ahead of time. The queue holds the messages themselves, each write encodes
//! as many of them as one call can carry, and all that is remembered between two writes is how much
//! of the first frame has been written.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::frame_head::{frame_len, write_head};
use crate::frame::Message;
use crate::memory::Cost;

/// Messages and control frames to be written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// Messages taken from the outbox and not yet written completely.
    pub(super) messages: VecDeque<Message>,
    /// How much of the first message's frame has been written.
    offset: usize,
    /// Encoded control frames, or what is left of them. They are written before the messages, but
    /// never inside a frame.
    pub(super) control: Vec<u8>,
}

impl Writer {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.control.is_empty()
    }

    /// The rest of the only frame in the queue, if that frame was encoded in advance.
    pub(super) fn single_frame(&self) -> Option<&[u8]> {
        let is_single = self.messages.len() == 1 && self.control.is_empty();
        let message = self.messages.front().filter(|_| is_single)?;
        message.frame().map(|frame| &frame[self.offset..])
    }

    /// Gathers what to write next: frame heads, control frames and payloads of up to `copy_limit`
    /// bytes are copied into `copied`; larger payloads are borrowed.
    pub(super) fn gather<'a>(&'a self, copy_limit: usize, copied: &mut Vec<u8>) -> Borrowed<'a> {
        copied.clear();
        let mut borrowed = Borrowed::default();
        let mut messages = self.messages.iter();
        if self.offset > 0
            && let Some(first) = messages.next()
        {
            borrowed.add(first, self.offset, copy_limit, copied);
        }
        copied.extend_from_slice(&self.control);
        while borrowed.has_room(copied) {
            let Some(message) = messages.next() else { break };
            borrowed.add(message, 0, copy_limit, copied);
        }
        borrowed
    }

    /// Removes the next `size` bytes, which have been written. Returns the cost of the messages that
    /// are now written completely.
    pub(super) fn advance(&mut self, mut size: usize) -> Cost {
        let mut cost = Cost::default();
        if self.offset > 0 {
            size = self.advance_message(size, &mut cost);
        }
        if !self.control.is_empty() {
            let control = size.min(self.control.len());
            self.control.drain(..control);
            size -= control;
        }
        while size > 0 && !self.messages.is_empty() {
            size = self.advance_message(size, &mut cost);
        }
        self.shrink();
        cost
    }

    /// Drops every message of which nothing has been written.
    pub(super) fn discard_unstarted(&mut self) {
        self.messages.truncate(usize::from(self.offset > 0));
    }

    /// The cost of the messages in the queue.
    pub(super) fn cost(&self) -> Cost {
        self.messages.iter().map(Message::cost).sum()
    }

    fn advance_message(&mut self, size: usize, cost: &mut Cost) -> usize {
        let Some(message) = self.messages.front() else { return size };
        let left = frame_len(message) - self.offset;
        if size < left {
            self.offset += size;
            return 0;
        }
        self.offset = 0;
        *cost += message.cost();
        self.messages.pop_front();
        size - left
    }

    /// Frees the memory of an empty queue, so that an idle connection holds next to none.
    fn shrink(&mut self) {
        if self.messages.is_empty() && self.messages.capacity() > MAX_IDLE_CAPACITY {
            self.messages = VecDeque::new();
        }
        if self.control.is_empty() && self.control.capacity() > 0 {
            self.control = Vec::new();
        }
    }
}

/// Payloads that are not copied, each with its position among the copied bytes. Without any, the
/// usual case, nothing is allocated.
#[derive(Debug, Default)]
pub(super) struct Borrowed<'a> {
    payloads: Vec<(usize, &'a [u8])>,
    /// Whether only the beginning of a payload fitted, so that nothing may follow it.
    truncated: bool,
    /// The size of all payloads.
    size: usize,
}

impl<'a> Borrowed<'a> {
    /// The slices to write, in order; `None` if the copied bytes are all there is.
    pub(super) fn slices<'c>(&self, copied: &'c [u8]) -> Option<Vec<IoSlice<'c>>>
    where
        'a: 'c,
    {
        if self.payloads.is_empty() {
            return None;
        }
        let mut slices = Vec::with_capacity(2 * self.payloads.len() + 1);
        let mut from = 0;
        for &(position, payload) in &self.payloads {
            slices.push(IoSlice::new(&copied[from..position]));
            slices.push(IoSlice::new(payload));
            from = position;
        }
        slices.push(IoSlice::new(&copied[from..]));
        slices.retain(|slice| !slice.is_empty());
        Some(slices)
    }

    fn has_room(&self, copied: &[u8]) -> bool {
        !self.truncated
            && self.payloads.len() < MAX_BORROWED
            && copied.len() < MAX_COPIED
            && copied.len() + self.size < MAX_WRITE
    }

    /// Adds a message's frame without its first `skip` bytes.
    fn add(&mut self, message: &'a Message, skip: usize, copy_limit: usize, copied: &mut Vec<u8>) {
        let payload = if let Some(frame) = message.frame() {
            &frame[skip..]
        } else {
            let from = copied.len();
            let size = write_head(message, copied);
            copied.drain(from..from + skip.min(size));
            &message.rest()[skip.saturating_sub(size)..]
        };
        if payload.len() > copy_limit {
            self.size += payload.len();
            self.payloads.push((copied.len(), payload));
        } else {
            let size = payload.len().min(MAX_COPIED);
            self.truncated = size < payload.len();
            copied.extend_from_slice(&payload[..size]);
        }
    }
}

/// The capacity that an empty queue keeps, which saves an allocation per message where messages are
/// rare. The outbox takes it over in exchange for its own.
const MAX_IDLE_CAPACITY: usize = 4;

/// How many bytes are copied for one write: enough for a hundred small messages to share a system
/// call, and few enough that copying them again after a partial write costs little.
const MAX_COPIED: usize = 16 * 1024;

/// How many bytes are offered in one write.
const MAX_WRITE: usize = 256 * 1024;

/// How many borrowed payloads are offered in one write.
const MAX_BORROWED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const COPY_LIMIT: usize = 10;

    fn writer(messages: &[Message], control: &[u8]) -> Writer {
        let mut writer = Writer::default();
        writer.messages.extend(messages.iter().cloned());
        writer.control.extend_from_slice(control);
        writer
    }

    fn pieces(writer: &Writer, copy_limit: usize) -> Vec<Vec<u8>> {
        let mut copied = Vec::new();
        let borrowed = writer.gather(copy_limit, &mut copied);
        match borrowed.slices(&copied) {
            None => vec![copied],
            Some(slices) => slices.iter().map(|slice| slice.to_vec()).collect(),
        }
    }

    /// Writes everything in `writer`, `size` bytes at a time.
    fn write_all(writer: &mut Writer, size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !writer.is_empty() {
            let next = pieces(writer, COPY_LIMIT).concat();
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
    fn small_messages_are_written_as_one_piece() {
        let writer = writer(&[Message::text("a"), Message::binary("bc")], b"");
        assert_eq!(pieces(&writer, COPY_LIMIT), [b"\x81\x01a\x82\x02bc"]);
    }

    #[test]
    fn large_payloads_are_not_copied() {
        let messages = [Message::text("a"), large(), Message::text("b")];
        let writer = writer(&messages, b"");
        let pieces = pieces(&writer, COPY_LIMIT);
        assert_eq!(pieces, [&b"\x81\x01a\x82\x7e\x01\x2c"[..], &[7; 300], b"\x81\x01b"]);
        let mut copied = Vec::new();
        let borrowed = writer.gather(COPY_LIMIT, &mut copied);
        assert_eq!(borrowed.payloads[0].1.as_ptr(), messages[1].rest().as_ptr());
    }

    #[test]
    fn the_bytes_are_the_same_however_little_each_write_accepts() {
        let messages =
            [Message::text("a"), large(), Message::text("b").for_many(), large().for_many()];
        let whole = write_all(&mut writer(&messages, b"control"), usize::MAX);
        for size in 1..whole.len() {
            assert_eq!(write_all(&mut writer(&messages, b"control"), size), whole, "{size}");
        }
    }

    #[test]
    fn a_frame_that_was_encoded_in_advance_is_written_without_a_copy() {
        let frame = b"\x81\x05hello";
        let mut single = writer(&[Message::text("hello").for_many()], b"");
        assert_eq!(single.single_frame(), Some(&frame[..]));
        assert_eq!(pieces(&single, COPY_LIMIT), [frame]);
        single.advance(3);
        assert_eq!(single.single_frame(), Some(&frame[3..]));
        assert_eq!(pieces(&single, COPY_LIMIT), [&frame[3..]]);
        single.control.extend_from_slice(b"control");
        assert_eq!(single.single_frame(), None);
        assert_eq!(write_all(&mut single, 2), [&frame[3..], b"control"].concat());
    }

    #[test]
    fn control_frames_are_written_between_frames_and_never_inside_one() {
        let mut writer = writer(&[large(), Message::text("b")], b"");
        writer.advance(100);
        writer.control.extend_from_slice(b"control");
        let expected = [&[7; 300 - 96][..], b"control", b"\x81\x01b"].concat();
        assert_eq!(write_all(&mut writer, 3), expected);
    }

    #[test]
    fn advancing_returns_the_cost_of_complete_messages_and_frees_the_memory() {
        let messages = [Message::text("a"), large()];
        let mut writer = writer(&messages, b"control");
        assert_eq!(writer.advance(7 + 3 + 2), messages[0].cost());
        assert_eq!(writer.advance(301), Cost::default());
        assert_eq!(writer.advance(1), messages[1].cost());
        assert!(writer.messages.capacity() <= MAX_IDLE_CAPACITY);
        assert_eq!(writer.control.capacity(), 0);
    }

    #[test]
    fn discarding_keeps_only_a_frame_that_has_been_started() {
        let mut untouched = writer(&[large(), Message::text("b")], b"");
        untouched.discard_unstarted();
        assert!(untouched.is_empty());
        let mut begun = writer(&[large(), Message::text("b")], b"");
        begun.advance(1);
        begun.discard_unstarted();
        assert_eq!(write_all(&mut begun, 1000).len(), 303);
    }

    #[test]
    fn one_write_offers_a_bounded_number_of_bytes_and_slices() {
        let many = vec![Message::text("x".repeat(9)); 100_000];
        let size = pieces(&writer(&many, b""), COPY_LIMIT).concat().len();
        assert!((MAX_COPIED..MAX_COPIED + 11).contains(&size), "{size}");
        let many = vec![large(); 100];
        assert_eq!(pieces(&writer(&many, b""), COPY_LIMIT).len(), 2 * MAX_BORROWED);
        let many = vec![Message::binary(vec![0; 100_000]); 100];
        assert_eq!(pieces(&writer(&many, b""), COPY_LIMIT).len(), 2 * 3);
    }

    #[test]
    fn without_vectored_writes_a_large_message_is_copied_piece_by_piece() {
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
