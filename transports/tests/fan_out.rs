//! One message pushed to many WebSockets at once: each connection is written by its own task, so a
//! busy runtime, a blocked transport or a panic affects one connection only.

#[path = "../../tests/support/dice.rs"]
mod dice;

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{AbortHandle, JoinHandle};
use tower_channels_transports::internals::Connection;
use tower_channels_transports::{
    Close, Inbound, Limits, Message, Session, WebSocketConfig, outbox,
};

use self::dice::Dice;

/// Ignores every message, except that it panics at a text message.
struct PanicsAtText;

impl Session for PanicsAtText {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        match message {
            Inbound::Text(_) => panic!("this session panics at text messages"),
            _ => Ok(()),
        }
    }
}

/// How a transport misbehaves when it is written to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Panics,
    /// Blocks its thread until the test releases it.
    Blocks,
}

/// A transport that works until it is armed.
struct FaultyIo {
    io: TokioIo<DuplexStream>,
    fault: Fault,
    armed: Arc<AtomicBool>,
    release: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Read for FaultyIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for FaultyIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.armed.load(Ordering::SeqCst) {
            match self.fault {
                Fault::None => {}
                Fault::Panics => panic!("this transport panics when it is written to"),
                Fault::Blocks => {
                    let _ = self.release.lock().expect("not poisoned").recv();
                }
            }
        }
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Both ends of one WebSocket.
struct Peer {
    client: DuplexStream,
    outbox: outbox::Sender,
    connection: JoinHandle<()>,
}

struct Faults {
    armed: Arc<AtomicBool>,
    release: Arc<Mutex<mpsc::Receiver<()>>>,
    /// Dropping it releases the transports that block.
    blocked: mpsc::Sender<()>,
}

impl Faults {
    fn new() -> Self {
        let (blocked, release) = mpsc::channel();
        Self { armed: Arc::default(), release: Arc::new(Mutex::new(release)), blocked }
    }

    /// Opens a WebSocket whose task runs on `runtime`.
    fn open(&self, runtime: &Runtime, fault: Fault) -> Peer {
        let (client, server) = tokio::io::duplex(1000);
        let limits = Limits::default();
        let (outbox, receiver) = outbox::channel(limits.outbox_limit());
        let (armed, release) = (Arc::clone(&self.armed), Arc::clone(&self.release));
        let io = FaultyIo { io: TokioIo::new(server), fault, armed, release };
        let config = WebSocketConfig::new();
        let _guard = runtime.enter();
        let connection = Connection::new(io, PanicsAtText, receiver, &config, &limits);
        Peer { client, outbox, connection: runtime.spawn(connection) }
    }
}

impl Peer {
    /// Whether the client receives this message soon.
    async fn receives(&mut self, payload: &[u8]) -> bool {
        let next = tokio::time::timeout(Duration::from_secs(30), read_frame(&mut self.client));
        matches!(next.await, Ok(Ok(received)) if received == payload)
    }
}

/// The payload of the next frame, which must be a binary message.
async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    assert_eq!(reader.read_u8().await?, 0x82, "a binary message");
    let size = match reader.read_u8().await? {
        126 => usize::from(reader.read_u16().await?),
        size => usize::from(size),
    };
    let mut payload = vec![0; size];
    reader.read_exact(&mut payload).await?;
    Ok(payload)
}

fn runtime(worker_threads: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(worker_threads).enable_all().build().expect("a runtime")
}

/// Opens one WebSocket per fault, pushes one message to all of them in a row and asserts that it
/// reaches every client whose transport works.
async fn push_to_all(faults: &Faults, runtime: &Runtime, kinds: &[Fault]) -> Vec<Peer> {
    let mut peers: Vec<_> = kinds.iter().map(|fault| faults.open(runtime, *fault)).collect();
    for peer in &mut peers {
        peer.outbox.push(Message::binary("connected"));
        assert!(peer.receives(b"connected").await);
    }
    faults.armed.store(true, Ordering::SeqCst);
    peers.iter().for_each(|peer| peer.outbox.push(Message::binary("news")));
    for (number, peer) in peers.iter_mut().enumerate() {
        assert!(kinds[number] != Fault::None || peer.receives(b"news").await, "peer {number}");
    }
    peers
}

