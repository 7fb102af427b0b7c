//! A connection over a simulated network.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

use hyper::rt::ReadBufCursor;

use super::*;
use crate::frame::{Inbound, Message};
use crate::memory::Memory;
use crate::websocket::writer::Writer;
use crate::websocket::{buffers, turn};

/// A byte stream whose other end is the test.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<Ends>>);

#[derive(Default)]
struct Ends {
    to_read: VecDeque<u8>,
    eof: bool,
    broken: bool,
    /// How many bytes may be written before the stream blocks.
    room: usize,
    is_vectored: bool,
    /// One entry per write, held back until the next flush, as in a TLS stream.
    unflushed: Vec<Vec<u8>>,
    written: Vec<Vec<u8>>,
    refuses_writes: bool,
    is_shut_down: bool,
    /// A message that is pushed into the outbox during each of the next so many writes.
    push_on_write: Option<(outbox::Sender, Message, usize)>,
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
        assert!(!ends.is_shut_down, "a write after the shutdown");
        if ends.refuses_writes {
            return Poll::Ready(Ok(0));
        }
        if ends.room == 0 {
            return Poll::Pending;
        }
        if let Some((outbox, message, writes @ 1..)) = &mut ends.push_on_write {
            outbox.push(message.clone());
            *writes -= 1;
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

/// Echoes every message but the text `malformed`, which it refuses.
struct Echo {
    outbox: outbox::Sender,
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
    outbox: outbox::Sender,
    session: Weak<()>,
    connection: Pin<Box<Connection<Pipe, Echo>>>,
    wakes: Arc<Wakes>,
}

const LIMITS: Limits = Limits {
    message: 200_000,
    outbox: 100_000,
    connecting: 1,
    connect_timeout: Duration::ZERO,
    memory: 1 << 30,
    rate: None,
};

impl Harness {
    fn new() -> Self {
        Self::with(outbox::channel(LIMITS.outbox))
    }

    /// A connection of a resumable session.
    fn resumable() -> Self {
        let outbox = outbox::channel(LIMITS.outbox).1.into_resumable(0);
        let receiver = outbox.attach(None).expect("no gap");
        Self::with((outbox, receiver))
    }

    fn with((outbox, receiver): (outbox::Sender, outbox::Receiver)) -> Self {
        let pipe = Pipe::default();
        let alive = Arc::new(());
        let session = Arc::downgrade(&alive);
        let echo = Echo { outbox: outbox.clone(), _alive: alive };
        let config = WebSocketConfig::new();
        let connection = Box::pin(Connection::new(pipe.clone(), echo, receiver, &config, &LIMITS));
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

    fn writer(&self) -> &Writer {
        &self.connection.framed.writer
    }

    /// Sends a frame from the client.
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

    /// Polls the connection once. True once it has ended.
    fn turn(&mut self) -> bool {
        let waker = Arc::clone(&self.wakes).into();
        self.connection.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
    }

    /// Whether the task was woken since the last call.
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
async fn everything_that_waits_is_written_at_once() {
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
async fn a_busy_resumable_session_does_not_ping_for_each_message() {
    let mut it = Harness::resumable();
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
    assert!(it.woken(), "by the timer");
    assert!(!it.turn());
    assert_eq!(it.received(), ping(10));
    it.send(0x8a, &10_u64.to_be_bytes());
    assert!(!it.turn());
    assert!(!it.advance(1000).await);
    assert_eq!(it.received(), b"");
}

#[tokio::test(start_paused = true)]
async fn a_long_replay_pings_while_it_is_written() {
    let mut it = Harness::resumable();
    let room = it.outbox.stream();
    (0..3).for_each(|_| room.push(big()));
    room.resume(it.connection.receiver.epoch(), Message::text("joined"));
    assert!(!it.turn());
    let received = it.received();
    let pings = received.windows(10).filter(|bytes| bytes[..9] == ping(0)[..9]);
    assert_eq!(pings.map(|bytes| bytes[9]).collect::<Vec<_>>(), [2], "the rest waits for the Pong");
}

#[tokio::test(start_paused = true)]
async fn a_blocked_resumable_session_sends_no_ping_until_it_can_be_written() {
    let mut it = Harness::resumable();
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

#[tokio::test(start_paused = true)]
async fn a_push_wakes_the_task_of_its_connection_which_alone_writes() {
    let (mut first, mut second) = (Harness::new(), Harness::new());
    for it in [&mut first, &mut second] {
        assert!(!it.turn());
        it.outbox.push(Message::text("a"));
        assert!(it.woken());
    }
    assert!(!first.turn());
    assert_eq!([first.received(), second.received()], [text("a"), vec![]]);
    assert!(!second.turn());
    assert_eq!(second.received(), text("a"));
}

#[tokio::test(start_paused = true)]
async fn a_message_is_handled_and_its_reply_written_in_the_same_turn() {
    let mut it = Harness::new();
    it.send(0x81, b"hello");
    assert!(!it.turn());
    assert_eq!(it.received(), text("hello"));
}

#[tokio::test(start_paused = true)]
async fn messages_arrive_whole_however_little_each_write_accepts() {
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
async fn a_pong_is_written_between_frames_and_never_inside_one() {
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
async fn a_transport_without_vectored_writes_gets_the_same_bytes() {
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
    // Half a frame head counts as activity; what the server sends does not.
    it.ends(|ends| ends.to_read.push_back(0x81));
    assert!(!it.turn());
    it.outbox.push(Message::text("news"));
    assert!(!it.advance(59_999).await);
    assert_eq!(it.received(), text("news"));
    assert!(!it.advance(1).await);
    assert_eq!(it.received(), close(Close::Protocol));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_disconnect_is_cut_after_the_close_timeout() {
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
async fn a_close_is_complete_when_the_client_disconnects() {
    let mut it = Harness::new();
    it.outbox.close(Close::Restart);
    assert!(!it.turn());
    it.ends(|ends| ends.eof = true);
    assert!(it.turn());
}

#[tokio::test(start_paused = true)]
async fn a_close_that_cannot_be_written_is_cut_after_the_close_timeout() {
    let mut it = Harness::new();
    it.ends(|ends| ends.room = 0);
    it.outbox.push(big());
    it.outbox.close(Close::GoingAway);
    assert!(!it.turn());
    assert!(!it.advance(4_999).await);
    assert!(it.advance(1).await);
}

#[tokio::test(start_paused = true)]
async fn messages_pushed_before_a_close_are_written_before_it() {
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
        assert!(it.woken(), "although it waits for the client to read");
        assert!(!it.turn());
    }
    assert!(it.session.upgrade().is_none());
    it.ends(|ends| ends.room = usize::MAX);
    assert!(!it.turn());
    // Only the frame that was started is completed.
    let received = it.received();
    assert_eq!(received.len(), 40_004 + 4);
    assert!(received.ends_with(&close(Close::Overflow)));
}

#[tokio::test(start_paused = true)]
async fn a_partial_batch_makes_room_in_the_outbox_as_it_is_written() {
    let mut it = Harness::new();
    let message = Message::binary(vec![7; 16 * 1024]);
    for _ in 0..6 {
        it.outbox.push(message.clone());
    }
    let pushed = (it.outbox.clone(), message.clone(), 20);
    it.ends(|ends| (ends.is_vectored, ends.push_on_write) = (false, Some(pushed)));
    assert!(!it.turn());
    assert!(!it.outbox.is_closed(), "no more than six messages waited at any time");
    assert_eq!(it.received().len(), 26 * (message.size() + 4));
}

#[tokio::test(start_paused = true)]
async fn the_close_of_a_client_is_answered_without_echoing_its_code() {
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
async fn a_client_that_closes_and_disconnects_at_once_is_still_answered() {
    let mut it = Harness::new();
    it.send(0x88, b"");
    it.ends(|ends| ends.eof = true);
    assert!(it.turn());
    assert_eq!(it.received(), close(Close::Normal));
}

#[tokio::test(start_paused = true)]
async fn messages_before_an_error_are_answered_before_the_close() {
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
async fn a_lost_client_ends_the_connection_at_once() {
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
async fn a_client_that_floods_without_reading_is_not_read_until_it_does() {
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
async fn reading_continues_once_the_pongs_that_paused_it_are_written() {
    let mut it = Harness::new();
    for _ in 0..buffers::READ_SIZE / 10 + 1 {
        it.send(0x89, b"ping");
    }
    assert!(!it.turn());
    while it.woken() {
        assert!(!it.turn());
    }
    assert_eq!(it.ends(|ends| ends.to_read.len()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_floods_and_never_reads_times_out_as_idle() {
    let mut it = Harness::new();
    it.ends(|ends| ends.room = 0);
    for _ in 0..100_000 {
        it.send(0x89, b"ping");
    }
    assert!(!it.turn());
    let control = it.writer().control.len();
    assert!(control < buffers::READ_SIZE);
    assert!(!it.advance(59_999).await);
    assert!(it.session.upgrade().is_some());
    assert!(!it.advance(1).await);
    assert!(it.session.upgrade().is_none());
    assert!(it.advance(5_000).await);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_drips_ends_the_connection_after_two_idle_timeouts() {
    let mut it = Harness::new();
    it.ends(|ends| ends.to_read.extend([0x82, 0xfe, 0xea, 0x60, 1, 2, 3, 4]));
    assert!(!it.turn());
    for _ in 0..39 {
        it.ends(|ends| ends.to_read.push_back(0));
        assert!(!it.advance(3_000).await);
    }
    assert_eq!(it.received(), b"", "117 seconds have passed");
    it.ends(|ends| ends.to_read.push_back(0));
    assert!(!it.advance(3_100).await);
    assert_eq!(it.received(), close(Close::Protocol));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_keeps_arriving_may_take_longer_than_the_idle_timeout() {
    let mut it = Harness::new();
    it.ends(|ends| ends.to_read.extend([0x82, 0xff, 0, 0, 0, 0, 0, 2, 0xbf, 0x20, 1, 2, 3, 4]));
    assert!(!it.turn());
    for second in 0..90 {
        it.ends(|ends| ends.to_read.extend([0; 2_000]));
        assert!(!it.advance(1_000).await);
        assert!(it.session.upgrade().is_some(), "second {second}");
    }
    assert!(it.received().ends_with(&[1, 2, 3, 4]));
    // What follows has a deadline of its own.
    it.send(0x01, b"unfinished");
    assert!(!it.turn());
    assert!(!it.advance(59_999).await);
    assert!(it.session.upgrade().is_some());
    assert!(!it.advance(1).await);
    assert!(it.session.upgrade().is_none());
}

/// A plain connection of which nothing more is read, because more than half of its outbox waits.
fn backed_up() -> Harness {
    let mut it = Harness::new();
    it.ends(|ends| ends.room = 0);
    it.outbox.push(Message::binary(vec![7; 90_000]));
    it.outbox.push(Message::binary(vec![7; 90_000]));
    assert!(!it.turn());
    it.send(0x81, b"heartbeat");
    it
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_is_not_idle_while_it_is_not_read_from() {
    let mut it = backed_up();
    for second in 0..120 {
        it.ends(|ends| ends.room = 1_100);
        assert!(!it.advance(1_000).await);
        assert!(it.session.upgrade().is_some(), "second {second}");
    }
    it.ends(|ends| ends.room = usize::MAX);
    assert!(!it.turn());
    assert!(it.received().ends_with(&text("heartbeat")));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_drains_its_backlog_byte_by_byte_is_idle() {
    let mut it = backed_up();
    for _ in 0..61 {
        it.ends(|ends| ends.room = 1);
        assert!(!it.advance(1_000).await);
    }
    assert!(it.session.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn messages_before_a_close_are_written_as_long_as_the_client_reads_them() {
    let mut it = Harness::new();
    it.ends(|ends| ends.room = 0);
    it.outbox.push(big());
    it.outbox.close(Close::GoingAway);
    assert!(!it.turn());
    for _ in 0..19 {
        it.ends(|ends| ends.room = 2_000);
        assert!(!it.advance(1_000).await);
    }
    it.ends(|ends| ends.room = usize::MAX);
    assert!(!it.turn());
    assert!(it.received().ends_with(&close(Close::GoingAway)));
    assert!(!it.advance(4_999).await);
    assert!(it.advance(1).await, "the client does not disconnect");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_floods_yields_to_other_tasks() {
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
    assert!(read <= turn::MAX_BYTES + buffers::READ_SIZE, "{read}");
    assert!(it.woken(), "it goes on in its next turn");
}

#[tokio::test(start_paused = true)]
async fn a_turn_handles_a_bounded_number_of_messages_and_the_next_one_goes_on() {
    let mut it = Harness::new();
    (0..100).for_each(|number| it.send(0x81, format!("{number}").as_bytes()));
    let mut received = Vec::new();
    let mut turns = 0;
    while received.len() < 100 {
        assert!(!it.turn());
        turns += 1;
        let messages = it.received();
        let mut rest = &messages[..];
        let before = received.len();
        while let [0x81, size, more @ ..] = rest {
            let (message, more) = more.split_at(usize::from(*size));
            received.push(String::from_utf8(message.to_vec()).unwrap());
            rest = more;
        }
        assert!(received.len() - before <= turn::MAX_MESSAGES);
        assert!(it.woken() || received.len() == 100);
    }
    assert_eq!(received, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(turns, 100_usize.div_ceil(turn::MAX_MESSAGES));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_floods_small_messages_leaves_little_undecoded() {
    let mut it = Harness::new();
    (0..20_000).for_each(|_| it.send(0x81, b"hello"));
    let mut read = Vec::new();
    while it.ends(|ends| !ends.to_read.is_empty()) {
        let before = it.ends(|ends| ends.to_read.len());
        assert!(!it.turn());
        it.received();
        read.push(before - it.ends(|ends| ends.to_read.len()));
    }
    assert!(read[1..].iter().all(|size| *size <= 4 * 1024), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_read_but_not_handled_is_discarded_at_a_close() {
    let mut it = Harness::new();
    it.send(0x81, b"malformed");
    (0..100).for_each(|_| it.send(0x81, b"hello"));
    it.ends(|ends| ends.eof = true);
    assert!(it.turn());
    assert_eq!(it.received(), close(Close::Malformed));
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_small_and_owns_no_buffer() {
    let mut it = Harness::new();
    it.send(0x81, b"hello");
    it.send(0x01, &[b'x'; 60_000]);
    it.send(0x80, b"");
    it.send(0x89, b"");
    assert!(!it.turn());
    let (messages, control) = (it.writer().messages.capacity(), it.writer().control.capacity());
    assert!(messages <= 4 && control == 0, "{messages}, {control}");
    let size = size_of::<Connection<hyper::upgrade::Upgraded, [usize; 2]>>()
        + size_of::<tokio::time::Sleep>();
    assert!(size <= 448, "{size}");
}

/// A connection of a resumable session with 500 messages in an open stream, which are more than may
/// be in flight, and one in a paused stream. Returns the bytes of the 500.
fn with_a_backlog() -> (Harness, Vec<u8>) {
    let mut it = Harness::resumable();
    let room = it.outbox.stream();
    room.resume(it.connection.receiver.epoch(), Message::text("joined"));
    assert!(!it.turn());
    assert_eq!(without_pings(it.received()), text("joined"));
    let news = "x".repeat(100);
    (0..400).for_each(|_| room.push(Message::text(news.clone())));
    it.outbox.stream().push(Message::text("in a paused stream"));
    (it, text(&news).repeat(400))
}

fn without_pings(mut received: Vec<u8>) -> Vec<u8> {
    while let Some(at) = received.windows(2).position(|bytes| bytes == [0x89, 8]) {
        received.drain(at..at + 10);
    }
    received
}

#[tokio::test(start_paused = true)]
async fn closing_a_resumable_session_writes_everything_that_was_pushed_before() {
    for is_blocked in [false, true] {
        let (mut it, messages) = with_a_backlog();
        if is_blocked {
            it.ends(|ends| ends.room = 1000);
            assert!(!it.turn());
        }
        it.outbox.close(Close::GoingAway);
        it.ends(|ends| ends.room = usize::MAX);
        assert!(!it.turn());
        let received = without_pings(it.received());
        let expected = [messages, close(Close::GoingAway)].concat();
        assert_eq!(received.len(), expected.len(), "blocked: {is_blocked}");
        assert!(received == expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_resumable_session_is_over_once_its_connection_has_ended() {
    let (mut it, messages) = with_a_backlog();
    it.ends(|ends| ends.room = 1000);
    it.outbox.close(Close::Restart);
    assert!(!it.turn());
    assert!(it.session.upgrade().is_none() && !it.outbox.is_over(), "its messages are not written");
    it.ends(|ends| (ends.room, ends.eof) = (usize::MAX, true));
    assert!(it.turn());
    let expected = [messages, close(Close::Restart)].concat();
    assert!(without_pings(it.received()) == expected);
    drop(it.connection);
    assert!(it.outbox.is_over());
}

#[tokio::test(start_paused = true)]
async fn a_closed_resumable_session_that_cannot_be_written_is_cut_after_the_close_timeout() {
    let (mut it, _) = with_a_backlog();
    it.ends(|ends| ends.room = 1000);
    it.outbox.close(Close::GoingAway);
    assert!(!it.turn());
    assert!(!it.advance(4_999).await);
    assert!(it.advance(1).await);
}

#[tokio::test(start_paused = true)]
async fn an_overflow_of_a_resumable_session_drops_what_was_not_written() {
    let (mut it, messages) = with_a_backlog();
    while !it.outbox.is_closed() {
        it.outbox.push(big());
    }
    assert!(!it.turn());
    let received = without_pings(it.received());
    assert!(received == close(Close::Overflow), "{} of {}", received.len(), messages.len());
}

#[tokio::test(start_paused = true)]
async fn a_resumable_session_keeps_its_backlog_when_only_its_connection_is_closed() {
    let (mut it, messages) = with_a_backlog();
    it.send(0x88, b"\x03\xe8");
    assert!(!it.turn());
    assert_eq!(without_pings(it.received()), close(Close::Normal));
    assert!(!it.outbox.is_closed());
    let mut next = it.outbox.attach(None).expect("no gap");
    let mut batch = VecDeque::new();
    let mut cx = Context::from_waker(Waker::noop());
    let superseded = it.connection.receiver.poll_take(&mut cx, &mut batch);
    assert_eq!(superseded, Poll::Ready(Err(Close::Restart)));
    assert!(next.poll_take(&mut cx, &mut batch).is_pending(), "streams are paused");
    assert!(next.backlog() >= messages.len());
}

fn within(memory: &Memory) -> Harness {
    Harness::with(outbox::channel_in(LIMITS.outbox, memory))
}

#[tokio::test(start_paused = true)]
async fn the_last_messages_are_counted_until_they_are_written() {
    let ends: [fn(&mut Harness); 2] =
        [|it| it.send(0x81, b"malformed"), |it| it.outbox.close(Close::GoingAway)];
    for end in ends {
        let memory = Memory::new(usize::MAX);
        let mut it = within(&memory);
        it.ends(|ends| ends.room = 1000);
        it.outbox.push(big());
        assert!(!it.turn());
        end(&mut it);
        assert!(!it.turn());
        assert!(it.session.upgrade().is_none());
        assert!(memory.reserved() >= 40_000, "{memory:?}");
        it.ends(|ends| ends.room = usize::MAX);
        assert!(!it.turn());
        it.outbox.push(big());
        drop(it);
        assert_eq!(memory.reserved(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_started_message_of_an_overflow_is_counted_until_it_is_written() {
    let memory = Memory::new(usize::MAX);
    for resumable in [false, true] {
        let (outbox, receiver) = outbox::channel_in(LIMITS.outbox, &memory);
        let (outbox, receiver) = if resumable {
            let outbox = receiver.into_resumable(0);
            let receiver = outbox.attach(None).expect("no gap");
            (outbox, receiver)
        } else {
            (outbox, receiver)
        };
        let mut it = Harness::with((outbox, receiver));
        it.ends(|ends| ends.room = 1000);
        (0..5).for_each(|_| {
            it.outbox.push(big());
            assert!(!it.turn());
        });
        assert!(it.session.upgrade().is_none());
        let reserved = memory.reserved();
        assert!((40_000..50_000).contains(&reserved), "{resumable}: {reserved}");
        it.ends(|ends| ends.room = usize::MAX);
        assert!(!it.turn());
        assert_eq!(memory.reserved(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_takes_at_most_four_close_timeouts_however_much_is_read() {
    let mut it = Harness::new();
    it.ends(|ends| ends.room = 0);
    (0..2).for_each(|_| it.outbox.push(big()));
    it.outbox.close(Close::GoingAway);
    for _ in 0..19 {
        it.ends(|ends| ends.room = 2048);
        assert!(!it.turn());
        assert!(!it.advance(1000).await);
    }
    it.ends(|ends| ends.room = 2048);
    assert!(it.advance(1000).await);
}
