//! The client's side of the connection: what it sends, when it hangs up, what it takes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use hyper::rt::{Read, ReadBufCursor, Write};

use crate::chunks::{Input, Turns};

/// It hangs up when it has sent everything; otherwise it is silent.
const HANGS_UP: u8 = 0x10;
/// It takes several pieces in one write.
const VECTORED: u8 = 0x20;
/// After a while it takes no more.
const STALLS: u8 = 0x40;
/// After a while writing to it is an error.
const BREAKS: u8 = 0x80;

/// How much it takes before it does not.
const WHILE: usize = 2000;

/// No connection asks the network so often about so few bytes.
const MOST_CALLS: usize = 10_000_000;

/// Whether the client stays and takes everything.
pub(super) fn is_patient(flags: u8) -> bool {
    flags & (HANGS_UP | STALLS | BREAKS) == 0
}

pub(super) struct Network {
    flags: u8,
    /// What the client sends, and how much of it has passed.
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
    /// The network, and what will have been written to it.
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
        assert!(self.calls < MOST_CALLS, "it runs in a circle");
    }

    /// How much of a write it takes.
    fn room(&mut self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        self.count_call();
        assert!(!self.is_shut, "a write after the end of the stream");
        let left = WHILE.saturating_sub(self.written.lock().expect("no panic").len());
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

/// A turn in which nothing passes is over at once.
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
        assert!(offered > 0, "a write of nothing");
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
