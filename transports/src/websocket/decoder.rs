//! What a client's bytes mean: the sans-io half of a WebSocket that reads.
//!
//! Bytes go in as they come, cut anywhere; messages and control frames come out. Every rule of RFC
//! 6455 that binds a client is enforced here, each as the [`Close`] that it calls for.

use std::mem;

use fastwebsockets::{OpCode, unmask};

use super::frame_head::{Head, MAX_HEAD};
use super::utf8::{InvalidUtf8, Text};
use crate::frame::{Close, Inbound};

/// Reads one client's bytes.
///
/// Memory follows what has arrived and never what a head announces, and none is held but for what
/// is unfinished. A message that lies whole in one chunk is not even copied.
///
/// ```
/// use tower_channels_transports::websocket::{Decoder, Event};
/// use tower_channels_transports::{Close, Inbound};
///
/// let mut decoder = Decoder::new(1024);
/// let mut frame = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
/// let mut seen = Vec::new();
/// decoder.decode(&mut frame, |event| {
///     if let Event::Message(Inbound::Text(text)) = event {
///         seen.push(text.to_owned());
///     }
///     Ok::<(), Close>(())
/// })?;
/// assert_eq!(seen, ["hi"]);
/// # Ok::<(), Close>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    empty_continuations: bool,
    /// Boxed, because an idle connection has nothing in it.
    unfinished: Option<Box<Unfinished>>,
}

