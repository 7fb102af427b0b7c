//! One WebSocket, from the upgrade to the last byte: a single future, and so a single task. Only
//! what is pushed may be written by the task of another one, in a [`Group`].
//!
//! It reads into a buffer of its thread and writes from one, so that an idle connection holds
//! neither. What has a meaning lies in the sans-io halves, [`Decoder`] and `Writer`; here is only
//! when to read, when to write, and how to end.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use hyper::rt::{Read, ReadBuf, Write};
use pin_project::pin_project;
use tokio::time::{Instant, Sleep};

use super::config::WebSocketConfig;
use super::decoder::{Decoder, Event};
use super::group::{self, Group, Member};
use super::head::{write_close, write_ping, write_pong};
use super::pings::Pings;
use super::scratch;
use super::writer::Writer;
use crate::frame::Close;
use crate::limits::Limits;
use crate::session::{Drain, Session};

/// A WebSocket after its handshake. The future ends when the connection has. It must be polled when
/// it is woken: others may depend on it.
///
/// Cancel safety: dropping it cuts the connection.
#[pin_project]
pub struct Connection<Io, S> {
    owner: Owner<Io, S>,
    /// Never set later than the deadline or the next Ping of a kept session, and otherwise set anew only
    /// when it fires: a message costs it nothing.
    #[pin]
    timer: Sleep,
}

/// The end of the connection when it is dropped.
struct Owner<Io, S>(Arc<Shared<Io, S>>);

/// What those who write for this connection reach. It is the outbox's waker.
struct Shared<Io, S> {
    turn: Mutex<Turn>,
    /// None once the connection is over. The lock is held for a turn.
    held: Mutex<Option<Held<Io, S>>>,
}

/// What leads to the next turn of the task. The lock is never held for more than an assignment.
struct Turn {
    task: Waker,
    /// Those for whom the task writes in its next turn.
    leads: Option<Arc<Group>>,
    /// There will be no turn.
    over: bool,
}

struct Held<Io, S> {
    wire: Wire<Io, S>,
    /// What the transport wakes, whoever called it.
    task: Waker,
}

struct Wire<Io, S> {
    io: Io,
    /// Dropped as soon as closing has begun.
    session: Option<S>,
    drain: Drain,
    /// What the outbox wakes.
    pushed: Waker,
    decoder: Decoder,
    writer: Writer,
    phase: Phase,
    /// Written bytes may still be inside `io`.
    unflushed: bool,
    /// The client sends no more.
    eof: bool,
    /// A backlog above this stops the reading.
    pause_at: usize,
    /// It has stopped the reading.
    paused: bool,
    /// Writing showed that nobody is at the other end.
    broken: bool,
    /// Those of a kept session.
    pings: Option<Pings>,
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
    Io: Read + Write + Unpin + Send + 'static,
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
        let turn = Turn { task: Waker::noop().clone(), leads: None, over: false };
        let shared = Arc::new(Shared { turn: Mutex::new(turn), held: Mutex::new(None) });
        let kept = drain.is_kept();
        let pings = (kept && config.session_pings).then(|| Pings::new(drain.position(), since));
        let wire = Wire {
            io,
            session: Some(session),
            drain,
            pushed: Arc::clone(&shared).into(),
            decoder: Decoder::new(limits.message).empty_continuations(config.empty_continuations),
            writer: Writer::default(),
            phase: Phase::Open,
            unflushed: false,
            eof: false,
            // A kept session counts what is not acknowledged, and the acknowledgement must be read.
            pause_at: if kept { usize::MAX } else { limits.outbox / 2 },
            paused: false,
            broken: false,
            pings,
            since,
            idle_timeout: config.idle_timeout.min(FOREVER),
            close_timeout: config.close_timeout.min(FOREVER),
        };
        let timer = tokio::time::sleep_until(wire.deadline());
        *shared.lock() = Some(Held { wire, task: Waker::noop().clone() });
        Self { owner: Owner(shared), timer }
    }
}

