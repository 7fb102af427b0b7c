//! Echo latency of a quiet client while others load the server: a client that receives much and
//! never reads, one that pushes continuously, a busy topic of 200, and one with huge messages; and as
//! many saturating clients as the server has threads. The server has one thread, or two. With fewer
//! processors than threads, scheduling adds delays, so each
//! latency is also given without the time that the server and the quiet client spent waiting for a
//! processor.
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
    let address = server.http(endpoint().service());
    let quiet = join(address, "room:quiet");
    let crowd: Vec<_> = (0..CROWD).map(|_| join(address, "room:hot")).collect();
    let [listener, _never_reads] = [(), ()].map(|()| join(address, "room:deaf"));
    let [flooder, huge_sender] = ["room:flood", "room:huge"].map(|topic| join(address, topic));

    let deaf = || publish(&[&listener], "room:deaf", 16 * 1024);
    let flood = || flood(&flooder);
    let hot = || publish(&crowd.iter().collect::<Vec<_>>(), "room:hot", 64);
    let huge = || echo(&huge_sender, "room:huge", HUGE);
    let [deaf, flood, hot, huge]: [Load<'_>; 4] = [&deaf, &flood, &hot, &huge];
    let rows: [(&str, &[Load<'_>]); 6] = [
        ("no load", &[]),
        ("a client that never reads, sent 16 KiB often", &[deaf]),
        ("a client that pushes continuously", &[flood]),
        ("frequent broadcasts to a topic of 200", &[hot]),
        ("a client with messages of 1 MB", &[huge]),
        ("all of them", &[deaf, flood, hot, huge]),
    ];
    println!("latency of {ECHOES} echoes in ms; the best of {ROUNDS} rounds\n");
    println!(
        "{:<44}{:>8}{:>8}{:>12}{:>8}{:>9}",
        "", "median", "p99", "p99 on CPU", "target", "server"
    );
    for (what, loads) in rows {
        report(what, &quiet, loads, &server, "< 5");
    }

    for workers in [1, 2] {
        let server = Server::new(workers);
        let address = server.http(endpoint().service());
        let quiet = join(address, "room:quiet");
        let flooders: Vec<_> = (0..workers).map(|_| join(address, "room:flood")).collect();
        let floods: Vec<_> = flooders.iter().map(|client| move || saturate(client)).collect();
        let loads: Vec<Load<'_>> = floods.iter().map(|flood| flood as Load<'_>).collect();
        let what = format!("{workers} saturating clients on {workers} threads");
        report(&what, &quiet, &loads, &server, "< 10");
    }
}

fn report(what: &str, quiet: &TcpStream, loads: &[Load<'_>], server: &Server, target: &str) {
    let mut rounds: Vec<_> = (0..ROUNDS).map(|_| round(quiet, loads, server)).collect();
    rounds.sort_by(|a, b| a.p99_on_cpu.total_cmp(&b.p99_on_cpu));
    // Other activity of the machine can only increase latencies, so the best round counts.
    let Round { median, p99, p99_on_cpu, busy } = rounds[0];
    println!("{what:<44}{median:>8.2}{p99:>8.2}{p99_on_cpu:>12.2}{target:>8}{busy:>7.0} %");
}

/// Puts load on the server once; called repeatedly.
type Load<'a> = &'a (dyn Fn() + Sync);

struct Round {
    median: f64,
    p99: f64,
    /// The p99 without the time spent waiting for a processor.
    p99_on_cpu: f64,
    /// The share of time that the server's thread was running, in percent.
    busy: f64,
}

fn round(quiet: &TcpStream, loads: &[Load<'_>], server: &Server) -> Round {
    let over = &AtomicBool::new(false);
    thread::scope(|scope| {
        for load in loads {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    load();
                }
            });
        }
        let (began, cpu) = (Instant::now(), server.seconds(Thread::cpu));
        let (mut echoes, mut p99_on_cpu) = (Vec::new(), Vec::new());
        let client = Thread::current();
        let waited = || (server.seconds(Thread::waited) + client.waited().as_secs_f64()) * 1e3;
        for _ in 0..ECHOES {
            thread::sleep(PAUSE);
            let before = waited();
            let sent = Instant::now();
            echo(quiet, "room:quiet", 64);
            let took = sent.elapsed().as_secs_f64() * 1e3;
            echoes.push(took);
            p99_on_cpu.push((took - (waited() - before)).max(0.0));
        }
        let used = server.seconds(Thread::cpu) - cpu;
        let busy = used / began.elapsed().as_secs_f64() * 100.0;
        over.store(true, Ordering::Relaxed);
        for all in [&mut echoes, &mut p99_on_cpu] {
            all.sort_by(f64::total_cmp);
        }
        let p99 = ECHOES * 99 / 100;
        Round { median: echoes[ECHOES / 2], p99: echoes[p99], p99_on_cpu: p99_on_cpu[p99], busy }
    })
}

/// Sends a ping and receives the reply.
fn echo(mut client: &TcpStream, topic: &str, size: usize) {
    client.write_all(&push("2", topic, "ping", &text(size))).expect("written");
    frame(client);
}

/// Sends many pings at once and then receives the replies.
fn flood(mut client: &TcpStream) {
    let pings = push("2", "room:flood", "ping", &text(64)).repeat(500);
    client.write_all(&pings).expect("written");
    (0..500).for_each(|_| drop(frame(client)));
}

/// Sends pings without waiting for the replies, which another thread receives.
fn saturate(client: &TcpStream) {
    let pings = push("2", "room:flood", "ping", &text(64)).repeat(500);
    thread::scope(|scope| {
        scope.spawn(|| (0..5000).for_each(|_| drop(frame(client))));
        let mut sender = client;
        (0..10).for_each(|_| sender.write_all(&pings).expect("written"));
    });
}

/// The first of `clients` publishes a message, and all receive it.
fn publish(clients: &[&TcpStream], topic: &str, size: usize) {
    let mut first = clients[0];
    first.write_all(&push("2", topic, "new_msg", &text(size))).expect("written");
    clients.iter().for_each(|client| drop(frame(*client)));
    thread::sleep(Duration::from_millis(5));
}

fn text(size: usize) -> String {
    format!("\"{}\"", "x".repeat(size))
}

/// The outbox limit is so high that the client that never reads is not closed.
fn endpoint() -> Endpoint<()> {
    Endpoint::builder(|_| async { Ok(()) })
        .channel::<Room>("room:*")
        .max_outbox(1 << 30)
        .websocket(WebSocketConfig::new().idle_timeout(Duration::from_secs(3600)))
        .build()
}