/// What a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message.
    Message(Inbound<'a>),
    /// A Ping, to be answered by a Pong with the same payload.
    Ping(&'a [u8]),
    /// A Pong.
    Pong(&'a [u8]),
    /// A CLOSE with a code that a client may send, or with none. Nothing that follows has a meaning.
    Close(Option<u16>),
}

/// What has to outlive a chunk.
#[derive(Debug, Default)]
struct Unfinished {
    /// The beginning of a head.
    head: [u8; MAX_HEAD],
    head_len: usize,
    /// A frame whose payload has not wholly come.
    frame: Option<Frame>,
    /// The payload of that frame, so far, if it is a control frame.
    control: Vec<u8>,
    message: Option<Assembly>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    opcode: OpCode,
    is_control: bool,
    /// Turned, so that it begins with the byte that is next.
    mask: [u8; 4],
    left: u64,
}

/// A message in several frames, or in one that is cut.
#[derive(Debug)]
enum Assembly {
    Text(Text),
    Binary(Vec<u8>),
}

impl Decoder {
    /// Reads messages of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, empty_continuations: false, unfinished: None }
    }

    /// Whether a client may send continuation frames that carry nothing and end nothing. They are
    /// legal and have no use but to keep a server busy. Default: [`Close::Policy`].
    pub fn empty_continuations(mut self, allowed: bool) -> Self {
        self.empty_continuations = allowed;
        self
    }

    /// Takes the next bytes, unmasks them where they are and delivers all that is whole by now.
    ///
    /// An `Err` is the decoder's or the one that `deliver` returned; either ends the connection, and
    /// the rest of the chunk means nothing.
    pub fn decode(
        &mut self,
        mut chunk: &mut [u8],
        mut deliver: impl FnMut(Event<'_>) -> Result<(), Close>,
    ) -> Result<(), Close> {
        while let Some(mut frame) = self.next_frame(&mut chunk)? {
            let size = usize::try_from(frame.left).unwrap_or(usize::MAX).min(chunk.len());
            let (payload, rest) = mem::take(&mut chunk).split_at_mut(size);
            chunk = rest;
            unmask(payload, frame.mask);
            frame.mask.rotate_left(size % 4);
            frame.left -= size as u64;
            if frame.left > 0 {
                self.keep(frame, payload)?;
            } else if frame.is_control {
                self.finish_control(frame.opcode, payload, &mut deliver)?;
            } else {
                self.finish_data(frame, payload, &mut deliver)?;
            }
        }
        Ok(())
    }

    /// The frame that the chunk begins with or continues; `None` if more bytes are needed.
    fn next_frame(&mut self, chunk: &mut &mut [u8]) -> Result<Option<Frame>, Close> {
        let Some(unfinished) = &mut self.unfinished else {
            let Some((head, size)) = Head::parse(chunk)? else {
                if !chunk.is_empty() {
                    self.unfinished.get_or_insert_default().keep_head(chunk);
                }
                return Ok(None);
            };
            skip(chunk, size);
            return self.admit(head).map(Some);
        };
        if unfinished.frame.is_some() {
            return Ok(if chunk.is_empty() { None } else { unfinished.frame.take() });
        }
        let had = unfinished.head_len;
        unfinished.keep_head(chunk);
        let Some((head, size)) = Head::parse(&unfinished.head[..unfinished.head_len])? else {
            return Ok(None);
        };
        unfinished.head_len = 0;
        skip(chunk, size - had);
        self.admit(head).map(Some)
    }

    /// Judges whether a frame may come now, before any of its payload is taken.
    fn admit(&self, head: Head) -> Result<Frame, Close> {
        let message = self.unfinished.as_ref().and_then(|unfinished| unfinished.message.as_ref());
        if !head.is_control() {
            // A continuation has a beginning, and nothing else comes before its end (5.4).
            if (head.opcode == OpCode::Continuation) != message.is_some() {
                return Err(Close::Protocol);
            }
            if message.is_some() && !head.fin && head.len == 0 && !self.empty_continuations {
                return Err(Close::Policy);
            }
            let before = message.map_or(0, Assembly::len) as u64;
            if before.saturating_add(head.len) > self.limit as u64 {
                return Err(Close::TooBig);
            }
        }
        Ok(Frame {
            fin: head.fin,
            opcode: head.opcode,
            is_control: head.is_control(),
            mask: head.mask,
            left: head.len,
        })
    }

    /// Puts by what has come of a frame that is cut.
    fn keep(&mut self, frame: Frame, payload: &[u8]) -> Result<(), Close> {
        let unfinished = self.unfinished.get_or_insert_default();
        unfinished.frame = Some(frame);
        if frame.is_control {
            unfinished.control.extend_from_slice(payload);
            Ok(())
        } else {
            unfinished.message.get_or_insert_with(|| Assembly::new(frame.opcode)).push(payload)
        }
    }

    fn finish_control(
        &mut self,
        opcode: OpCode,
        payload: &[u8],
        deliver: &mut impl FnMut(Event<'_>) -> Result<(), Close>,
    ) -> Result<(), Close> {
        let resumable =
            self.unfinished.as_mut().map(|unfinished| mem::take(&mut unfinished.control));
        self.forget();
        match resumable.filter(|resumable| !resumable.is_empty()) {
            None => deliver(control_event(opcode, payload)?),
            Some(mut resumable) => {
                resumable.extend_from_slice(payload);
                deliver(control_event(opcode, &resumable)?)
            }
        }
    }

    fn finish_data(
        &mut self,
        frame: Frame,
        payload: &[u8],
        deliver: &mut impl FnMut(Event<'_>) -> Result<(), Close>,
    ) -> Result<(), Close> {
        let message = self.unfinished.as_mut().and_then(|unfinished| unfinished.message.take());
        if frame.fin && message.is_none() {
            self.forget();
            return deliver(Event::Message(match frame.opcode {
                OpCode::Text => Inbound::Text(str::from_utf8(payload).map_err(|_| InvalidUtf8)?),
                _ => Inbound::Binary(payload),
            }));
        }
        let mut message = message.unwrap_or_else(|| Assembly::new(frame.opcode));
        message.push(payload)?;
        if !frame.fin {
            self.unfinished.get_or_insert_default().message = Some(message);
            return Ok(());
        }
        self.forget();
        match message {
            Assembly::Text(text) => deliver(Event::Message(Inbound::Text(&text.finish()?))),
            Assembly::Binary(bytes) => deliver(Event::Message(Inbound::Binary(&bytes))),
        }
    }

    /// Gives memory back as soon as nothing is unfinished.
    fn forget(&mut self) {
        self.unfinished.take_if(|unfinished| unfinished.message.is_none());
    }
}

impl Unfinished {
    /// Adds as much of the chunk as a head can need.
    fn keep_head(&mut self, chunk: &[u8]) {
        let size = chunk.len().min(MAX_HEAD - self.head_len);
        self.head[self.head_len..][..size].copy_from_slice(&chunk[..size]);
        self.head_len += size;
    }
}

impl Assembly {
    fn new(opcode: OpCode) -> Self {
        match opcode {
            OpCode::Text => Self::Text(Text::default()),
            _ => Self::Binary(Vec::new()),
        }
    }

    fn push(&mut self, payload: &[u8]) -> Result<(), Close> {
        match self {
            Self::Text(text) => text.push(payload)?,
            Self::Binary(bytes) => bytes.extend_from_slice(payload),
        }
        Ok(())
    }

    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

impl From<InvalidUtf8> for Close {
    fn from(_: InvalidUtf8) -> Self {
        Self::InvalidUtf8
    }
}

fn skip(chunk: &mut &mut [u8], size: usize) {
    *chunk = &mut mem::take(chunk)[size..];
}

fn control_event(opcode: OpCode, payload: &[u8]) -> Result<Event<'_>, Close> {
    Ok(match opcode {
        OpCode::Ping => Event::Ping(payload),
        OpCode::Pong => Event::Pong(payload),
        _ => Event::Close(close_code(payload)?),
    })
}

/// The code of a client's CLOSE. A lone byte, a code that no client may send and a reason that is
/// not UTF-8 break the protocol (5.5.1, 7.4).
fn close_code(payload: &[u8]) -> Result<Option<u16>, Close> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Close::Protocol) };
    };
    let code = u16::from_be_bytes(*code);
    let is_legal = matches!(code, 1000..=1003 | 1007..=1011 | 3000..);
    if !is_legal || str::from_utf8(reason).is_err() {
        return Err(Close::Protocol);
    }
    Ok(Some(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 70_000;

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Seen {
        Text(String),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(Option<u16>),
    }

    impl From<Event<'_>> for Seen {
        fn from(event: Event<'_>) -> Self {
            match event {
                Event::Message(Inbound::Text(text)) => Self::Text(text.to_owned()),
                Event::Message(Inbound::Binary(bytes)) => Self::Binary(bytes.to_vec()),
                Event::Ping(payload) => Self::Ping(payload.to_vec()),
                Event::Pong(payload) => Self::Pong(payload.to_vec()),
                Event::Close(code) => Self::Close(code),
            }
        }
    }

    /// A masked frame; `first` is its first byte.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..=125 => bytes.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0x80 | 127);
                bytes.extend((len as u64).to_be_bytes());
            }
        }
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    fn frames(frames: &[(u8, &[u8])]) -> Vec<u8> {
        frames.iter().flat_map(|(first, payload)| frame(*first, payload)).collect()
    }

    fn decode_chunks<'a>(
        decoder: &mut Decoder,
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<Seen>, Result<(), Close>) {
        let mut seen = Vec::new();
        for chunk in chunks {
            let result = decoder.decode(&mut chunk.to_vec(), |event| {
                seen.push(event.into());
                Ok(())
            });
            if result.is_err() {
                return (seen, result);
            }
        }
        (seen, Ok(()))
    }

    fn decode(bytes: &[u8]) -> (Vec<Seen>, Result<(), Close>) {
        decode_chunks(&mut Decoder::new(LIMIT), [bytes])
    }

    fn text(text: &str) -> Seen {
        Seen::Text(text.to_owned())
    }

    #[test]
    fn a_conversation_is_the_same_however_its_bytes_are_cut() {
        let bytes = frames(&[
            (0x81, "hé".as_bytes()),
            (0x82, b""),
            (0x01, b"k\xce"),
            (0x89, b"in between"),
            (0x00, b"\xba!"),
            (0x80, b""),
            (0x8a, b""),
            (0x02, b""),
            (0x80, &[1; 300]),
            (0x88, b"\x03\xe8bye"),
        ]);
        let expected = vec![
            text("hé"),
            Seen::Binary(vec![]),
            Seen::Ping(b"in between".to_vec()),
            text("kκ!"),
            Seen::Pong(vec![]),
            Seen::Binary(vec![1; 300]),
            Seen::Close(Some(1000)),
        ];
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::new(LIMIT);
            let seen = decode_chunks(&mut decoder, bytes.chunks(size));
            assert_eq!(seen, (expected.clone(), Ok(())), "chunks of {size}");
            assert!(decoder.unfinished.is_none(), "nothing is resumable");
        }
        for cut in 0..bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let seen = decode_chunks(&mut Decoder::new(LIMIT), [first, second]);
            assert_eq!(seen, (expected.clone(), Ok(())), "cut at {cut}");
        }
    }

    #[test]
    fn a_large_message_is_the_same_however_it_is_cut() {
        let large: Vec<u8> = (0..66_000).map(|i| i as u8).collect();
        let bytes = frame(0x82, &large);
        for size in [1, 3, 4, 13, 4096, 65_536, 100_000] {
            let (seen, result) = decode_chunks(&mut Decoder::new(LIMIT), bytes.chunks(size));
            assert!(seen == [Seen::Binary(large.clone())] && result == Ok(()), "{size}");
        }
    }

    #[test]
    fn what_breaks_a_rule_is_closed_for_its_reason_however_it_is_cut() {
        let cases: &[(&str, Vec<u8>, Close)] = &[
            ("not masked", vec![0x81, 0x00], Close::Protocol),
            ("reserved bit", frame(0xc1, b""), Close::Protocol),
            ("reserved opcode", frame(0x83, b""), Close::Protocol),
            ("reserved control opcode", frame(0x8b, b""), Close::Protocol),
            ("fragmented Ping", frame(0x09, b""), Close::Protocol),
            ("long Ping", frame(0x89, &[0; 126]), Close::Protocol),
            ("long Pong", frame(0x8a, &[0; 126]), Close::Protocol),
            ("long CLOSE", frame(0x88, &[3; 126]), Close::Protocol),
            ("continuation of nothing", frame(0x80, b"x"), Close::Protocol),
            ("first of a continuation of nothing", frame(0x00, b"x"), Close::Protocol),
            ("text inside a message", frames(&[(0x01, b"a"), (0x81, b"b")]), Close::Protocol),
            ("binary inside a text", frames(&[(0x01, b"a"), (0x02, b"b")]), Close::Protocol),
            ("empty continuation", frames(&[(0x01, b"a"), (0x00, b"")]), Close::Policy),
            ("not UTF-8", frame(0x81, b"\xff"), Close::InvalidUtf8),
            ("half a character", frame(0x81, b"\xc3"), Close::InvalidUtf8),
            ("half, in pieces", frames(&[(0x01, b"a"), (0x80, b"\xc3")]), Close::InvalidUtf8),
            (
                "frame too big",
                vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x11, 0x71, 0, 0, 0, 0],
                Close::TooBig,
            ),
            ("sum too big", frames(&[(0x02, &[0; 69_999]), (0x80, b"ab")]), Close::TooBig),
            ("announced 2^63", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], Close::Protocol),
            (
                "announced 2^63-1",
                {
                    let mut head = vec![0x82, 0xff, 0x7f];
                    head.extend([0xff; 7]);
                    head.extend([0; 4]);
                    head
                },
                Close::TooBig,
            ),
            ("CLOSE of one byte", frame(0x88, b"\x03"), Close::Protocol),
            ("CLOSE with a bad reason", frame(0x88, b"\x03\xe8\xff"), Close::Protocol),
        ];
        for (name, bytes, close) in cases {
            assert_eq!(decode(bytes), (vec![], Err(*close)), "{name}");
            let (seen, result) = decode_chunks(&mut Decoder::new(LIMIT), bytes.chunks(1));
            assert_eq!((seen, result), (vec![], Err(*close)), "{name}, byte by byte");
        }
    }

    #[test]
    fn a_client_closes_with_the_codes_that_a_client_may_send() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4999, 5000, 65535]
        {
            let bytes = frame(0x88, &u16::to_be_bytes(code));
            assert_eq!(decode(&bytes), (vec![Seen::Close(Some(code))], Ok(())), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1012, 1015, 1016, 2999] {
            let bytes = frame(0x88, &u16::to_be_bytes(code));
            assert_eq!(decode(&bytes), (vec![], Err(Close::Protocol)), "{code}");
        }
        assert_eq!(decode(&frame(0x88, b"")), (vec![Seen::Close(None)], Ok(())));
    }

    #[test]
    fn the_limit_counts_the_whole_message_and_includes_itself() {
        let exact = vec![0; LIMIT];
        assert_eq!(decode(&frame(0x82, &exact)), (vec![Seen::Binary(exact.clone())], Ok(())));
        let (first, second) = exact.split_at(LIMIT / 2);
        let bytes = frames(&[(0x02, first), (0x89, &[0; 125]), (0x80, second)]);
        assert_eq!(decode(&bytes).0.last(), Some(&Seen::Binary(exact)));
    }

    #[test]
    fn a_big_message_is_refused_before_its_payload_comes() {
        let bytes = frame(0x82, &vec![0; LIMIT + 1]);
        assert_eq!(decode(&bytes[..MAX_HEAD]), (vec![], Err(Close::TooBig)));
    }

    #[test]
    fn nothing_is_reserved_on_the_word_of_a_head() {
        let mut decoder = Decoder::new(usize::MAX);
        let head = [0x82, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'x'];
        assert_eq!(decode_chunks(&mut decoder, [&head[..]]), (vec![], Ok(())));
        let message = decoder.unfinished.and_then(|unfinished| unfinished.message);
        assert!(matches!(message, Some(Assembly::Binary(bytes)) if bytes.capacity() < 64));
    }

    #[test]
    fn nonsense_within_an_unfinished_frame_is_refused_when_it_comes() {
        let bytes = frame(0x81, b"ok \xf4\x90 and much more");
        let end = bytes.len() - " and much more".len();
        assert_eq!(decode(&bytes[..end]), (vec![], Err(Close::InvalidUtf8)));
        assert_eq!(decode(&bytes[..end - 1]), (vec![], Ok(())));
    }

    #[test]
    fn empty_continuations_pass_where_they_are_allowed() {
        let bytes = frames(&[(0x01, b""), (0x00, b""), (0x00, b""), (0x80, b"x")]);
        assert_eq!(decode(&bytes), (vec![], Err(Close::Policy)));
        let mut decoder = Decoder::new(LIMIT).empty_continuations(true);
        assert_eq!(decode_chunks(&mut decoder, [&bytes[..]]), (vec![text("x")], Ok(())));
    }

    #[test]
    fn what_deliver_refuses_ends_the_decoding() {
        let mut seen = 0;
        let mut bytes = frames(&[(0x81, b"a"), (0x81, b"b")]);
        let result = Decoder::new(LIMIT).decode(&mut bytes, |_| {
            seen += 1;
            Err(Close::Malformed)
        });
        assert_eq!((seen, result), (1, Err(Close::Malformed)));
    }
}
