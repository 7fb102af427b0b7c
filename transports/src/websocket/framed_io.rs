//! WebSocket frames over a byte stream, without a session.
//!
//! Reads go into a buffer of the thread and writes are gathered in another, so that an idle
//! connection owns neither. The protocol is in the two sans-io halves, [`Decoder`] and [`Writer`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, Write};
use tokio::time::Instant;

use super::buffers::{with_read_buffer, with_write_buffer};
use super::decoder::{Decoder, Event};
use super::frame_head::write_pong;
use super::writer::Writer;
use crate::frame::Close;
use crate::progress::Progress;

/// A byte stream with the decoder of its input and the queue of its output.
pub(super) struct FramedIo<Io> {
    io: Io,
    pub(super) writer: Writer,
    /// How many bytes were written, for the caller to reset.
    pub(super) written: u32,
    /// Whether `io` may still buffer written bytes, as a TLS stream does.
    needs_flush: bool,
    decoder: Decoder,
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
        Self { io, writer: Writer::default(), written: 0, needs_flush: false, decoder }
    }

    /// Reads once and passes every event that is complete to `handle`. Answers Pings. Returns how
    /// many bytes were read; 0 at the end of the stream.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        mut handle: impl FnMut(Event<'_>) -> Result<(), Close>,
    ) -> Poll<Result<usize, ReadError>> {
        let Self { io, writer, decoder, .. } = self;
        poll_read_bytes(io, cx, |bytes| {
            let handle = |event: Event<'_>| {
                if let Event::Ping(payload) = event {
                    write_pong(payload, &mut writer.control);
                }
                handle(event)
            };
            decoder.decode(bytes, handle)?;
            Ok(bytes.len())
        })
    }

    /// Reads once and discards what was read. Returns how many bytes that were; 0 at the end of the
    /// stream.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        poll_read_bytes(&mut self.io, cx, |bytes| Ok(bytes.len()))
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

    /// Frees what an unfinished message holds. Input can only be discarded from now on.
    pub(super) fn stop_decoding(&mut self) {
        self.decoder = Decoder::new(0);
    }

    /// Writes once, as much as `io` accepts. Returns the cost of the messages completed by it.
    ///
    /// There must be something to write.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
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

/// Reads once into the thread's buffer and passes on what was read.
fn poll_read_bytes<E: From<io::Error>>(
    io: &mut (impl Read + Unpin),
    cx: &mut Context<'_>,
    take: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> Poll<Result<usize, E>> {
    with_read_buffer(|buffer| {
        let mut read = ReadBuf::new(buffer);
        ready!(Pin::new(io).poll_read(cx, read.unfilled()))?;
        let size = read.filled().len();
        Poll::Ready(take(&mut buffer[..size]))
    })
}

/// Payloads up to this size are copied into one buffer; for larger ones an entry of its own in a
/// vectored write is cheaper.
const VECTORED_COPY_LIMIT: usize = 2 * 1024;
