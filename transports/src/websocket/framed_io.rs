//! WebSocket frames over a byte stream, without a session.
//!
//! Reads go into a buffer of the thread and writes are gathered in another, so that an idle
//! connection owns neither. The protocol is in the two sans-io halves, [`Decoder`] and [`Writer`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, Write};
use tokio::time::Instant;

use super::buffers::{READ_SIZE, with_read_buffer, with_write_buffer};
use super::decoder::{Decoder, Event};
use super::frame_head::write_pong;
use super::writer::Writer;
use crate::frame::Close;
use crate::memory::{Account, Cost, Reservation};
use crate::progress::Progress;

/// A byte stream with the decoder of its input and the queue of its output.
pub(super) struct FramedIo<Io> {
    io: Io,
    pub(super) writer: Writer,
    /// How many bytes were written, for the caller to reset.
    pub(super) written: u32,
    /// Whether reading was paused when the deadline was polled last.
    pub(super) is_paused: bool,
    /// Whether the client has ended its half of the stream.
    pub(super) eof: bool,
    /// Whether `io` may still buffer written bytes, as a TLS stream does.
    needs_flush: bool,
    decoder: Decoder,
    /// Input that was read but not decoded, because the turn was over.
    unread: Option<Box<Unread>>,
    /// Whether less is read at a time, because the client sends many messages at once: then little is
    /// left when the turn is over.
    reads_little: bool,
    /// For input that is kept, or output that the outbox counts no more; none while there is none.
    reservation: Option<Box<Reservation>>,
}

/// The rest of a read.
struct Unread {
    bytes: Vec<u8>,
    start: usize,
}

/// Why reading failed.
pub(super) enum ReadError {
    /// The peer broke the protocol, or the handler of an event returned this.
    Close(Close),
    Io,
}

impl From<Close> for ReadError {
    fn from(close: Close) -> Self {
        Self::Close(close)
    }
}

impl From<io::Error> for ReadError {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl<Io: Read + Write + Unpin> FramedIo<Io> {
    pub(super) fn new(io: Io, decoder: Decoder) -> Self {
        let writer = Writer::default();
        Self {
            io,
            writer,
            written: 0,
            is_paused: false,
            eof: false,
            needs_flush: false,
            decoder,
            unread: None,
            reads_little: false,
            reservation: None,
        }
    }

    /// Reads once, or what the last read left, and passes every event that is complete to `handle`,
    /// until `events` is down to 0. Answers Pings. Returns how many bytes were decoded; 0 at the end of
    /// the stream.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        events: &mut usize,
        mut handle: impl FnMut(Event<'_>) -> Result<(), Close>,
    ) -> Poll<Result<usize, ReadError>> {
        let Self { io, writer, decoder, .. } = self;
        let mut decode = |bytes: &mut [u8]| {
            let handle = |event: Event<'_>| {
                if let Event::Ping(payload) = event {
                    write_pong(payload, &mut writer.control);
                }
                handle(event)
            };
            decoder.decode(bytes, events, handle)
        };
        if let Some(mut unread) = self.unread.take() {
            let bytes = &mut unread.bytes[unread.start..];
            let size = bytes.len();
            let left = decode(bytes)?;
            if left > 0 {
                unread.start += size - left;
                self.unread = Some(unread);
            }
            return Poll::Ready(Ok(size - left));
        }
        let (unread, reads_little) = (&mut self.unread, &mut self.reads_little);
        let limit = if *reads_little { SMALL_READ_SIZE } else { READ_SIZE };
        poll_read_bytes(io, cx, limit, |bytes| {
            let decoded = bytes.len() - decode(bytes)?;
            let rest = &bytes[decoded..];
            *reads_little = !rest.is_empty();
            *unread =
                (!rest.is_empty()).then(|| Box::new(Unread { bytes: rest.to_vec(), start: 0 }));
            Ok(decoded)
        })
    }

