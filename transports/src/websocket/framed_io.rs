//! The bytes of one WebSocket: when to read, when to write, and how to end.
//!
//! It reads into a buffer of its thread and writes from one, so that an idle connection holds
//! neither. What has a meaning lies in the sans-io halves, [`Decoder`] and `Writer`.

use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBuf, Write};
use tokio::time::{Instant, Sleep};

use super::buffers;
use super::config::WebSocketConfig;
use super::decoder::{Decoder, Event};
use super::frame_head::{write_close, write_ping, write_pong};
use super::pings::Pings;
use super::writer::Writer;
use crate::frame::Close;
use crate::limits::Limits;
use crate::outbox;
use crate::session::Session;

/// One connection's two directions, its session between them, and how far it is in its life.
///
/// In the order in which they are needed: a broadcast writes to a thousand of these in a row, and
/// whatever of one it touches must come from afar.
#[repr(C)]
pub(super) struct FramedIo<Io, S> {
    io: Io,
    pub(super) receiver: outbox::Receiver,
    /// What the outbox wakes.
    pushed: Waker,
    pub(super) writer: Writer,
    /// The cost of what was written since the outbox was asked last.
    written: usize,
    pub(super) phase: Phase,
    /// Written bytes may still be inside `io`.
    unflushed: bool,
    /// Writing showed that nobody is at the other end.
    broken: bool,
    /// A large backlog has stopped the reading.
    paused: bool,
    /// The client sends no more.
    eof: bool,
    /// Those of a resumable session.
    pings: Option<Box<Pings>>,
    /// A backlog above this stops the reading.
    pause_at: usize,
    /// When bytes came last, or when closing began.
    since: Instant,
    idle_timeout: Duration,
    close_timeout: Duration,
    decoder: Decoder,
    /// Dropped as soon as closing has begun.
    pub(super) session: Option<S>,
}

/// The life of a connection, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// What was pushed before the close leaves.
    Flushing(Close),
    /// The CLOSE leaves, and then the end of the stream.
    Closing,
    /// The client gets the time to read the CLOSE: closing the socket while bytes of the client are
    /// unread would reset the connection and take the CLOSE away with it.
    AwaitingPeerClose,
}

/// There is nobody at the other end.
struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
        Self
    }
}

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