impl<Io, S> Future for Connection<Io, S>
where
    Io: Read + Write + Unpin + Send + 'static,
    S: Session,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let shared = &this.owner.0;
        if let Some(group) = shared.begin_turn(cx.waker()) {
            group.serve();
        }
        let mut held = shared.lock();
        let Some(Held { wire, task }) = &mut *held else { return Poll::Ready(()) };
        if !task.will_wake(cx.waker()) {
            task.clone_from(cx.waker());
        }
        let poll = wire.poll(cx, this.timer);
        let over = if wire.phase == Phase::Open { None } else { wire.session.take() };
        // Its `Drop` is the application's.
        drop(held);
        drop(over);
        poll
    }
}

impl<Io, S> Shared<Io, S> {
    /// A turn of the task begins. Those for whom it is to write come first.
    fn begin_turn(&self, task: &Waker) -> Option<Arc<Group>> {
        let mut turn = self.turn();
        if !turn.task.will_wake(task) {
            turn.task.clone_from(task);
        }
        turn.leads.take()
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic of the session is the end of the task, and so of the connection.
    fn lock(&self) -> MutexGuard<'_, Option<Held<Io, S>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Io, S> Wake for Shared<Io, S>
where
    Io: Read + Write + Unpin + Send + 'static,
    S: Session,
{
    fn wake(self: Arc<Self>) {
        group::join(self);
    }
}

impl<Io, S> Member for Shared<Io, S>
where
    Io: Read + Write + Unpin + Send + 'static,
    S: Session,
{
    fn flush(&self) {
        let needs_task = match self.held.try_lock() {
            Ok(mut held) => held.as_mut().is_some_and(|Held { wire, task }| wire.flush(task)),
            // It has a turn at this moment, which may be past its writing.
            Err(_) => true,
        };
        if needs_task {
            self.wake_task();
        }
    }

    fn lead(&self, group: &Arc<Group>) {
        let mut turn = self.turn();
        let leads = !turn.over && turn.leads.is_none();
        if leads {
            turn.leads = Some(Arc::clone(group));
        }
        drop(turn);
        if !leads {
            drop(group.end());
        }
        self.wake_task();
    }

    fn wake_task(&self) {
        let task = self.turn().task.clone();
        task.wake();
    }
}

impl<Io, S> Drop for Owner<Io, S> {
    fn drop(&mut self) {
        let mut turn = self.0.turn();
        turn.over = true;
        let leads = turn.leads.take();
        drop(turn);
        if let Some(group) = leads {
            drop(group.end());
        }
        let held = self.0.lock().take();
        drop(held);
    }
}

impl<Io, S> Wire<Io, S>
where
    Io: Read + Write + Unpin,
    S: Session,
{
    /// A turn of the task.
    fn poll(&mut self, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
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

    /// A turn that another connection has for this one: it only writes. Whether the task must have a
    /// turn as well.
    fn flush(&mut self, task: &Waker) -> bool {
        let before = (self.phase, self.ping_due());
        self.broken |= self.write(&mut Context::from_waker(task)).is_err();
        // The timer is the task's.
        let now = (self.phase, self.ping_due());
        self.broken || before != now || (self.paused && !self.is_backed_up())
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
        if self.phase == Phase::Lingering && !bytes.is_empty() {
            // Whoever answers a CLOSE is there.
            self.drain.contest();
        }
        if self.phase != Phase::Open || bytes.is_empty() {
            return;
        }
        let Some(session) = &mut self.session else { return };
        self.since = Instant::now();
        let (control, drain, pings) = (&mut self.writer.control, &self.drain, &mut self.pings);
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
                    drain.pong(position);
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
            self.ping();
            if self.writer.batch.is_empty() {
                let _ = self.poll_outbox(CHUNK);
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

    /// Asks whether all that was written has arrived, if it is time to.
    fn ping(&mut self) {
        if self.ping_due().is_some_and(|due| due <= Instant::now())
            && let Some(pings) = &mut self.pings
        {
            let payload = pings.asks(self.drain.position(), Instant::now());
            write_ping(&payload, &mut self.writer.control);
        }
    }

    /// When that will be, if nothing else happens.
    fn ping_due(&self) -> Option<Instant> {
        let pings = self.pings.as_ref()?;
        if self.phase == Phase::Open && self.writer.is_empty() { pings.due() } else { None }
    }

    /// Takes what waits in the outbox; of a kept session about `chunk` bytes. Ready if something
    /// changed.
    fn poll_outbox(&mut self, chunk: usize) -> Poll<()> {
        if self.phase != Phase::Open {
            return Poll::Pending;
        }
        let window = self.pings.as_ref().map_or(usize::MAX, Pings::window);
        let cx = &mut Context::from_waker(&self.pushed);
        let taken = self.drain.poll_take_some(cx, &mut self.writer.batch, chunk, window);
        if let Err(close) = ready!(taken) {
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
                    if let Some(pings) = &mut self.pings {
                        pings.wrote(cost);
                    }
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
        } else if !self.drain.is_kept() {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = self.drain.poll_take(&mut cx, &mut self.writer.batch);
        }
        self.drain.close(close);
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
        let phase = self.owner.0.lock().as_ref().map(|held| held.wire.phase);
        f.debug_struct("Connection").field("phase", &phase).finish_non_exhaustive()
    }
}

/// How much of a kept session is written at once.
const CHUNK: usize = 64 * 1024;

/// A clock can be asked for this; for much more it could not.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// How many bytes a connection may read in one turn.
const READ_BUDGET: usize = 128 * 1024;

/// What a read counts at least, so that a turn has an end for tiny ones too.
const READ_COST: usize = 4 * 1024;

/// Payloads up to this size are copied together; for larger ones a place of their own in the system
/// call is cheaper.
const COPIED: usize = 2 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::IoSlice;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, Weak};
    use std::task::Wake;

    use hyper::rt::ReadBufCursor;

    use super::*;
    use crate::frame::{Inbound, Message};
    use crate::session::Outbox;

    /// A network of one connection, whose other end is the test.
    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<Ends>>);

    #[derive(Default)]
    struct Ends {
        to_read: VecDeque<u8>,
        eof: bool,
        broken: bool,
        /// How much may be written before the pipe is full.
        room: usize,
        is_vectored: bool,
        /// One entry a call. They wait to be flushed, as in a TLS stream.
        unflushed: Vec<Vec<u8>>,
        written: Vec<Vec<u8>>,
        refuses_writes: bool,
        is_shut_down: bool,
    }

    impl Read for Pipe {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            mut buf: ReadBufCursor<'_>,
        ) -> Poll<io::Result<()>> {
            let mut ends = self.0.lock().unwrap();
            if ends.broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            if ends.to_read.is_empty() {
                return if ends.eof { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            let size = buf.remaining().min(ends.to_read.len());
            buf.put_slice(&ends.to_read.drain(..size).collect::<Vec<_>>());
            Poll::Ready(Ok(()))
        }
    }

    impl Write for Pipe {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let mut ends = self.0.lock().unwrap();
            assert!(!ends.is_shut_down, "nothing is written after the end");
            if ends.refuses_writes {
                return Poll::Ready(Ok(0));
            }
            if ends.room == 0 {
                return Poll::Pending;
            }
            let mut bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            bytes.truncate(ends.room);
            ends.room -= bytes.len();
            let size = bytes.len();
            ends.unflushed.push(bytes);
            Poll::Ready(Ok(size))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            let ends = &mut *self.0.lock().unwrap();
            ends.written.append(&mut ends.unflushed);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.lock().unwrap().is_shut_down = true;
            Poll::Ready(Ok(()))
        }

        fn is_write_vectored(&self) -> bool {
            self.0.lock().unwrap().is_vectored
        }
    }

    /// Echoes; `malformed` is what it does not understand.
    struct Echo {
        outbox: Outbox,
        _alive: Arc<()>,
    }

    impl Session for Echo {
        fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
            match message {
                Inbound::Text("malformed") => return Err(Close::Malformed),
                Inbound::Text(text) => self.outbox.push(Message::text(text.to_owned())),
                Inbound::Binary(bytes) => self.outbox.push(Message::binary(bytes.to_vec())),
            }
            Ok(())
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Harness {
        pipe: Pipe,
        outbox: Outbox,
        session: Weak<()>,
        connection: Pin<Box<Connection<Pipe, Echo>>>,
        wakes: Arc<Wakes>,
    }

    const LIMITS: Limits =
        Limits { message: 200_000, outbox: 100_000, connect_timeout: Duration::ZERO };

    impl Harness {
        fn new() -> Self {
            Self::with(Outbox::new(LIMITS.outbox))
        }

        /// A connection of a kept session.
        fn kept() -> Self {
            let outbox = Outbox::new(LIMITS.outbox).1.into_kept(0);
            let drain = outbox.attach(None).expect("no gap");
            Self::with((outbox, drain))
        }

        fn with((outbox, drain): (Outbox, Drain)) -> Self {
            let pipe = Pipe::default();
            let alive = Arc::new(());
            let session = Arc::downgrade(&alive);
            let echo = Echo { outbox: outbox.clone(), _alive: alive };
            let config = WebSocketConfig::new();
            let connection = Box::pin(Connection::new(pipe.clone(), echo, drain, &config, &LIMITS));
            let harness = Self { pipe, outbox, session, connection, wakes: Arc::default() };
            harness.ends(|ends| {
                ends.room = usize::MAX;
                ends.is_vectored = true;
            });
            harness
        }

        fn ends<R>(&self, change: impl FnOnce(&mut Ends) -> R) -> R {
            change(&mut self.pipe.0.lock().unwrap())
        }

        fn wire<R>(&self, look: impl FnOnce(&Wire<Pipe, Echo>) -> R) -> R {
            look(&self.connection.owner.0.lock().as_ref().expect("not over").wire)
        }

        /// Lets the client send a frame.
        fn send(&self, first: u8, payload: &[u8]) {
            let mut frame = fastwebsockets::Frame::new(
                first & 0x80 != 0,
                (first & 0x0f).try_into().unwrap(),
                Some([1, 2, 3, 4]),
                payload.to_vec().into(),
            );
            let mut bytes = vec![0; 14];
            let size = frame.fmt_head(&mut bytes);
            bytes.truncate(size);
            bytes.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(b, m)| b ^ m));
            self.ends(|ends| ends.to_read.extend(bytes));
        }

        /// One turn of the connection's task. True once it has ended.
        fn turn(&mut self) -> bool {
            let waker = Arc::clone(&self.wakes).into();
            self.connection.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        }

        /// Whether it asked for another turn since the last call.
        fn woken(&self) -> bool {
            self.wakes.0.swap(0, Ordering::Relaxed) > 0
        }

        /// Everything written since the last call.
        fn received(&self) -> Vec<u8> {
            self.ends(|ends| std::mem::take(&mut ends.written)).concat()
        }

        async fn advance(&mut self, millis: u64) -> bool {
            tokio::time::advance(Duration::from_millis(millis)).await;
            self.turn()
        }
    }

    fn close(close: Close) -> Vec<u8> {
        let mut frame = Vec::new();
        write_close(close, &mut frame);
        frame
    }

    fn text(text: &str) -> Vec<u8> {
        assert!(text.len() < 126);
        [&[0x81, text.len() as u8], text.as_bytes()].concat()
    }

    fn big() -> Message {
        Message::binary(vec![7; 40_000])
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_leaves_in_one_write() {
        let mut it = Harness::new();
        for _ in 0..64 {
            it.outbox.push(Message::text("x".repeat(100)));
        }
        it.outbox.push(big());
        it.outbox.push(Message::text("end"));
        assert!(!it.turn());
        let writes: Vec<_> = it.ends(|ends| ends.written.iter().map(Vec::len).collect());
        assert_eq!(writes, [64 * 102 + 40_004 + 5]);
    }

    fn ping(position: u64) -> Vec<u8> {
        [&[0x89, 8][..], &position.to_be_bytes()].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_kept_session_is_not_asked_about_each_message() {
        let mut it = Harness::kept();
        assert!(!it.turn());
        it.outbox.push(Message::text("first"));
        assert!(!it.turn());
        assert_eq!(it.received(), [text("first"), ping(1)].concat());
        it.send(0x8a, &1_u64.to_be_bytes());
        for _ in 0..9 {
            it.outbox.push(Message::text("more"));
            assert!(!it.advance(10).await);
            assert_eq!(it.received(), text("more"));
        }
        it.woken();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(it.woken(), "nothing else happens");
        assert!(!it.turn());
        assert_eq!(it.received(), ping(10));
        it.send(0x8a, &10_u64.to_be_bytes());
        assert!(!it.turn());
        assert!(!it.advance(1000).await);
        assert_eq!(it.received(), b"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_replay_is_asked_about_on_its_way() {
        let mut it = Harness::kept();
        let room = it.outbox.lane();
        (0..3).for_each(|_| room.push(big()));
        room.open(it.wire(|wire| wire.drain.attachment()), Message::text("joined"));
        assert!(!it.turn());
        let received = it.received();
        let pings = received.windows(10).filter(|bytes| bytes[..9] == ping(0)[..9]);
        assert_eq!(
            pings.map(|bytes| bytes[9]).collect::<Vec<_>>(),
            [2],
            "the rest waits for the answer"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_session_that_cannot_be_written_to_sleeps_until_it_can() {
        let mut it = Harness::kept();
        it.ends(|ends| ends.room = 3);
        it.outbox.push(Message::text("first"));
        assert!(!it.turn());
        it.woken();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!it.woken());
        it.ends(|ends| ends.room = usize::MAX);
        assert!(!it.turn());
        assert_eq!(it.received(), [text("first"), ping(1)].concat());
    }

    /// Two connections to which something was pushed, one soon after the other. Between them is one
    /// that gets a turn of its own.
    fn woken_together() -> [Harness; 2] {
        let mut all = [Harness::new(), Harness::new(), Harness::new()];
        for it in &mut all {
            assert!(!it.turn());
        }
        all.iter().for_each(|it| it.outbox.push(Message::text("a")));
        let [first, second, third] = all;
        assert!(second.woken());
        [first, third]
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_of_those_woken_together_writes_for_the_others() {
        let [mut first, second] = woken_together();
        assert!(first.woken() && !second.woken());
        assert!(!first.turn());
        assert_eq!([first.received(), second.received()], [text("a"), text("a")]);
        second.outbox.push(Message::text("b"));
        assert!(second.woken(), "it leads the next group");
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_wakes_the_task_of_whoever_was_written_for() {
        let [mut first, mut second] = woken_together();
        second.outbox.close(Close::Restart);
        assert!(!first.turn());
        assert_eq!(second.received(), [text("a"), close(Close::Restart)].concat());
        assert!(second.woken() && second.session.upgrade().is_some());
        assert!(!second.turn());
        assert!(second.session.upgrade().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_cannot_be_written_to_at_once_goes_on_by_itself() {
        let [mut first, mut second] = woken_together();
        second.ends(|ends| ends.room = 1);
        assert!(!first.turn());
        second.ends(|ends| ends.room = usize::MAX);
        assert!(!second.turn());
        assert_eq!(second.received(), text("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn those_woken_together_with_one_that_is_gone_go_on_by_themselves() {
        let [first, mut second] = woken_together();
        drop(first);
        assert!(second.woken());
        assert!(!second.turn());
        assert_eq!(second.received(), text("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_is_handled_and_its_answer_written_in_the_same_turn() {
        let mut it = Harness::new();
        it.send(0x81, b"hello");
        assert!(!it.turn());
        assert_eq!(it.received(), text("hello"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_written_piece_by_piece_arrives_whole() {
        let mut it = Harness::new();
        it.outbox.push(Message::text("first"));
        it.outbox.push(big());
        it.outbox.push(Message::text("last"));
        it.ends(|ends| ends.room = 0);
        for room in (1..60).cycle().take(1500) {
            it.ends(|ends| ends.room = room);
            assert!(!it.turn());
        }
        let big = [&[0x82, 126, 0x9c, 0x40][..], &[7; 40_000]].concat();
        assert_eq!(it.received(), [text("first"), big, text("last")].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pong_goes_between_frames_and_never_inside_one() {
        let mut it = Harness::new();
        it.outbox.push(Message::text("first"));
        it.outbox.push(Message::text("second"));
        it.ends(|ends| ends.room = 3);
        assert!(!it.turn());
        it.send(0x89, b"?");
        assert!(!it.turn());
        it.ends(|ends| ends.room = usize::MAX);
        assert!(!it.turn());
        assert_eq!(it.received(), [text("first"), b"\x8a\x01?".to_vec(), text("second")].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn a_transport_that_cannot_write_vectored_gets_the_same_bytes() {
        let mut it = Harness::new();
        it.ends(|ends| ends.is_vectored = false);
        it.outbox.push(big());
        it.outbox.push(Message::text("end"));
        assert!(!it.turn());
        let big = [&[0x82, 126, 0x9c, 0x40][..], &[7; 40_000]].concat();
        assert_eq!(it.received(), [big, text("end")].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_closed_exactly_after_the_idle_timeout() {
        let mut it = Harness::new();
        assert!(!it.turn());
        assert!(!it.advance(30_000).await);
        // Half a head counts; what the server sends does not.
        it.ends(|ends| ends.to_read.push_back(0x81));
        assert!(!it.turn());
        it.outbox.push(Message::text("news"));
        assert!(!it.advance(59_999).await);
        assert_eq!(it.received(), text("news"));
        assert!(!it.advance(1).await);
        assert_eq!(it.received(), close(Close::Protocol));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_hang_up_is_cut_after_the_close_timeout() {
        let mut it = Harness::new();
        it.outbox.close(Close::GoingAway);
        assert!(!it.turn());
        assert_eq!(it.received(), close(Close::GoingAway));
        assert!(it.ends(|ends| ends.is_shut_down));
        it.send(0x81, b"still here");
        assert!(!it.advance(4_999).await);
        assert!(it.advance(1).await);
        assert_eq!(it.received(), b"");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_hangs_up_ends_the_close() {
        let mut it = Harness::new();
        it.outbox.close(Close::Restart);
        assert!(!it.turn());
        it.ends(|ends| ends.eof = true);
        assert!(it.turn());
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_that_cannot_be_written_is_cut_too() {
        let mut it = Harness::new();
        it.ends(|ends| ends.room = 0);
        it.outbox.push(big());
        it.outbox.close(Close::GoingAway);
        assert!(!it.turn());
        assert!(!it.advance(4_999).await);
        assert!(it.advance(1).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_pushed_before_a_close_is_written_before_it() {
        let mut it = Harness::new();
        it.outbox.push(Message::text("last words"));
        it.outbox.close(Close::GoingAway);
        it.outbox.push(Message::text("too late"));
        assert!(!it.turn());
        assert_eq!(it.received(), [text("last words"), close(Close::GoingAway)].concat());
    }

    #[tokio::test(start_paused = true)]
    async fn an_overflow_is_noticed_while_nothing_can_be_written() {
        let mut it = Harness::new();
        it.ends(|ends| ends.room = 1000);
        it.outbox.push(big());
        assert!(!it.turn());
        for _ in 0..4 {
            assert!(it.session.upgrade().is_some());
            it.outbox.push(big());
            assert!(it.woken(), "although it waits for the client");
            assert!(!it.turn());
        }
        assert!(it.session.upgrade().is_none());
        it.ends(|ends| ends.room = usize::MAX);
        assert!(!it.turn());
        // Only the frame that had begun is finished.
        let received = it.received();
        assert_eq!(received.len(), 40_004 + 4);
        assert!(received.ends_with(&close(Close::Overflow)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clients_close_is_answered_and_its_code_not_echoed() {
        for (payload, answer) in [
            (&b""[..], Close::Normal),
            (b"\x03\xe9going away", Close::Normal),
            (b"\x0f\xa0", Close::Normal),
            (b"\x03\xf4", Close::Protocol),
            (b"\x03", Close::Protocol),
        ] {
            let mut it = Harness::new();
            it.send(0x88, payload);
            it.send(0x81, b"after the end");
            assert!(!it.turn());
            assert_eq!(it.received(), close(answer), "{payload:x?}");
            assert!(it.session.upgrade().is_none());
            it.ends(|ends| ends.eof = true);
            assert!(it.turn());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_closes_and_hangs_up_at_once_is_still_answered() {
        let mut it = Harness::new();
        it.send(0x88, b"");
        it.ends(|ends| ends.eof = true);
        assert!(it.turn());
        assert_eq!(it.received(), close(Close::Normal));
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_before_an_error_is_answered_before_the_close() {
        for (first, payload, reason) in [
            (0x81, &b"malformed"[..], Close::Malformed),
            (0x81, b"\xff", Close::InvalidUtf8),
            (0x80, b"", Close::Protocol),
            (0x82, &[0; 200_001], Close::TooBig),
        ] {
            let mut it = Harness::new();
            it.send(0x81, b"fine");
            it.send(first, payload);
            it.send(0x81, b"never read");
            while it.ends(|ends| !ends.to_read.is_empty()) {
                assert!(!it.turn());
            }
            assert_eq!(it.received(), [text("fine"), close(reason)].concat());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_vanishes_ends_it_at_once() {
        let mut it = Harness::new();
        assert!(!it.turn());
        it.ends(|ends| ends.eof = true);
        assert!(it.turn());
        let mut it = Harness::new();
        it.ends(|ends| ends.broken = true);
        assert!(it.turn());
        let mut it = Harness::new();
        it.ends(|ends| ends.refuses_writes = true);
        it.outbox.push(big());
        assert!(it.turn());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_floods_and_never_reads_is_not_heard_until_it_does() {
        let mut it = Harness::new();
        it.ends(|ends| ends.room = 0);
        for _ in 0..100 {
            it.send(0x82, &[0; 10_000]);
        }
        assert!(!it.turn());
        let unread = it.ends(|ends| ends.to_read.len());
        assert!(unread > 700_000, "{unread}");
        assert!(!it.turn());
        assert_eq!(it.ends(|ends| ends.to_read.len()), unread);
        it.ends(|ends| ends.room = usize::MAX);
        while it.ends(|ends| !ends.to_read.is_empty()) {
            assert!(!it.turn());
        }
        assert_eq!(it.received().len(), 100 * 10_004);
    }

    #[tokio::test(start_paused = true)]
    async fn what_stopped_the_reading_is_written_and_the_reading_goes_on() {
        let mut it = Harness::new();
        for _ in 0..scratch::READ_SIZE / 10 + 1 {
            it.send(0x89, b"ping");
        }
        assert!(!it.turn());
        assert_eq!(it.ends(|ends| ends.to_read.len()), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_floods_and_never_reads_is_silent_in_the_end() {
        let mut it = Harness::new();
        it.ends(|ends| ends.room = 0);
        for _ in 0..100_000 {
            it.send(0x89, b"ping");
        }
        assert!(!it.turn());
        let control = it.wire(|wire| wire.writer.control.len());
        assert!(control < scratch::READ_SIZE);
        assert!(!it.advance(59_999).await);
        assert!(it.session.upgrade().is_some());
        assert!(!it.advance(1).await);
        assert!(it.session.upgrade().is_none());
        assert!(it.advance(5_000).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_floods_leaves_others_their_turn() {
        let mut it = Harness::new();
        for _ in 0..1000 {
            it.send(0x8a, &[0; 125]);
            it.send(0x82, &[0; 10]);
        }
        for _ in 0..100 {
            it.send(0x82, &[0; 10_000]);
        }
        let before = it.ends(|ends| ends.to_read.len());
        assert!(!it.turn());
        let read = before - it.ends(|ends| ends.to_read.len());
        assert!(read <= READ_BUDGET + scratch::READ_SIZE, "{read}");
        assert!(it.woken(), "its turn comes again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_small_and_holds_no_buffer() {
        let mut it = Harness::new();
        it.send(0x81, b"hello");
        it.send(0x01, &[b'x'; 60_000]);
        it.send(0x80, b"");
        it.send(0x89, b"");
        assert!(!it.turn());
        let kept = it.wire(|wire| (wire.writer.batch.capacity(), wire.writer.control.capacity()));
        assert!(kept.0 <= 4 && kept.1 == 0, "{kept:?}");
        let size = size_of::<Connection<hyper::upgrade::Upgraded, [usize; 2]>>()
            + size_of::<Shared<hyper::upgrade::Upgraded, [usize; 2]>>();
        assert!(size <= 640, "{size}");
    }
}
