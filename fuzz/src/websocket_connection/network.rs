//! The client's side of the connection: what it sends, when it hangs up, and what it accepts.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use hyper::rt::{Read, ReadBufCursor, Write};

use crate::chunks::{Input, Turns};

/// The client hangs up after sending everything; otherwise it stays silent.
const HANGS_UP: u8 = 0x10;
/// Vectored writes are supported.
const VECTORED: u8 = 0x20;
/// The client stops reading after `WINDOW` bytes.
const STALLS: u8 = 0x40;
/// Writes fail after `WINDOW` bytes.
const BREAKS: u8 = 0x80;

/// The number of bytes accepted before the connection stalls or breaks.
const WINDOW: usize = 2000;

/// A bound on calls that only a busy loop exceeds.
const MAX_CALLS: usize = 10_000_000;

/// Returns whether the client stays connected and accepts everything.
pub(super) fn accepts_everything(flags: u8) -> bool {
    flags & (HANGS_UP | STALLS | BREAKS) == 0
}

pub(super) struct Network {
    flags: u8,
    /// The client's bytes, and how many of them have been read.
    wire: Vec<u8>,
    read: usize,
    reads: Turns,
    writes: Turns,
    flushes: Turns,
    written: Arc<Mutex<Vec<u8>>>,
    is_shut: bool,
    calls: usize,
}

impl Network {
    /// Creates the network, and the buffer of everything written to it.
    pub(super) fn new(input: Input<'_>) -> (Self, Arc<Mutex<Vec<u8>>>) {
        let written = Arc::new(Mutex::new(Vec::new()));
        let network = Self {
            flags: input.flags,
            wire: input.wire.to_vec(),
            read: 0,
            reads: input.turns(),
            writes: input.turns(),
            flushes: input.turns(),
            written: Arc::clone(&written),
            is_shut: false,
            calls: 0,
        };
        (network, written)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn count_call(&mut self) {
        self.calls += 1;
        assert!(self.calls < MAX_CALLS, "busy loop");
    }

    /// Returns how many bytes of a write are accepted.
    fn room(&mut self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        self.count_call();
        assert!(!self.is_shut, "a write after the end of the stream");
        let left = WINDOW.saturating_sub(self.written.lock().expect("no panic").len());
        if left == 0 && self.has(BREAKS) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if left == 0 && self.has(STALLS) {
            return Poll::Pending;
        }
        let bound = if self.has(BREAKS | STALLS) { left } else { usize::MAX };
        turn(self.writes.next(), cx.waker()).map(|size| Ok(size.min(bound)))
    }
}

/// Ends a turn in which nothing passes at once, by waking the task.
fn turn(size: Option<usize>, waker: &Waker) -> Poll<usize> {
    if size.is_none() {
        waker.wake_by_ref();
    }
    size.map_or(Poll::Pending, Poll::Ready)
}

impl Read for Network {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.count_call();
        if self.read == self.wire.len() {
            return if self.has(HANGS_UP) { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let Poll::Ready(size) = turn(self.reads.next(), cx.waker()) else { return Poll::Pending };
        let left = &self.wire[self.read..];
        let size = size.min(left.len()).min(buffer.remaining());
        buffer.put_slice(&left[..size]);
        self.read += size;
        Poll::Ready(Ok(()))
    }
}

impl Write for Network {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        assert!(offered > 0, "an empty write");
        self.room(cx).map_ok(|room| {
            let bytes = slices.iter().flat_map(|slice| slice.iter().copied());
            self.written.lock().expect("no panic").extend(bytes.take(room));
            room.min(offered)
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.has(VECTORED)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.count_call();
        turn(self.flushes.next(), cx.waker()).map(|_| Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.count_call();
        let poll = turn(self.flushes.next(), cx.waker());
        self.is_shut = poll.is_ready();
        poll.map(|_| Ok(()))
    }
}
