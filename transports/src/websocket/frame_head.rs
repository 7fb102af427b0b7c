//! Frame heads (RFC 6455 section 5.2): those that clients send, checked, and those that we send.

use fastwebsockets::{Frame, OpCode, Payload};

use crate::frame::{Close, FrameHead, Message, frame_head};

/// A masked frame's head as a client sent it. Whether a frame is in its place is not judged here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) fin: bool,
    pub(super) opcode: OpCode,
    pub(super) mask: [u8; 4],
    /// What is announced. Nothing is to be reserved on its word.
    pub(super) len: u64,
}

impl Head {
    /// Reads the head at the start of `bytes` and says how long it is; `None` if its end has not
    /// come. What cannot become a head is refused with the first byte that shows it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Close> {
        let Some((&first, bytes)) = bytes.split_first() else { return Ok(None) };
        let fin = first & FIN != 0;
        // No extension is negotiated, so no reserved bit has a meaning (5.2).
        if first & RSV != 0 {
            return Err(Close::Protocol);
        }
        let opcode = OpCode::try_from(first & OPCODE).map_err(|_| Close::Protocol)?;
        if is_control(opcode) && !fin {
            return Err(Close::Protocol);
        }
        let Some((&second, bytes)) = bytes.split_first() else { return Ok(None) };
        // A client must mask (5.1), and a control frame is short (5.5).
        let short = second & LEN;
        if second & MASKED == 0 || (is_control(opcode) && short > MAX_CONTROL) {
            return Err(Close::Protocol);
        }
        let (len, len_size, bytes) = match short {
            126 => {
                let Some((len, bytes)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*len)), 2, bytes)
            }
            127 => {
                let Some((len, bytes)) = bytes.split_first_chunk::<8>() else { return Ok(None) };
                (u64::from_be_bytes(*len), 8, bytes)
            }
            short => (u64::from(short), 0, bytes),
        };
        // The shortest form must be used, and the topmost bit is no part of a length (5.2).
        let shortest = match len {
            0..=125 => 0,
            126..=0xffff => 2,
            _ => 8,
        };
        if len_size != shortest || len > i64::MAX as u64 {
            return Err(Close::Protocol);
        }
        let Some((mask, _)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
        Ok(Some((Self { fin, opcode, mask: *mask, len }, 2 + len_size + mask.len())))
    }

    pub(super) fn is_control(&self) -> bool {
        is_control(self.opcode)
    }
}

/// How long a client's head may be.
pub(super) const MAX_HEAD: usize = 14;

/// Adds what comes before the shared rest of a message: its frame's head, and its own. Says how much
/// that is.
pub(super) fn write_head(message: &Message, out: &mut Vec<u8>) -> usize {
    let len = out.len();
    let mut head = FrameHead::default();
    let size = frame_head(message.is_binary(), message.size(), &mut head);
    out.extend_from_slice(&head[..size]);
    message.write_head(out);
    out.len() - len
}

/// How long a message is with its frame's head.
pub(super) fn frame_len(message: &Message) -> usize {
    message.frame().map_or_else(
        || {
            let size = message.size();
            frame_head(message.is_binary(), size, &mut FrameHead::default()) + size
        },
        <[u8]>::len,
    )
}

/// Adds a Ping, whose Pong will bring the payload back.
pub(super) fn write_ping(payload: &[u8], out: &mut Vec<u8>) {
    write_control(Frame::new(true, OpCode::Ping, None, Payload::Borrowed(payload)), out);
}

/// Adds a Pong with a Ping's payload, which is at most 125 bytes.
pub(super) fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    write_control(Frame::pong(Payload::Borrowed(payload)), out);
}

/// Adds a CLOSE. Its reason stays empty: the code says it.
pub(super) fn write_close(close: Close, out: &mut Vec<u8>) {
    let code = close.code().to_be_bytes();
    write_control(Frame::new(true, OpCode::Close, None, Payload::Borrowed(&code)), out);
}

fn write_control(mut frame: Frame<'_>, out: &mut Vec<u8>) {
    let mut head = FrameHead::default();
    let size = frame.fmt_head(&mut head);
    out.extend_from_slice(&head[..size]);
    out.extend_from_slice(&frame.payload);
}

fn is_control(opcode: OpCode) -> bool {
    opcode as u8 & CONTROL != 0
}

const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
const LEN: u8 = 0x7f;
const MAX_CONTROL: u8 = 125;

#[cfg(test)]
mod tests {
    use super::*;

    fn len(bytes: &[u8]) -> Result<Option<u64>, Close> {
        let mut head = bytes.to_vec();
        head.extend([1, 2, 3, 4]);
        Ok(Head::parse(&head)?.map(|(head, _)| head.len))
    }

    #[test]
    fn lengths_have_three_forms_and_only_the_shortest_is_read() {
        assert_eq!(len(&[0x82, 0x80 | 125]), Ok(Some(125)));
        assert_eq!(len(&[0x82, 0x80 | 126, 0, 126]), Ok(Some(126)));
        assert_eq!(len(&[0x82, 0x80 | 126, 255, 255]), Ok(Some(65_535)));
        assert_eq!(len(&[0x82, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0]), Ok(Some(65_536)));
        assert_eq!(len(&[0x82, 0x80 | 126, 0, 125]), Err(Close::Protocol));
        assert_eq!(len(&[0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 255, 255]), Err(Close::Protocol));
    }

    #[test]
    fn a_length_with_the_topmost_bit_is_refused() {
        assert_eq!(len(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), Err(Close::Protocol));
        assert_eq!(
            len(&[0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255]),
            Ok(Some(i64::MAX as u64))
        );
    }

    #[test]
    fn what_cannot_become_a_head_is_refused_at_once() {
        for first in [0x91, 0xa1, 0xc1, 0x83, 0x8b, 0x8f, 0x08, 0x09, 0x0a] {
            assert_eq!(Head::parse(&[first]), Err(Close::Protocol), "{first:x}");
        }
        for second in [[0x81, 0x05], [0x89, 0xfe], [0x88, 0xff], [0x8a, 0x00]] {
            assert_eq!(Head::parse(&second), Err(Close::Protocol), "{second:x?}");
        }
    }

    #[test]
    fn a_head_that_is_cut_is_waited_for() {
        let head = [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4];
        for cut in 0..head.len() {
            assert_eq!(Head::parse(&head[..cut]), Ok(None), "{cut}");
        }
        assert!(matches!(Head::parse(&head), Ok(Some((_, MAX_HEAD)))));
    }

    #[test]
    fn our_heads_are_not_masked() {
        let written = |message: Message| {
            let mut head = Vec::new();
            assert_eq!(write_head(&message, &mut head), head.len());
            head
        };
        assert_eq!(written(Message::text("hi")), [0x81, 2]);
        assert_eq!(written(Message::binary(vec![0; 300])), [0x82, 126, 1, 44]);
        assert_eq!(written(Message::text("x".repeat(65_536))), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_close_carries_its_code_and_no_reason() {
        let mut out = Vec::new();
        write_close(Close::Overflow, &mut out);
        assert_eq!(out, [0x88, 2, 0x03, 0xf5]);
    }
}