    /// Reads once and discards what was read. Returns how many bytes that were; 0 at the end of the
    /// stream.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        poll_read_bytes(&mut self.io, cx, READ_SIZE, |bytes| Ok(bytes.len()))
    }

    /// Counts what was read towards the message or frame that it leaves unfinished, if it does.
    pub(super) fn record_progress(&mut self, size: usize, now: Instant) {
        if let Some(progress) = self.decoder.unfinished() {
            progress.get_or_insert(Progress::new(now)).add(size);
        }
    }

    /// The progress of an unfinished message or frame.
    pub(super) fn progress(&mut self) -> Option<&mut Progress> {
        self.decoder.unfinished()?.as_mut()
    }

    /// Reserves what an unfinished message and unread input hold from the account of the session.
    pub(super) fn reserve(&mut self, account: Option<&Arc<Account>>) {
        let unread = self.unread.as_ref().map_or(0, |unread| unread.bytes.len());
        self.hold(account, self.decoder.held() + unread);
    }

    /// Reserves what is queued to be written, until that is called again without an account.
    pub(super) fn reserve_output(&mut self, account: Option<&Arc<Account>>) {
        let held = account.map_or(0, |_| self.writer.cost().own());
        self.hold(account, held);
    }

    fn hold(&mut self, account: Option<&Arc<Account>>, bytes: usize) {
        if bytes == 0 {
            self.reservation = None;
        } else if let Some(account) = account {
            let create = || Box::new(Reservation::new(Arc::clone(account)));
            let reservation = self.reservation.get_or_insert_with(create);
            reservation.set(bytes);
            if let Some(memory) = reservation.take_exceeded() {
                memory.relieve();
            }
        }
    }

    /// Frees what an unfinished message holds. Input can only be discarded from now on.
    pub(super) fn stop_decoding(&mut self) {
        (self.decoder, self.unread, self.reservation) = (Decoder::new(0), None, None);
    }

    /// Writes once, as much as `io` accepts. Returns the cost of the messages completed by it.
    ///
    /// There must be something to write.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Cost>> {
        let Self { io, writer, .. } = self;
        let written = if let Some(frame) = writer.single_frame() {
            Pin::new(io).poll_write(cx, frame)
        } else {
            let copy_limit = if io.is_write_vectored() { VECTORED_COPY_LIMIT } else { usize::MAX };
            with_write_buffer(|copied| {
                let borrowed = writer.gather(copy_limit, copied);
                match borrowed.slices(copied) {
                    None => Pin::new(io).poll_write(cx, copied),
                    Some(slices) => Pin::new(io).poll_write_vectored(cx, &slices),
                }
            })
        };
        match ready!(written)? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            size => {
                self.needs_flush = true;
                self.written = self.written.saturating_add(size as u32);
                Poll::Ready(Ok(self.writer.advance(size)))
            }
        }
    }

    /// Writes everything that is queued.
    pub(super) fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.writer.is_empty() {
            ready!(self.poll_write(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Flushes what was written.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.needs_flush {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Flushes what was written and ends the outgoing half of the stream.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Reads once, at most `limit` bytes, into the thread's buffer and passes on what was read.
fn poll_read_bytes<E: From<io::Error>>(
    io: &mut (impl Read + Unpin),
    cx: &mut Context<'_>,
    limit: usize,
    take: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> Poll<Result<usize, E>> {
    with_read_buffer(|buffer| {
        let mut read = ReadBuf::new(&mut buffer[..limit]);
        ready!(Pin::new(io).poll_read(cx, read.unfilled()))?;
        let size = read.filled().len();
        Poll::Ready(take(&mut buffer[..size]))
    })
}

/// Holds more small messages than a turn may handle.
const SMALL_READ_SIZE: usize = 4 * 1024;

/// Payloads up to this size are copied into one buffer; for larger ones an entry of its own in a
/// vectored write is cheaper.
const VECTORED_COPY_LIMIT: usize = 2 * 1024;
