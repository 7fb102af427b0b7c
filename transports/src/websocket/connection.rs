//! One WebSocket from the upgrade to the last byte: a single future, run by a single task, which alone
//! reads and writes. A push into the outbox wakes that task.

mod end;
mod take;
mod timeout;

use std::fmt;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Read, Write};
use tokio::time::Instant;

use self::end::End;
use super::config::WebSocketConfig;
use super::deadline::Deadline;
use super::decoder::{Decoder, Event};
use super::frame_head::{write_close, write_ping};
use super::framed_io::FramedIo;
use super::meter::Meter;
use super::pings::Pings;
use super::throttled::Throttled;
use super::turn::Turn;
use crate::frame::Close;
use crate::limited;
use crate::limits::Limits;
use crate::memory::Cost;
use crate::outbox::{self, Loss};
use crate::session::Session;
use crate::telemetry::Handles;

/// A WebSocket after its handshake. The future completes when the connection has ended.
///
/// Cancel safety: dropping it cuts the connection.
pub struct Connection<Io, S> {
    framed: FramedIo<Io>,
    receiver: outbox::Receiver,
    /// The cost of messages that are written but still count against the outbox.
    unreleased: Cost,
    /// Only for a resumable session.
    pings: Option<Box<Pings>>,
    throttled: Throttled,
    /// Reading pauses while the backlog is larger than this.
    max_backlog: usize,
    /// Of the idle timeout while the connection is open, then of the close timeout.
    deadline: Deadline,
    close_timeout: Duration,
    meter: Meter,
    state: State<S>,
}

/// The life of a connection. It passes through these states in order and may end in any of them.
enum State<S> {
    /// Messages are exchanged.
    Open(S),
    /// Messages pushed before the close are being written.
    Flushing(Close),
    /// The CLOSE and the end of the stream are being written.
    Closing,
    /// The client gets time to read the CLOSE: closing a socket that has unread input resets the
    /// connection, and the CLOSE would be lost.
    AwaitingPeerClose,
}

