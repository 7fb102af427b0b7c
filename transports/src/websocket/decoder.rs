//! The sans-io half of a WebSocket that reads: bytes in, messages and control frames out.
//!
//! The input may be cut anywhere. Every rule of RFC 6455 that binds a client is enforced here;
//! breaking one yields the [`Close`] that the rule calls for.

use std::mem;

use fastwebsockets::{OpCode, unmask};

use super::frame_head::{Head, MAX_HEAD};
use super::utf8::{InvalidUtf8, Text};
use crate::frame::{Close, Inbound};
use crate::progress::Progress;

/// Decodes the frames of one client.
///
/// Memory grows with what has arrived, never with what a frame head announces, and is held only for
/// unfinished frames and messages. A message that lies whole in one chunk is not copied.
///
/// ```
/// use tower_channels_transports::internals::{Decoder, Event};
/// use tower_channels_transports::{Close, Inbound};
///
/// let mut decoder = Decoder::new(1024);
/// let mut frame = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
/// let mut seen = Vec::new();
/// let left = decoder.decode(&mut frame, &mut 100, |event| {
///     if let Event::Message(Inbound::Text(text)) = event {
///         seen.push(text.to_owned());
///     }
///     Ok::<(), Close>(())
/// })?;
/// assert_eq!((seen, left), (vec!["hi".to_owned()], 0));
/// # Ok::<(), Close>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    limit: usize,
    empty_continuations: bool,
    /// Boxed, because an idle connection has none.
    unfinished: Option<Box<Unfinished>>,
}

/// A message or a control frame from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A complete message.
    Message(Inbound<'a>),
    /// A Ping, to be answered by a Pong with the same payload.
    Ping(&'a [u8]),
    /// A Pong.
    Pong(&'a [u8]),
    /// A CLOSE with a code that a client may send, or without a code. Anything after it is to be
    /// ignored.
    Close(Option<u16>),
}

/// State that has to outlive a chunk.
#[derive(Debug, Default)]
struct Unfinished {
    /// The beginning of a frame head.
    head: [u8; MAX_HEAD],
    head_len: usize,
    /// A frame whose payload is incomplete.
    frame: Option<Frame>,
    /// The payload of that frame so far, if it is a control frame.
    control: Vec<u8>,
    message: Option<Assembly>,
    progress: Option<Progress>,
}

/// A frame whose payload is being read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    opcode: OpCode,
    is_control: bool,
    /// Rotated so that it begins with the mask of the next byte.
    mask: [u8; 4],
    left: u64,
}

/// A message being assembled from several frames or chunks.
#[derive(Debug)]
enum Assembly {
    Text(Text),
    Binary(Vec<u8>),
}

impl Decoder {
    /// Creates a decoder for messages of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, empty_continuations: false, unfinished: None }
    }

    /// Sets whether a client may send empty continuation frames that do not finish a message. They
    /// are legal, but only keep a server busy. By default they are refused with [`Close::Policy`].
    pub fn empty_continuations(mut self, allowed: bool) -> Self {
        self.empty_continuations = allowed;
        self
    }

    /// Decodes the next bytes, unmasking them in place, and passes every event that is complete to
    /// `deliver`, until `events` is down to 0. Returns the size of the rest of the chunk, which is to be
    /// decoded next.
    ///
    /// # Errors
    ///
    /// Returns the reason for which the connection must be closed: the client broke a rule, or
    /// `deliver` returned it. The rest of the chunk is to be ignored.
    pub fn decode(
        &mut self,
        mut chunk: &mut [u8],
        events: &mut usize,
        mut deliver: impl FnMut(Event<'_>) -> Result<(), Close>,
    ) -> Result<usize, Close> {
        while *events > 0 {
            let Some(mut frame) = self.next_frame(&mut chunk)? else { return Ok(0) };
            let size = usize::try_from(frame.left).unwrap_or(usize::MAX).min(chunk.len());
            let (payload, rest) = mem::take(&mut chunk).split_at_mut(size);
            chunk = rest;
            unmask(payload, frame.mask);
            frame.mask.rotate_left(size % 4);
            frame.left -= size as u64;
            *events -= usize::from(frame.left == 0 && frame.fin);
            if frame.left > 0 {
                self.keep(frame, payload)?;
            } else if frame.is_control {
                self.finish_control(frame.opcode, payload, &mut deliver)?;
            } else {
                self.finish_data(frame, payload, &mut deliver)?;
            }
        }
        Ok(chunk.len())
    }

    /// Returns a place for the progress of the unfinished message or frame, if there is one. The next
    /// message begins with an empty one.
    pub(super) fn unfinished(&mut self) -> Option<&mut Option<Progress>> {
        self.unfinished.as_mut().map(|unfinished| &mut unfinished.progress)
    }

    /// Returns the frame that the chunk begins with or continues; `None` if more bytes are needed.
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

    /// Checks whether a frame is allowed here, before any of its payload is read.
    fn admit(&self, head: Head) -> Result<Frame, Close> {
        let message = self.unfinished.as_ref().and_then(|unfinished| unfinished.message.as_ref());
        if !head.is_control() {
            // A continuation needs an unfinished message, and nothing else may interrupt one (5.4).
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

    /// Stores the payload so far of an unfinished frame.
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
        let kept = self.unfinished.as_mut().map(|unfinished| mem::take(&mut unfinished.control));
        self.shrink();
        match kept.filter(|kept| !kept.is_empty()) {
            None => deliver(control_event(opcode, payload)?),
            Some(mut whole) => {
                whole.extend_from_slice(payload);
                deliver(control_event(opcode, &whole)?)
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
            self.shrink();
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
        self.shrink();
        match message {
            Assembly::Text(text) => deliver(Event::Message(Inbound::Text(&text.finish()?))),
            Assembly::Binary(bytes) => deliver(Event::Message(Inbound::Binary(&bytes))),
        }
    }

    /// Frees the memory for unfinished input once nothing is unfinished.
    fn shrink(&mut self) {
        self.unfinished.take_if(|unfinished| unfinished.message.is_none());
    }
}

impl Unfinished {
    /// Copies as much of the chunk as a frame head can need.
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

/// Returns the code of a client's CLOSE. A payload of one byte, a code that no client may send and a
/// reason that is not UTF-8 are protocol errors (5.5.1, 7.4).
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
mod tests;