#[test]
fn a_blocked_runtime_does_not_delay_the_connections_of_another() {
    let (busy, calm) = (runtime(1), runtime(1));
    let faults = Faults::new();
    let mut peers = vec![faults.open(&busy, Fault::None)];
    peers.extend((0..8).map(|_| faults.open(&calm, Fault::None)));
    calm.block_on(async {
        for peer in &mut peers {
            peer.outbox.push(Message::binary("connected"));
            assert!(peer.receives(b"connected").await);
        }
    });
    let (begun, has_begun) = mpsc::channel();
    let (end, ends) = mpsc::channel::<()>();
    busy.spawn(async move {
        begun.send(()).expect("the test waits");
        let _ = ends.recv();
    });
    has_begun.recv().expect("the busy task begins");
    peers.iter().for_each(|peer| peer.outbox.push(Message::binary("news")));
    calm.block_on(async {
        for (number, peer) in peers.iter_mut().enumerate().skip(1) {
            assert!(peer.receives(b"news").await, "connection {number} is delayed");
        }
        drop(end);
        assert!(peers[0].receives(b"news").await, "its runtime is free again");
    });
}

#[test]
fn a_transport_that_blocks_its_thread_delays_no_other_connection() {
    let (server, test) = (runtime(2), runtime(1));
    let faults = Faults::new();
    let mut kinds = [Fault::None; 8];
    kinds[2] = Fault::Blocks;
    let mut peers = test.block_on(push_to_all(&faults, &server, &kinds));
    drop(faults.blocked);
    assert!(test.block_on(peers[2].receives(b"news")), "the transport is released");
}

#[test]
fn a_transport_that_panics_ends_its_own_connection_only() {
    let server = runtime(2);
    let faults = Faults::new();
    let mut kinds = [Fault::None; 8];
    kinds[2] = Fault::Panics;
    let mut peers = server.block_on(push_to_all(&faults, &server, &kinds));
    let panicking = peers.remove(2);
    let end = server.block_on(panicking.connection).expect_err("the task panics");
    assert!(end.is_panic() && panicking.outbox.is_over());
    assert!(peers.iter().all(|peer| !peer.connection.is_finished()));
}

#[test]
fn a_session_that_panics_ends_its_own_connection_only() {
    let server = runtime(2);
    let faults = Faults::new();
    server.block_on(async {
        let mut peers = push_to_all(&faults, &server, &[Fault::None; 8]).await;
        let mut panicking = peers.remove(2);
        panicking.client.write_all(&[0x81, 0x80, 0, 0, 0, 0]).await.expect("it is open");
        let end = panicking.connection.await.expect_err("the task panics");
        assert!(end.is_panic() && panicking.outbox.is_over());
        peers.iter().for_each(|peer| peer.outbox.push(Message::binary("more")));
        for peer in &mut peers {
            assert!(peer.receives(b"more").await);
        }
    });
}

const CLIENTS: usize = 200;
const SENDERS: usize = 4;
const ROUNDS: u64 = 40;

/// The outboxes of all connections. A sender holds the lock while it pushes one message to all of
/// them, as a topic does.
type Subscribers = Arc<Mutex<Vec<(outbox::Sender, AbortHandle)>>>;

struct Client {
    /// The last number received from each sender.
    seen: Arc<[AtomicU64; SENDERS]>,
    /// Whether the test has cut the connection, on either side.
    cut: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// Reads messages, asserts that each is the next one of its sender, and answers it.
async fn read_messages(stream: TcpStream, seen: Arc<[AtomicU64; SENDERS]>, cut: Arc<AtomicBool>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let payload = match read_frame(&mut reader).await {
            Ok(payload) => payload,
            Err(_) if cut.load(Ordering::SeqCst) => return,
            Err(error) => panic!("the connection was not cut, but: {error}"),
        };
        let (number, rest) = payload.split_first_chunk().expect("a number");
        let (number, seen) = (u64::from_be_bytes(*number), &seen[usize::from(rest[0])]);
        let before = seen.swap(number, Ordering::SeqCst);
        assert!(before == 0 || number == before + 1, "{number} after {before}");
        // An empty message, so that the connection is also woken to read.
        if writer.write_all(&[0x82, 0x80, 0, 0, 0, 0]).await.is_err() {
            assert!(cut.load(Ordering::SeqCst), "the connection was not cut, but does not read");
        }
    }
}

