//! One WebSocket, from the upgrade to the last byte: a single future, and so a single task.
//!
//! It reads into a buffer of its thread and writes from one, so that an idle connection holds
//! neither. What has a meaning lies in the sans-io halves, [`Decoder`] and `Writer`; here is only
//! when to read, when to write, and how to end.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBuf, Write};
use pin_project::pin_project;
use tokio::time::{Instant, Sleep};

use super::config::WebSocketConfig;
use super::decoder::{Decoder, Event};
use super::head::{write_close, write_pong};
use super::scratch;
use super::writer::Writer;
use crate::frame::Close;
use crate::limits::Limits;
use crate::session::{Drain, Session};

/// A WebSocket after its handshake. The future ends when the connection has.
///
/// Cancel safety: dropping it cuts the connection.
#[pin_project]
pub struct Connection<Io, S> {
    wire: Wire<Io, S>,
    /// Never set later than the deadline, and set anew only when it fires: a message costs it nothing.
    #[pin]
    timer: Sleep,
}

struct Wire<Io, S> {
    io: Io,
    /// Dropped as soon as closing begins.
    session: Option<S>,
    drain: Drain,
    decoder: Decoder,
    writer: Writer,
    phase: Phase,
    /// Written bytes may still be inside `io`.
    unflushed: bool,
    /// The client sends no more.
    eof: bool,
    /// A backlog above this stops the reading.
    pause_at: usize,
    /// When bytes came last, or when closing began.
    since: Instant,
    idle_timeout: Duration,
    close_timeout: Duration,
}

/// The life of a connection, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// What was pushed before the close leaves.
    Finishing(Close),
    /// The CLOSE leaves, and then the end of the stream.
    Farewell,
    /// The client gets the time to read the CLOSE: closing the socket while bytes of the client are
    /// unread would reset the connection and take the CLOSE away with it.
    Lingering,
}

/// There is nobody at the other end.
struct Gone;

/// Why reading stopped.
#[derive(PartialEq, Eq)]
enum Stopped {
    /// Nothing is there.
    Empty,
    /// The client does not take what it was sent already.
    BackedUp,
    /// Others want their turn.
    Exhausted,
}

impl<Io, S> Connection<Io, S>
where
    Io: Read + Write + Unpin,
    S: Session,
{
    /// Serves `session` over `io`, on which the handshake is done.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with a timer.
    pub fn new(
        io: Io,
        session: S,
        drain: Drain,
        config: &WebSocketConfig,
        limits: &Limits,
    ) -> Self {
        let since = Instant::now();
        let wire = Wire {
            io,
            session: Some(session),
            drain,
            decoder: Decoder::new(limits.message).empty_continuations(config.empty_continuations),
            writer: Writer::default(),
            phase: Phase::Open,
            unflushed: false,
            eof: false,
            pause_at: limits.outbox / 2,
            since,
            idle_timeout: config.idle_timeout.min(FOREVER),
            close_timeout: config.close_timeout.min(FOREVER),
        };
        Self { timer: tokio::time::sleep_until(wire.deadline()), wire }
    }
}

impl<Io, S> Future for Connection<Io, S>
where
    Io: Read + Write + Unpin,
    S: Session,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let mut budget = READ_BUDGET;
        loop {
            if this.wire.exchange(cx, &mut budget).is_err() {
                return Poll::Ready(());
            }
            let deadline = this.wire.deadline();
            if this.timer.deadline() > deadline {
                this.timer.as_mut().reset(deadline);
            }
            ready!(this.timer.as_mut().poll(cx));
            if Instant::now() < deadline {
                this.timer.as_mut().reset(deadline);
            } else if this.wire.phase == Phase::Open {
                this.wire.begin_close(Close::Protocol);
            } else {
                return Poll::Ready(());
            }
        }
    }
}