impl<Io, S> FramedIo<Io, S>
where
    Io: Read + Write + Unpin,
    S: Session,
{
    /// Serves `session` over `io`. The outbox wakes `pushed`.
    pub(super) fn new(
        io: Io,
        session: S,
        receiver: outbox::Receiver,
        pushed: Waker,
        config: &WebSocketConfig,
        limits: &Limits,
    ) -> Self {
        let since = Instant::now();
        let resumable = receiver.is_resumable();
        let pings = (resumable && config.session_pings)
            .then(|| Box::new(Pings::new(receiver.position(), since)));
        Self {
            io,
            receiver,
            pushed,
            writer: Writer::default(),
            written: 0,
            phase: Phase::Open,
            unflushed: false,
            broken: false,
            paused: false,
            eof: false,
            pings,
            // A resumable session counts what is not acknowledged, and the acknowledgement must be read.
            pause_at: if resumable { usize::MAX } else { limits.outbox / 2 },
            since,
            idle_timeout: config.idle_timeout.min(FOREVER),
            close_timeout: config.close_timeout.min(FOREVER),
            decoder: Decoder::new(limits.message).empty_continuations(config.empty_continuations),
            session: Some(session),
        }
    }

    /// A turn of the task.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        let mut budget = READ_BUDGET;
        loop {
            if self.broken || self.exchange(cx, &mut budget).is_err() {
                return Poll::Ready(());
            }
            let deadline = self.deadline();
            let wake = self.ping_due().map_or(deadline, |due| due.min(deadline));
            if timer.deadline() > wake {
                timer.as_mut().reset(wake);
            }
            ready!(timer.as_mut().poll(cx));
            if Instant::now() < deadline {
                timer.as_mut().reset(deadline);
            } else if self.phase == Phase::Open {
                self.begin_close(Close::Protocol);
            } else {
                return Poll::Ready(());
            }
        }
    }

    /// A turn that another task has for this one: it only writes. Whether the task must have a
    /// turn as well.
    pub(super) fn flush(&mut self, task: &Waker) -> bool {
        let before = (self.phase, self.ping_due());
        self.broken |= self.write(&mut Context::from_waker(task)).is_err();
        // The timer and the reading are the task's.
        let after = (self.phase, self.ping_due());
        self.broken || before != after || (self.paused && !self.is_backed_up())
    }

    /// Reads and writes until both have to wait.
    fn exchange(&mut self, cx: &mut Context<'_>, budget: &mut usize) -> Result<(), Gone> {
        loop {
            let stopped = self.read(cx, budget)?;
            self.write(cx)?;
            self.paused = stopped == Stopped::BackedUp;
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
            let size = buffers::reading(|buffer| {
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
        if self.phase == Phase::AwaitingPeerClose && !bytes.is_empty() {
            // Whoever answers a CLOSE is there.
            self.receiver.report_conflict();
        }
        if self.phase != Phase::Open || bytes.is_empty() {
            return;
        }
        let Some(session) = &mut self.session else { return };
        self.since = Instant::now();
        let (control, receiver, pings) =
            (&mut self.writer.control, &self.receiver, &mut self.pings);
        let result = self.decoder.decode(bytes, |event| match event {
            Event::Message(message) => session.handle_in(message),
            Event::Ping(payload) => {
                write_pong(payload, control);
                Ok(())
            }
            Event::Pong(payload) => {
                if let Some(position) =
                    pings.as_mut().and_then(|pings| pings.answered(payload, Instant::now()))
                {
                    receiver.pong(position);
                }
                Ok(())
            }
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
            Phase::Open | Phase::AwaitingPeerClose => Err(Gone),
            Phase::Flushing(_) | Phase::Closing => Ok(()),
        }
    }

    /// Whether the client has to read before it is heard again.
    fn is_backed_up(&self) -> bool {
        self.phase == Phase::Open
            && (!self.writer.control.is_empty() || self.receiver.backlog() > self.pause_at)
    }

    /// Writes until nothing is left or `io` takes no more.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Gone> {
        loop {
            self.ping();
            if self.writer.batch.is_empty() {
                let _ = self.poll_outbox(CHUNK);
            } else if self.written > 0 {
                // More was taken than one write can carry, and what comes meanwhile needs the room.
                self.receiver.release(mem::take(&mut self.written));
            }
            if !self.writer.is_empty() {
                if self.poll_write(cx)?.is_ready() {
                    continue;
                }
                // Blocked, and yet an overflow must be noticed when it happens.
                let before = self.phase;
                while self.poll_outbox(0).is_ready() {}
                if self.phase == before {
                    return Ok(());
                }
                continue;
            }
            match self.phase {
                Phase::Open => return self.poll_flush(cx).map(drop),
                Phase::Flushing(close) => {
                    write_close(close, &mut self.writer.control);
                    self.phase = Phase::Closing;
                }
                Phase::Closing => {
                    if self.poll_flush(cx)?.is_pending()
                        || Pin::new(&mut self.io).poll_shutdown(cx)?.is_pending()
                    {
                        return Ok(());
                    }
                    self.phase = Phase::AwaitingPeerClose;
                }
                Phase::AwaitingPeerClose if self.eof => return Err(Gone),
                Phase::AwaitingPeerClose => return Ok(()),
            }
        }
    }

    /// Asks whether all that was written has arrived, if it is time to.
    fn ping(&mut self) {
        if self.ping_due().is_some_and(|due| due <= Instant::now())
            && let Some(pings) = &mut self.pings
        {
            let payload = pings.asks(self.receiver.position(), Instant::now());
            write_ping(&payload, &mut self.writer.control);
        }
    }

    /// When that will be, if nothing else happens.
    fn ping_due(&self) -> Option<Instant> {
        let pings = self.pings.as_ref()?;
        if self.phase == Phase::Open && self.writer.is_empty() { pings.due() } else { None }
    }

    /// Takes what waits in the outbox; of a resumable session about `chunk` bytes. Ready if something
    /// changed.
    fn poll_outbox(&mut self, chunk: usize) -> Poll<()> {
        if self.phase != Phase::Open {
            return Poll::Pending;
        }
        let window = self.pings.as_ref().map_or(usize::MAX, |pings| pings.window());
        let cx = &mut Context::from_waker(&self.pushed);
        let (batch, written) = (&mut self.writer.batch, mem::take(&mut self.written));
        let taken = self.receiver.poll_take_some(cx, batch, written, chunk, window);
        if let Err(close) = ready!(taken) {
            self.begin_close(close);
        }
        Poll::Ready(())
    }

    /// One write of as much as it can take.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Gone> {
        let Self { io, writer, .. } = self;
        let written = if let Some(frame) = writer.single() {
            Pin::new(io).poll_write(cx, frame)
        } else {
            let copied = if io.is_write_vectored() { COPIED } else { usize::MAX };
            buffers::writing(|scratch| {
                let payloads = writer.gather(copied, scratch);
                match payloads.between(scratch) {
                    None => Pin::new(io).poll_write(cx, scratch),
                    Some(slices) => Pin::new(io).poll_write_vectored(cx, &slices),
                }
            })
        };
        match written? {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(0) => Err(Gone),
            Poll::Ready(size) => {
                self.unflushed = true;
                let cost = self.writer.advance(size);
                self.written += cost;
                if let Some(pings) = &mut self.pings {
                    pings.wrote(cost);
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
        } else if !self.receiver.is_resumable() {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = self.receiver.poll_take(&mut cx, &mut self.writer.batch);
        }
        self.receiver.close(close);
        self.decoder = Decoder::new(0);
        self.phase = Phase::Flushing(close);
        self.since = Instant::now();
    }

    /// When its time is up, unless bytes come.
    pub(super) fn deadline(&self) -> Instant {
        let timeout =
            if self.phase == Phase::Open { self.idle_timeout } else { self.close_timeout };
        self.since + timeout
    }
}

/// How much of a resumable session is written at once.
const CHUNK: usize = 64 * 1024;

/// A clock can be asked for this; for much more it could not.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// How many bytes a connection may read in one turn.
pub(super) const READ_BUDGET: usize = 128 * 1024;

/// What a read counts at least, so that a turn has an end for tiny ones too.
const READ_COST: usize = 4 * 1024;

/// Payloads up to this size are copied together; for larger ones a place of their own in the system
/// call is cheaper.
const COPIED: usize = 2 * 1024;
