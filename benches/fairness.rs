//! How long a quiet client waits for its echo while others make trouble: one that reads nothing and is
//! sent much, one that pushes without end, a topic of 200, and one whose messages are huge. The server
//! has one thread. Where there are fewer processors than threads the machine adds waits of its own: so each
//! echo is counted a second time without what the server and the quiet client waited for a processor.
//!
//! `cargo bench --bench fairness`

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tower_channels::{Endpoint, WebSocketConfig};

use self::support::room::Room;
use self::support::server::Server;
use self::support::{Thread, frame, join, push};

const ECHOES: usize = 1000;
const PAUSE: Duration = Duration::from_millis(2);
const CROWD: usize = 200;
const HUGE: usize = 1_000_000;
const ROUNDS: usize = 5;

fn main() {
    let server = Server::new(1);
    let address = server.http(endpoint().service("/socket"));
    let quiet = join(address, "room:quiet");
    let crowd: Vec<_> = (0..CROWD).map(|_| join(address, "room:hot")).collect();
    let [listens, _reads_nothing] = [(), ()].map(|()| join(address, "room:deaf"));
    let [floods, sends_huge] = ["room:flood", "room:huge"].map(|topic| join(address, topic));

    let deaf = || publish(&[&listens], "room:deaf", 16 * 1024);
    let flood = || flood(&floods);
    let hot = || publish(&crowd.iter().collect::<Vec<_>>(), "room:hot", 64);
    let huge = || echo(&sends_huge, "room:huge", HUGE);
    let [deaf, flood, hot, huge]: [Trouble<'_>; 4] = [&deaf, &flood, &hot, &huge];
    let rows: [(&str, &[Trouble<'_>]); 6] = [
        ("nobody else", &[]),
        ("one reads nothing and is sent 16 KiB often", &[deaf]),
        ("one pushes without end", &[flood]),
        ("a topic of 200 that is broadcast to often", &[hot]),
        ("one sends and is sent messages of 1 MB", &[huge]),
        ("all of them", &[deaf, flood, hot, huge]),
    ];
    println!("an echo in ms, {ECHOES} of them; of {ROUNDS} rounds the one with the best\n");
    println!(
        "{:<44}{:>8}{:>8}{:>10}{:>8}{:>9}",
        "", "median", "p99", "unwaited", "target", "server"
    );
    for (what, troubles) in rows {
        let mut rounds: Vec<_> = (0..ROUNDS).map(|_| round(&quiet, troubles, &server)).collect();
        rounds.sort_by(|a, b| a.unwaited.total_cmp(&b.unwaited));
        // What else the machine does can only add to it.
        let Round { median, p99, unwaited, busy } = rounds[0];
        println!("{what:<44}{median:>8.2}{p99:>8.2}{unwaited:>10.2}{:>8}{busy:>7.0} %", "< 5");
    }
}

/// Makes its trouble once, again and again.
type Trouble<'a> = &'a (dyn Fn() + Sync);

struct Round {
    median: f64,
    p99: f64,
    /// The p99 of what an echo takes if both always have a processor.
    unwaited: f64,
    /// The share of the time that the server's thread was running.
    busy: f64,
}

fn round(quiet: &TcpStream, troubles: &[Trouble<'_>], server: &Server) -> Round {
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        for trouble in troubles {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    trouble();
                }
            });
        }
        let (began, cpu) = (Instant::now(), server.seconds(Thread::cpu));
        let (mut echoes, mut unwaited) = (Vec::new(), Vec::new());
        let client = Thread::current();
        let waited = || (server.seconds(Thread::waited) + client.waited().as_secs_f64()) * 1e3;
        for _ in 0..ECHOES {
            thread::sleep(PAUSE);
            let before = waited();
            let asked = Instant::now();
            echo(quiet, "room:quiet", 64);
            let took = asked.elapsed().as_secs_f64() * 1e3;
            echoes.push(took);
            unwaited.push((took - (waited() - before)).max(0.0));
        }
        let used = server.seconds(Thread::cpu) - cpu;
        let busy = used / began.elapsed().as_secs_f64() * 100.0;
        over.store(true, Ordering::Relaxed);
        for all in [&mut echoes, &mut unwaited] {
            all.sort_by(f64::total_cmp);
        }
        let p99 = ECHOES * 99 / 100;
        Round { median: echoes[ECHOES / 2], p99: echoes[p99], unwaited: unwaited[p99], busy }
    })
}

/// Asks, and hears the answer.
fn echo(mut client: &TcpStream, topic: &str, size: usize) {
    client.write_all(&push("2", topic, "ping", &text(size))).expect("written");
    frame(client);
}

/// Asks much at a time, and then hears the answers.
fn flood(mut client: &TcpStream) {
    let pings = push("2", "room:flood", "ping", &text(64)).repeat(500);
    client.write_all(&pings).expect("written");
    (0..500).for_each(|_| drop(frame(client)));
}

/// The first of `clients` says something to its topic, and they all hear it.
fn publish(clients: &[&TcpStream], topic: &str, size: usize) {
    let mut first = clients[0];
    first.write_all(&push("2", topic, "new_msg", &text(size))).expect("written");
    clients.iter().for_each(|client| drop(frame(*client)));
    thread::sleep(Duration::from_millis(5));
}

fn text(size: usize) -> String {
    format!("\"{}\"", "x".repeat(size))
}

/// So much may wait that who reads nothing stays to the end.
fn endpoint() -> Endpoint<()> {
    Endpoint::builder(|_| async { Ok(()) })
        .channel::<Room>("room:*")
        .max_outbox(1 << 30)
        .websocket(WebSocketConfig::new().idle_timeout(Duration::from_secs(3600)))
        .build()
}