impl<Io, S> Wire<Io, S>
where
    Io: Read + Write + Unpin,
    S: Session,
{
    /// Reads and writes until both have to wait.
    fn exchange(&mut self, cx: &mut Context<'_>, budget: &mut usize) -> Result<(), Gone> {
        loop {
            let stopped = self.read(cx, budget)?;
            self.write(cx)?;
            match stopped {
                Stopped::BackedUp if !self.is_backed_up() => {}
                Stopped::Exhausted => {
                    cx.waker().wake_by_ref();
                    return Ok(());
                }
                Stopped::Empty | Stopped::BackedUp => return Ok(()),
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>, budget: &mut usize) -> Result<Stopped, Gone> {
        while !self.eof {
            if self.is_backed_up() {
                return Ok(Stopped::BackedUp);
            }
            if *budget == 0 {
                return Ok(Stopped::Exhausted);
            }
            let size = scratch::reading(|buffer| {
                let mut read = ReadBuf::new(buffer);
                let poll = Pin::new(&mut self.io).poll_read(cx, read.unfilled());
                let size = read.filled().len();
                self.take(&mut buffer[..size]);
                poll.map_ok(|()| size)
            });
            match size? {
                Poll::Pending => return Ok(Stopped::Empty),
                Poll::Ready(0) => self.end_of_input()?,
                Poll::Ready(size) => *budget = budget.saturating_sub(size.max(READ_COST)),
            }
        }
        Ok(Stopped::Empty)
    }

    /// Hands over what was read. Once closing has begun nothing has a meaning any more.
    fn take(&mut self, bytes: &mut [u8]) {
        let Some(session) = self.session.as_mut().filter(|_| !bytes.is_empty()) else { return };
        self.since = Instant::now();
        let control = &mut self.writer.control;
        let result = self.decoder.decode(bytes, |event| match event {
            Event::Message(message) => session.handle_in(message),
            Event::Ping(payload) => {
                write_pong(payload, control);
                Ok(())
            }
            Event::Pong(_) => Ok(()),
            Event::Close(_) => Err(Close::Normal),
        });
        if let Err(close) = result {
            self.begin_close(close);
        }
    }

    /// A client that hangs up in the middle of it all is gone; one that did so after its CLOSE may
    /// still read.
    fn end_of_input(&mut self) -> Result<(), Gone> {
        self.eof = true;
        match self.phase {
            Phase::Open | Phase::Lingering => Err(Gone),
            Phase::Finishing(_) | Phase::Farewell => Ok(()),
        }
    }

    /// Whether the client has to read before it is heard again.
    fn is_backed_up(&self) -> bool {
        self.phase == Phase::Open
            && (!self.writer.control.is_empty() || self.drain.backlog() > self.pause_at)
    }

    /// Writes until nothing is left or `io` takes no more.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Gone> {
        loop {
            if self.writer.batch.is_empty() {
                let _ = self.poll_outbox(cx);
            }
            if !self.writer.is_empty() {
                if self.poll_write(cx)?.is_ready() {
                    continue;
                }
                // Blocked, and yet an overflow must be noticed when it happens.
                let before = self.phase;
                while self.poll_outbox(cx).is_ready() {}
                if self.phase == before {
                    return Ok(());
                }
                continue;
            }
            match self.phase {
                Phase::Open => return self.poll_flush(cx).map(drop),
                Phase::Finishing(close) => {
                    write_close(close, &mut self.writer.control);
                    self.phase = Phase::Farewell;
                }
                Phase::Farewell => {
                    if self.poll_flush(cx)?.is_pending()
                        || Pin::new(&mut self.io).poll_shutdown(cx)?.is_pending()
                    {
                        return Ok(());
                    }
                    self.phase = Phase::Lingering;
                }
                Phase::Lingering if self.eof => return Err(Gone),
                Phase::Lingering => return Ok(()),
            }
        }
    }

    /// Takes what waits in the outbox. Ready if something changed.
    fn poll_outbox(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.phase != Phase::Open {
            return Poll::Pending;
        }
        if let Err(close) = ready!(self.drain.poll_take(cx, &mut self.writer.batch)) {
            self.begin_close(close);
        }
        Poll::Ready(())
    }

    /// One write of as much as it can take.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Gone> {
        let Self { io, writer, .. } = self;
        let copied = if io.is_write_vectored() { COPIED } else { usize::MAX };
        let written = scratch::writing(|scratch| {
            let payloads = writer.gather(copied, scratch);
            match payloads.between(scratch) {
                None => Pin::new(io).poll_write(cx, scratch),
                Some(slices) => Pin::new(io).poll_write_vectored(cx, &slices),
            }
        });
        match written? {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(0) => Err(Gone),
            Poll::Ready(size) => {
                self.unflushed = true;
                let cost = self.writer.advance(size);
                if cost > 0 {
                    self.drain.release(cost);
                }
                Ok(Poll::Ready(()))
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Gone> {
        if self.unflushed && Pin::new(&mut self.io).poll_flush(cx)?.is_pending() {
            return Ok(Poll::Pending);
        }
        self.unflushed = false;
        Ok(Poll::Ready(()))
    }

    /// Nothing more is taken from either side. What was pushed before leaves first, unless it is the
    /// client's not reading it that ends the connection.
    fn begin_close(&mut self, close: Close) {
        tracing::debug!(code = close.code(), "closing a WebSocket");
        if close == Close::Overflow {
            self.writer.abandon();
        } else {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = self.drain.poll_take(&mut cx, &mut self.writer.batch);
        }
        self.drain.close(close);
        self.session = None;
        self.decoder = Decoder::new(0);
        self.phase = Phase::Finishing(close);
        self.since = Instant::now();
    }

    fn deadline(&self) -> Instant {
        let timeout =
            if self.phase == Phase::Open { self.idle_timeout } else { self.close_timeout };
        self.since + timeout
    }
}

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl<Io, S> fmt::Debug for Connection<Io, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("phase", &self.wire.phase).finish_non_exhaustive()
    }
}

/// A clock can be asked for this; for much more it could not.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// How many bytes a connection may read in one turn.
const READ_BUDGET: usize = 128 * 1024;

/// What a read counts at least, so that a turn has an end for tiny ones too.
const READ_COST: usize = 4 * 1024;

/// Payloads up to this size are copied together; for larger ones a place of their own in the system
/// call is cheaper.
const COPIED: usize = 2 * 1024;
