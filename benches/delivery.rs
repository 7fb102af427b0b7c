//! What the server's thread uses for an echo and for a delivery, beside the least that is possible: a
//! server that answers with constants, in one write each, and looks at nothing. Both serve in one
//! thread, over loopback, in turns.
//!
//! `cargo bench --bench delivery`; `CONNECTIONS` (default 200) needs four file descriptors each.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream as Served};
use tower_channels::{Endpoint, WebSocketConfig};

use self::support::room::Room;
use self::support::{Thread, connect, frame, join, median, push, setting};

/// What the other server knows: the messages, and what they are answered with.
struct Constants {
    ping: Vec<u8>,
    pong: Vec<u8>,
    publish: Vec<u8>,
    delivery: Vec<u8>,
}

static CONSTANTS: OnceLock<Constants> = OnceLock::new();

fn main() {
    let connections = setting("CONNECTIONS", 200);
    let (started, server) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(serve(started));
    });
    let (thread, ours, least) = server.recv().expect("a server");

    let payload = format!(r#"{{"body":"{}"}}"#, "x".repeat(64));
    let mut clients: Vec<_> = (0..connections).map(|_| join(ours, "room:a")).collect();
    let first = &mut clients[0];
    let ping = push("2", "room:a", "ping", &payload);
    first.write_all(&ping).expect("written");
    let pong = frame(&mut *first);
    let publish = push("2", "room:a", "new_msg", &payload);
    first.write_all(&publish).expect("written");
    let delivery = clients.iter_mut().fold(Vec::new(), |_, client| frame(client));
    let constants = Constants { ping, pong, publish, delivery };
    let constants = CONSTANTS.get_or_init(|| constants);
    let others: Vec<_> = (0..connections).map(|_| connect(least)).collect();

    println!("{connections} connections, the server's CPU in us, of that in user space; medians\n");
    println!("{:<34}{:>8}{:>8}{:>10}{:>8}{:>8}", "", "us", "user", "least us", "user", "ratio");
    let both = [&clients[..], &others[..]];
    let row = |what: &str, work: &dyn Fn(&[TcpStream]) -> usize| {
        let mut spent = [const { Vec::new() }; 2];
        let mut ticks = [[0, 0]; 2];
        for _ in 0..ROUNDS {
            for (index, clients) in both.iter().enumerate() {
                let (cpu, before) = (thread.cpu(), thread.ticks());
                let mut operations = 0;
                while thread.cpu() - cpu < ROUND {
                    operations += work(clients);
                }
                spent[index].push((thread.cpu() - cpu).as_secs_f64() * 1e6 / operations as f64);
                let after = thread.ticks();
                (0..2).for_each(|kind| ticks[index][kind] += after[kind] - before[kind]);
            }
        }
        let ratios = spent[0].iter().zip(&spent[1]).map(|(ours, least)| ours / least).collect();
        let [ours, least] = spent.map(median);
        let [our_user, least_user] =
            ticks.map(|[user, system]| user as f64 / (user + system).max(1) as f64);
        println!(
            "{what:<34}{ours:>8.2}{:>8.2}{least:>10.2}{:>8.2}{:>8.2}",
            ours * our_user,
            least * least_user,
            median(ratios)
        );
    };
    row("an echo, 64 at a time", &|clients| {
        exchange(&clients[..64.min(clients.len())], &constants.ping, &constants.pong)
    });
    row("a delivery, one message at a time", &|clients| publish_to(clients, 1, constants));
    row("a delivery, four messages at a time", &|clients| publish_to(clients, 4, constants));
}

const ROUNDS: usize = 15;
/// What a server uses in its turn.
const ROUND: Duration = Duration::from_millis(100);

/// Everyone asks, and everyone is answered.
fn exchange(clients: &[TcpStream], question: &[u8], answer: &[u8]) -> usize {
    clients.iter().for_each(|mut client| client.write_all(question).expect("written"));
    expect(clients, answer, 1)
}

/// One says it, and everyone hears it.
fn publish_to(clients: &[TcpStream], times: usize, constants: &Constants) -> usize {
    (&clients[0]).write_all(&constants.publish.repeat(times)).expect("written");
    expect(clients, &constants.delivery, times)
}

fn expect(clients: &[TcpStream], message: &[u8], times: usize) -> usize {
    let expected = message.repeat(times);
    let mut received = vec![0; expected.len()];
    for mut client in clients {
        client.read_exact(&mut received).expect("read");
        assert!(received == expected, "{}", String::from_utf8_lossy(&received));
    }
    clients.len() * times
}

/// Both servers, for ever.
async fn serve(started: mpsc::Sender<(Thread, SocketAddr, SocketAddr)>) {
    let listen = || TcpListener::bind("127.0.0.1:0");
    let (ours, least) = (listen().await.expect("a port"), listen().await.expect("a port"));
    let addresses = [&ours, &least].map(|listener| listener.local_addr().expect("an address"));
    started.send((Thread::current(), addresses[0], addresses[1])).expect("someone waits");
    let connect = |_| async { Ok(()) };
    // Most clients do nothing but listen.
    let config = WebSocketConfig::new().idle_timeout(Duration::from_secs(3600));
    let endpoint = Endpoint::builder(connect).channel::<Room>("room:*").websocket(config).build();
    let service = TowerToHyperService::new(endpoint.service("/socket"));
    let peers = Arc::new(Mutex::new(Vec::new()));
    loop {
        tokio::select! {
            Ok((io, _)) = ours.accept() => {
                io.set_nodelay(true).expect("a socket option");
                let http = http1::Builder::new().serve_connection(TokioIo::new(io), service.clone());
                tokio::spawn(http.with_upgrades());
            }
            Ok((io, _)) = least.accept() => {
                io.set_nodelay(true).expect("a socket option");
                let io = Arc::new(io);
                peers.lock().expect("no panic").push(Arc::clone(&io));
                tokio::spawn(answer(io, Arc::clone(&peers)));
            }
        }
    }
}

/// The least that a server can do.
async fn answer(io: Arc<Served>, peers: Arc<Mutex<Vec<Arc<Served>>>>) {
    let mut buffer = vec![0; 4096];
    while io.readable().await.is_ok() {
        let Ok(size) = io.try_read(&mut buffer) else { continue };
        let Some(constants) = CONSTANTS.get().filter(|_| size > 0) else { break };
        let Constants { ping, pong, publish, delivery } = constants;
        if buffer.starts_with(ping) {
            assert_eq!(io.try_write(pong).ok(), Some(pong.len()));
            continue;
        }
        let deliveries = delivery.repeat(size / publish.len());
        for peer in peers.lock().expect("no panic").iter() {
            assert_eq!(peer.try_write(&deliveries).ok(), Some(deliveries.len()));
        }
    }
}
