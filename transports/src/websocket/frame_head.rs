//! Frame heads (RFC 6455 section 5.2): parsing those of clients, and writing those of the server.

use fastwebsockets::{Frame, OpCode, Payload};

use crate::frame::{Close, FrameHead, Message, frame_head};

/// The head of a client's frame. Whether the frame is allowed at this point is not checked here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) fin: bool,
    pub(super) opcode: OpCode,
    pub(super) mask: [u8; 4],
    /// The announced length of the payload. It must not be used to reserve memory.
    pub(super) len: u64,
}

impl Head {
    /// Parses the head at the start of `bytes` and returns it with its length; `None` if it is
    /// incomplete. Invalid bytes are refused even before the head is complete.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Close> {
        let Some((&first, bytes)) = bytes.split_first() else { return Ok(None) };
        let fin = first & FIN != 0;
        // No extension is negotiated, so reserved bits must be zero (5.2).
        if first & RSV != 0 {
            return Err(Close::Protocol);
        }
        let opcode = OpCode::try_from(first & OPCODE).map_err(|_| Close::Protocol)?;
        if is_control(opcode) && !fin {
            return Err(Close::Protocol);
        }
        let Some((&second, bytes)) = bytes.split_first() else { return Ok(None) };
        // A client must mask its frames (5.1), and a control frame is short (5.5).
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
        // A length must have its shortest form, and its topmost bit must be zero (5.2).
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

/// The length of the longest head of a client.
pub(super) const MAX_HEAD: usize = 14;

/// Appends everything before the shared part of a message: the head of its frame, and its own head.
/// Returns how many bytes that are.
pub(super) fn write_head(message: &Message, out: &mut Vec<u8>) -> usize {
    let len = out.len();
    let mut head = FrameHead::default();
    let size = frame_head(message.is_binary(), message.size(), &mut head);
    out.extend_from_slice(&head[..size]);
    message.write_head(out);
    out.len() - len
}

/// Returns the length of a message with the head of its frame.
pub(super) fn frame_len(message: &Message) -> usize {
    message.frame().map_or_else(
        || {
            let size = message.size();
            frame_head(message.is_binary(), size, &mut FrameHead::default()) + size
        },
        <[u8]>::len,
    )
}

/// Appends a Ping. Its Pong will carry the same payload.
pub(super) fn write_ping(payload: &[u8], out: &mut Vec<u8>) {
    write_control(Frame::new(true, OpCode::Ping, None, Payload::Borrowed(payload)), out);
}

/// Appends a Pong with the payload of a Ping, which is at most 125 bytes.
pub(super) fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    write_control(Frame::pong(Payload::Borrowed(payload)), out);
}

/// Appends a CLOSE with a code and an empty reason.
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
    fn of_the_three_forms_of_a_length_only_the_shortest_is_accepted() {
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
    fn an_invalid_head_is_refused_before_it_is_complete() {
        for first in [0x91, 0xa1, 0xc1, 0x83, 0x8b, 0x8f, 0x08, 0x09, 0x0a] {
            assert_eq!(Head::parse(&[first]), Err(Close::Protocol), "{first:x}");
        }
        for second in [[0x81, 0x05], [0x89, 0xfe], [0x88, 0xff], [0x8a, 0x00]] {
            assert_eq!(Head::parse(&second), Err(Close::Protocol), "{second:x?}");
        }
    }

    #[test]
    fn an_incomplete_head_is_not_an_error() {
        let head = [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4];
        for cut in 0..head.len() {
            assert_eq!(Head::parse(&head[..cut]), Ok(None), "{cut}");
        }
        assert!(matches!(Head::parse(&head), Ok(Some((_, MAX_HEAD)))));
    }

    #[test]
    fn heads_of_the_server_are_not_masked() {
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