async fn connect(listener: &TcpListener, subscribers: &Subscribers) -> Client {
    let address = listener.local_addr().expect("an address");
    let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (stream, (server, _)) = (stream.expect("connects"), accepted.expect("accepts"));
    let limits = Limits::default();
    let (outbox, receiver) = outbox::channel(64 << 20);
    let config = WebSocketConfig::new();
    let io = TokioIo::new(server);
    let connection = tokio::spawn(Connection::new(io, PanicsAtText, receiver, &config, &limits));
    subscribers.lock().expect("not poisoned").push((outbox, connection.abort_handle()));
    let (seen, cut) = (Arc::default(), Arc::default());
    let task = tokio::spawn(read_messages(stream, Arc::clone(&seen), Arc::clone(&cut)));
    Client { seen, cut, task }
}

fn broadcast(subscribers: &Subscribers, sender: usize, number: u64) {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(9 + (number as usize * 7) % 300, sender as u8);
    let message = Message::binary(bytes);
    for (outbox, _) in &*subscribers.lock().expect("not poisoned") {
        outbox.push(message.clone());
    }
}

/// Broadcasts `count` numbers from `first` on: sender 0 from a thread outside the runtime's workers,
/// the others from tasks.
fn send(subscribers: &Subscribers, sender: usize, first: u64, count: u64) -> JoinHandle<()> {
    let subscribers = Arc::clone(subscribers);
    if sender == 0 {
        let all = move || (first..first + count).for_each(|n| broadcast(&subscribers, sender, n));
        return tokio::task::spawn_blocking(all);
    }
    tokio::spawn(async move {
        for number in first..first + count {
            broadcast(&subscribers, sender, number);
            if number % 3 == sender as u64 % 3 {
                tokio::task::yield_now().await;
            }
        }
    })
}

/// Connections are cut and replaced while four senders broadcast; every connection that is not cut
/// receives everything, in order and without delay.
async fn everyone_receives_everything() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let subscribers = Subscribers::default();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(connect(&listener, &subscribers).await);
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut next = [1; SENDERS];
    for round in 0..ROUNDS {
        let mut senders = Vec::new();
        for (sender, next) in next.iter_mut().enumerate() {
            let count = 1 + dice.roll(12);
            senders.push(send(&subscribers, sender, *next, count));
            *next += count;
        }
        // Cuts some connections while the broadcasts are under way.
        for _ in 0..dice.roll(12) {
            let gone = dice.roll(CLIENTS as u64) as usize;
            let Client { cut, task, .. } = &clients[gone];
            cut.store(true, Ordering::SeqCst);
            if dice.roll(2) == 0 {
                task.abort();
            } else {
                subscribers.lock().expect("not poisoned")[gone].1.abort();
            }
            if dice.roll(2) == 0 {
                tokio::task::yield_now().await;
            }
        }
        for sender in senders {
            sender.await.expect("no panic");
        }
        let all_seen = |client: &Client| {
            let seen = |(seen, next): (&AtomicU64, &u64)| seen.load(Ordering::SeqCst) + 1 == *next;
            client.cut.load(Ordering::SeqCst) || client.seen.iter().zip(&next).all(seen)
        };
        // No further push would make up for a lost wake-up.
        let arrived = async {
            while !clients.iter().all(all_seen) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let arrived = tokio::time::timeout(Duration::from_secs(30), arrived).await;
        let missing = clients.iter().filter(|client| !all_seen(client)).count();
        assert!(arrived.is_ok(), "{missing} clients miss messages in round {round}");
        let mut connected = clients.iter().map(|client| !client.cut.load(Ordering::SeqCst));
        let keeps = |_: &_| connected.next().expect("one outbox per client");
        subscribers.lock().expect("not poisoned").retain(keeps);
        for Client { task, .. } in
            clients.extract_if(.., |client| client.cut.load(Ordering::SeqCst))
        {
            if let Err(error) = task.await {
                assert!(error.is_cancelled(), "{error}");
            }
        }
        while clients.len() < CLIENTS {
            clients.push(connect(&listener, &subscribers).await);
        }
    }
    for Client { task, cut, .. } in &clients {
        cut.store(true, Ordering::SeqCst);
        assert!(!task.is_finished(), "a connection ended that was not cut");
    }
    let all = std::mem::take(&mut *subscribers.lock().expect("not poisoned"));
    all.iter().for_each(|(outbox, _)| outbox.close(Close::GoingAway));
    for (outbox, _) in &all {
        let over = async {
            while !outbox.is_over() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), over).await.expect("it is closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everyone_receives_everything_on_four_threads() {
    everyone_receives_everything().await;
}

#[tokio::test]
async fn everyone_receives_everything_on_one_thread() {
    everyone_receives_everything().await;
}
