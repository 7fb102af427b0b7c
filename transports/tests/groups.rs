//! Many WebSockets over real sockets, woken together by several threads: connections are cut and
//! replaced at any moment, and whoever is there receives everything, in order and without delay.

#[path = "../../tests/support/dice.rs"]
mod dice;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};
use tower_channels_transports::internals::Connection;
use tower_channels_transports::{
    Close, Inbound, Limits, Message, Session, WebSocketConfig, outbox,
};

use self::dice::Dice;

struct Mute;

impl Session for Mute {
    fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
        Ok(())
    }
}

const CLIENTS: usize = 200;
const SENDERS: usize = 4;
const ROUNDS: u64 = 40;

/// Everyone who is connected, as a topic has them: one message at a time goes to all of them.
type Everyone = Arc<Mutex<Vec<(outbox::Sender, AbortHandle)>>>;

struct Client {
    /// The newest number of each sender.
    seen: Arc<[AtomicU64; SENDERS]>,
    /// Whether it was cut from either side.
    cut: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

/// Reads frames, asks of each that it is the next one of its sender, and answers it.
async fn read(stream: TcpStream, seen: Arc<[AtomicU64; SENDERS]>, cut: Arc<AtomicBool>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut frame = async || {
        assert_eq!(reader.read_u8().await?, 0x82, "a binary message");
        let size = match reader.read_u8().await? {
            126 => usize::from(reader.read_u16().await?),
            size => usize::from(size),
        };
        let mut payload = vec![0; size];
        reader.read_exact(&mut payload).await?;
        Ok::<_, std::io::Error>(payload)
    };
    loop {
        let payload = match frame().await {
            Ok(payload) => payload,
            Err(_) if cut.load(Ordering::SeqCst) => return,
            Err(error) => panic!("not cut, and yet: {error}"),
        };
        let (number, rest) = payload.split_first_chunk().expect("a number");
        let (number, seen) = (u64::from_be_bytes(*number), &seen[usize::from(rest[0])]);
        let before = seen.swap(number, Ordering::SeqCst);
        assert!(before == 0 || number == before + 1, "{number} after {before}");
        // An empty message, so that the connection has turns of its own in between.
        if writer.write_all(&[0x82, 0x80, 0, 0, 0, 0]).await.is_err() {
            assert!(cut.load(Ordering::SeqCst), "not cut, and yet nobody reads");
        }
    }
}

async fn client(listener: &TcpListener, everyone: &Everyone) -> Client {
    let address = listener.local_addr().expect("an address");
    let (stream, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (stream, (server, _)) = (stream.expect("connects"), accepted.expect("accepts"));
    let limits = Limits::default();
    let (outbox, receiver) = outbox::channel(64 << 20);
    let config = WebSocketConfig::new();
    let connection =
        tokio::spawn(Connection::new(TokioIo::new(server), Mute, receiver, &config, &limits));
    everyone.lock().expect("not poisoned").push((outbox, connection.abort_handle()));
    let (seen, cut) = (Arc::default(), Arc::default());
    let task = tokio::spawn(read(stream, Arc::clone(&seen), Arc::clone(&cut)));
    Client { seen, cut, task }
}

fn broadcast(everyone: &Everyone, sender: usize, number: u64) {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(9 + (number as usize * 7) % 300, sender as u8);
    let message = Message::binary(bytes);
    for (outbox, _) in &*everyone.lock().expect("not poisoned") {
        outbox.push(message.clone());
    }
}

/// Numbers from `first` on, from a task or from a thread that is none of the runtime's.
fn send(everyone: &Everyone, sender: usize, first: u64, count: u64) -> JoinHandle<()> {
    let everyone = Arc::clone(everyone);
    if sender == 0 {
        let all = move || (first..first + count).for_each(|n| broadcast(&everyone, sender, n));
        return tokio::task::spawn_blocking(all);
    }
    tokio::spawn(async move {
        for number in first..first + count {
            broadcast(&everyone, sender, number);
            if number % 3 == sender as u64 % 3 {
                tokio::task::yield_now().await;
            }
        }
    })
}

async fn everyone_receives_everything() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let everyone = Everyone::default();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(client(&listener, &everyone).await);
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut next = [1; SENDERS];
    for round in 0..ROUNDS {
        let mut senders = Vec::new();
        for (sender, next) in next.iter_mut().enumerate() {
            let count = 1 + dice.roll(12);
            senders.push(send(&everyone, sender, *next, count));
            *next += count;
        }
        // Some are cut while all that is under way.
        for _ in 0..dice.roll(12) {
            let gone = dice.roll(CLIENTS as u64) as usize;
            let Client { cut, task, .. } = &clients[gone];
            cut.store(true, Ordering::SeqCst);
            if dice.roll(2) == 0 {
                task.abort();
            } else {
                everyone.lock().expect("not poisoned")[gone].1.abort();
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
        // Nothing else happens now that could wake whoever was forgotten.
        let arrived = async {
            while !clients.iter().all(all_seen) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let arrived = tokio::time::timeout(Duration::from_secs(5), arrived).await;
        let missing = clients.iter().filter(|client| !all_seen(client)).count();
        assert!(arrived.is_ok(), "{missing} are forgotten in round {round}");
        let resumable = |index: &usize| !clients[*index].cut.load(Ordering::SeqCst);
        let resumable: Vec<_> = (0..clients.len()).filter(resumable).collect();
        let outboxes = std::mem::take(&mut *everyone.lock().expect("not poisoned"));
        let outboxes: Vec<_> = resumable.iter().map(|index| outboxes[*index].clone()).collect();
        *everyone.lock().expect("not poisoned") = outboxes;
        for Client { task, cut, .. } in
            clients.extract_if(.., |client| client.cut.load(Ordering::SeqCst))
        {
            drop(cut);
            if let Err(error) = task.await {
                assert!(error.is_cancelled(), "{error}");
            }
        }
        while clients.len() < CLIENTS {
            // Its first message is whichever comes next.
            clients.push(client(&listener, &everyone).await);
        }
    }
    for Client { task, cut, .. } in &clients {
        cut.store(true, Ordering::SeqCst);
        assert!(!task.is_finished(), "nobody was cut by mistake");
    }
    let all = std::mem::take(&mut *everyone.lock().expect("not poisoned"));
    all.iter().for_each(|(outbox, _)| outbox.close(Close::GoingAway));
    for (outbox, _) in &all {
        let over = async {
            while !outbox.is_over() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), over).await.expect("it is closed");
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