/// Why reading stopped.
#[derive(PartialEq, Eq)]
enum Stopped {
    /// There is nothing to read.
    Empty,
    /// The client has to read what it was sent first.
    BackedUp,
    /// The turn is used up.
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
        receiver: outbox::Receiver,
        config: &WebSocketConfig,
        limits: &Limits,
    ) -> Self {
        let decoder = Decoder::new(limits.message).empty_continuations(config.empty_continuations);
        let is_resumable = receiver.is_resumable();
        let pings = (is_resumable && config.session_pings)
            .then(|| Box::new(Pings::new(receiver.position(), Instant::now())));
        Self {
            framed: FramedIo::new(io, decoder),
            receiver,
            unreleased: Cost::default(),
            pings,
            throttled: Throttled::new(limits.rate),
            // The backlog of a resumable session shrinks by acknowledgements, which must be read.
            max_backlog: if is_resumable { usize::MAX } else { limits.outbox / 2 },
            deadline: Deadline::new(config.idle_timeout),
            close_timeout: config.close_timeout,
            meter: Meter::default(),
            state: State::Open(session),
        }
    }

    /// Counts and measures what it does.
    pub(crate) fn metered(self, handles: &Arc<Handles>) -> Self {
        Self { meter: Meter::new(handles), ..self }
    }

    /// Runs the state machine until it has to wait. Ready once the connection has ended.
    fn poll_state(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> Poll<io::Result<()>> {
        loop {
            match self.state {
                State::Open(_) => match self.exchange(cx, turn) {
                    Ok(()) => return Poll::Pending,
                    Err(End::Disconnected) => return Poll::Ready(Ok(())),
                    Err(End::Client(loss)) => self.close_connection(Close::Normal, loss),
                    Err(End::Connection(close)) => self.close_connection(close, Loss::Cut),
                    Err(End::Outbox(close)) => self.close_session(close),
                },
                State::Flushing(close) => {
                    self.discard_input(cx, turn)?;
                    ready!(self.framed.poll_write_all(cx))?;
                    self.framed.reserve_output(None);
                    write_close(close, &mut self.framed.writer.control);
                    self.state = State::Closing;
                }
                State::Closing => {
                    self.discard_input(cx, turn)?;
                    ready!(self.framed.poll_write_all(cx))?;
                    ready!(self.framed.poll_shutdown(cx))?;
                    self.state = State::AwaitingPeerClose;
                }
                State::AwaitingPeerClose => {
                    if self.discard_input(cx, turn)? > 0 {
                        // Any byte after our CLOSE proves that the client is alive.
                        self.receiver.report_conflict();
                    }
                    return if self.framed.eof { Poll::Ready(Ok(())) } else { Poll::Pending };
                }
            }
        }
    }

    /// Ends this connection. A plain session ends with it, so what was pushed is written first; a
    /// resumable one keeps it for the next connection.
    fn close_connection(&mut self, close: Close, loss: Loss) {
        if !self.receiver.is_resumable() {
            self.take_all();
        }
        self.receiver.close_after(close, loss);
        self.begin_close(close);
    }

    /// Ends the connection of a closed outbox. What was pushed before is written first, however much
    /// is in flight; except after an overflow, which dropped it.
    fn close_session(&mut self, close: Close) {
        if close == Close::Overflow {
            self.framed.writer.discard_unstarted();
        } else {
            self.take_all();
        }
        self.begin_close(close);
    }

    /// Drops the session and starts to close.
    fn begin_close(&mut self, close: Close) {
        limited!(DEBUG, code = close.code(), "closing a WebSocket");
        self.framed.stop_decoding();
        // A resumable outbox goes on to count what it has sent, except after an overflow.
        if !self.receiver.is_resumable() || close == Close::Overflow {
            self.framed.reserve_output(self.receiver.account());
        }
        self.framed.written = 0;
        self.deadline.restart(self.close_timeout);
        self.framed.is_paused = true;
        self.state = State::Flushing(close);
    }

    /// Reads and writes until both have to wait.
    fn exchange(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> Result<(), End> {
        loop {
            let stopped = self.read(cx, turn)?;
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

    /// Reads and handles messages.
    fn read(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> Result<Stopped, End> {
        loop {
            if self.is_backed_up() {
                return Ok(Stopped::BackedUp);
            }
            if turn.is_over() {
                return Ok(Stopped::Exhausted);
            }
            if self.throttled.waits_until().is_some() {
                return Ok(Stopped::Empty);
            }
            let allowed = self.throttled.limit(turn.messages);
            let mut left = allowed;
            let State::Open(session) = &mut self.state else { return Ok(Stopped::Empty) };
            let (receiver, pings, meter) = (&self.receiver, &mut self.pings, &self.meter);
            let (mut closed, mut messages) = (None, 0);
            let read = self.framed.poll_read(cx, &mut left, |event| match event {
                Event::Message(message) => {
                    messages += 1;
                    session.handle_in(message)
                }
                Event::Ping(_) => Ok(()),
                Event::Pong(payload) => {
                    if let Some(pings) = pings
                        && let Some(pong) = pings.on_pong(payload, Instant::now())
                    {
                        receiver.pong(pong.position);
                        meter.round_trip(pong.round_trip);
                    }
                    Ok(())
                }
                Event::Close(code) => {
                    closed = Some(Loss::by_close_code(code));
                    Err(Close::Normal)
                }
            });
            self.meter.receive(messages);
            if let Some(loss) = closed {
                return Err(End::Client(loss));
            }
            match read? {
                Poll::Pending => return Ok(Stopped::Empty),
                Poll::Ready(0) => return Err(End::Disconnected),
                Poll::Ready(size) => {
                    let now = Instant::now();
                    self.deadline.extend(now);
                    self.framed.record_progress(size, now);
                    turn.spend(size);
                    turn.messages -= allowed - left;
                    self.throttled.receive(allowed - left, size).map_err(End::Connection)?;
                    self.framed.reserve(self.receiver.account());
                }
            }
        }
    }

    /// Discards what the client still sends. Returns how much that was.
    fn discard_input(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> io::Result<usize> {
        let mut discarded = 0;
        while !self.framed.eof {
            if turn.is_over() {
                cx.waker().wake_by_ref();
                break;
            }
            match self.framed.poll_discard(cx)? {
                Poll::Pending => break,
                Poll::Ready(0) => self.framed.eof = true,
                Poll::Ready(size) => {
                    discarded += size;
                    turn.spend(size);
                }
            }
        }
        Ok(discarded)
    }

    /// Whether the client has to read before more of it is read.
    fn is_backed_up(&self) -> bool {
        !self.framed.writer.control.is_empty() || self.receiver.backlog() > self.max_backlog
    }

    /// Writes until nothing is left or `io` accepts no more.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            self.ping();
            if self.framed.writer.messages.is_empty() {
                let _ = self.poll_outbox(cx, CHUNK)?;
            } else if self.unreleased != Cost::default() {
                // What is pushed meanwhile needs the room.
                self.receiver.release(mem::take(&mut self.unreleased));
            }
            if self.framed.writer.is_empty() {
                self.meter.unblock();
                let _ = self.framed.poll_flush(cx)?;
                return Ok(());
            }
            match self.framed.poll_write(cx)? {
                Poll::Ready(cost) => {
                    self.unreleased += cost;
                    if let Some(pings) = &mut self.pings {
                        pings.on_write(cost.bytes());
                    }
                }
                Poll::Pending => {
                    self.meter.block();
                    // Keeps a waker in the outbox, so that an overflow ends the connection at once.
                    while self.poll_outbox(cx, 0)?.is_ready() {}
                    return Ok(());
                }
            }
        }
    }

    /// Queues a Ping if one is due.
    fn ping(&mut self) {
        if self.ping_due().is_some_and(|due| due <= Instant::now())
            && let Some(pings) = &mut self.pings
        {
            let payload = pings.ping(self.receiver.position(), Instant::now());
            write_ping(&payload, &mut self.framed.writer.control);
        }
    }

    /// When the next Ping is due, if nothing is written until then.
    fn ping_due(&self) -> Option<Instant> {
        let pings = self.pings.as_ref()?;
        if self.is_open() && self.framed.writer.is_empty() { pings.due() } else { None }
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }
}

impl<Io, S> Future for Connection<Io, S>
where
    Io: Read + Write + Unpin,
    S: Session,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut turn = Turn::new();
        loop {
            if this.poll_state(cx, &mut turn).is_ready() {
                return Poll::Ready(());
            }
            let has_timed_out = ready!(this.poll_deadline(cx));
            if has_timed_out && this.is_open() {
                this.close_connection(Close::Protocol, Loss::Cut);
            } else if has_timed_out {
                return Poll::Ready(());
            }
        }
    }
}

/// The session is never pinned.
impl<Io: Unpin, S> Unpin for Connection<Io, S> {}

impl<Io, S> fmt::Debug for Connection<Io, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Open(_) => "Open",
            State::Flushing(_) => "Flushing",
            State::Closing => "Closing",
            State::AwaitingPeerClose => "AwaitingPeerClose",
        };
        f.debug_struct("Connection").field("state", &state).finish_non_exhaustive()
    }
}

/// How many bytes of a resumable session are taken out of its outbox at a time.
const CHUNK: usize = 64 * 1024;

#[cfg(test)]
mod tests;
