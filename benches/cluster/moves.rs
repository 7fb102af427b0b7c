//! Sessions of about 10 KiB that move from one node to another and back, beside those whose clients come back to the
//! same node.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tower_channels::{Endpoint, Payload, PubSub};

use super::support::server::Server;
use super::support::{Thread, median};
use super::travel::{Came, TOPICS, Traveller, endpoint};

const TURNS: usize = 15;
/// Returns per turn.
const RETURNS: usize = 40;
/// Clients that move at the same time, and how long each of their turns lasts.
const CROWDS: [usize; 2] = [16, 256];
const CROWD_TURNS: usize = 5;
const CROWD_TURN: Duration = Duration::from_secs(2);
/// How often each node broadcasts.
const PERIOD: Duration = Duration::from_millis(10);
/// For what follows a move, such as the records.
const PAUSE: Duration = Duration::from_millis(20);

/// What the returns of a kind took, in us.
#[derive(Default)]
struct Costs {
    times: Vec<f64>,
    /// The CPU time of both nodes per return, by turn.
    cpu: Vec<f64>,
    /// Returns per second, by turn.
    rates: Vec<f64>,
    /// Sessions that have begun anew, or have a gap.
    spoiled: usize,
}

struct Bench {
    servers: [Server; 2],
    clients: Server,
    addresses: [SocketAddr; 2],
}

pub(crate) fn run<F>(node: impl Fn() -> F)
where
    F: Future<Output = PubSub> + Send + 'static,
{
    let servers = [Server::new(1), Server::new(1)];
    let addresses = servers.each_ref().map(|server| {
        let node = server.run(node());
        let endpoint = endpoint(node);
        let broadcasts = endpoint.clone();
        server.run(async move {
            drop(tokio::spawn(broadcast(broadcasts)));
        });
        server.http(endpoint.service())
    });
    let bench = Bench { servers, clients: Server::new(1), addresses };
    // By then each node knows the other.
    sleep(Duration::from_secs(3));
    println!(
        "{:<46}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        format!("sessions of 10 KiB and {TOPICS} topics"),
        "p50, us",
        "p99, us",
        "CPU, us",
        "/s",
        "anew",
        "limit"
    );
    let [resumed, moved] = bench.one_by_one();
    row("back to the same node, one at a time", &resumed, "");
    row("moved, one at a time", &moved, "5000");
    for crowd in CROWDS {
        let [resumed, moved] = bench.crowd(crowd);
        row(&format!("back to the same node, {crowd} at a time"), &resumed, "");
        row(&format!("moved, {crowd} at a time"), &moved, "1000/s");
    }
    println!();
}

impl Bench {
    fn one_by_one(&self) -> [Costs; 2] {
        let mut costs = [Costs::default(), Costs::default()];
        let (mut client, mut at) = (self.clients.run(come_first(0, self.addresses[0])), 0);
        for _ in 0..TURNS {
            for (costs, moves) in costs.iter_mut().zip([false, true]) {
                let before = self.cpu();
                for _ in 0..RETURNS {
                    at = if moves { 1 - at } else { at };
                    let (same, time, came) =
                        self.clients.run(come_back(client, self.addresses[at]));
                    client = same;
                    costs.times.push(time);
                    costs.spoiled += usize::from(!is_good(came, moves));
                }
                sleep(PAUSE);
                costs.cpu.push((self.cpu() - before) / RETURNS as f64);
            }
        }
        costs
    }

    fn crowd(&self, count: usize) -> [Costs; 2] {
        let mut costs = [Costs::default(), Costs::default()];
        let mut here = Vec::new();
        for number in 0..count {
            let node = self.addresses[number % 2];
            here.push((self.clients.run(come_first(1000 * count + number, node)), number % 2));
        }
        for _ in 0..CROWD_TURNS {
            for (costs, moves) in costs.iter_mut().zip([false, true]) {
                let (before, began) = (self.cpu(), Instant::now());
                let is_over = Arc::new(AtomicBool::new(false));
                let addresses = self.addresses;
                let flag = is_over.clone();
                let turn = here.into_iter().map(move |(client, at)| {
                    wander(client, at, addresses, moves, Arc::clone(&flag))
                });
                let turn: Vec<_> = turn.collect();
                let ends = is_over.clone();
                let all = self.clients.run(async move {
                    let tasks: Vec<_> = turn.into_iter().map(tokio::spawn).collect();
                    tokio::time::sleep(CROWD_TURN).await;
                    ends.store(true, Ordering::Relaxed);
                    let mut all = Vec::new();
                    for task in tasks {
                        all.push(task.await.expect("no panic"));
                    }
                    all
                });
                let seconds = began.elapsed().as_secs_f64();
                sleep(PAUSE);
                let used = self.cpu() - before;
                here = Vec::new();
                let mut returns = 0;
                for Wandered { client, at, times, spoiled } in all {
                    here.push((client, at));
                    returns += times.len();
                    costs.times.extend(times);
                    costs.spoiled += spoiled;
                }
                costs.cpu.push(used / returns as f64);
                costs.rates.push(returns as f64 / seconds);
            }
        }
        costs
    }

    /// The CPU time of both nodes, in us.
    fn cpu(&self) -> f64 {
        self.servers.iter().map(|server| server.seconds(Thread::cpu)).sum::<f64>() * 1e6
    }
}

/// Broadcasts now and then: a session that moves waits until its old node has heard what the new one has.
async fn broadcast(endpoint: Endpoint<String>) {
    let mut period = tokio::time::interval(PERIOD);
    loop {
        period.tick().await;
        endpoint.broadcast("news", "none", Payload::EMPTY);
    }
}

/// A client after a turn.
struct Wandered {
    client: Traveller,
    at: usize,
    times: Vec<f64>,
    spoiled: usize,
}

/// Comes back again and again, for a turn.
async fn wander(
    mut client: Traveller,
    mut at: usize,
    nodes: [SocketAddr; 2],
    moves: bool,
    is_over: Arc<AtomicBool>,
) -> Wandered {
    let (mut times, mut spoiled) = (Vec::new(), 0);
    while !is_over.load(Ordering::Relaxed) {
        at = if moves { 1 - at } else { at };
        let (same, time, came) = come_back(client, nodes[at]).await;
        client = same;
        times.push(time);
        spoiled += usize::from(!is_good(came, moves));
    }
    Wandered { client, at, times, spoiled }
}

async fn come_first(number: usize, node: SocketAddr) -> Traveller {
    let mut client = Traveller::new(number);
    assert_eq!(client.come(node).await, Came::New);
    client
}

/// Loses the connection, and comes to a node. Returns how long it took there until it had everything, in us.
async fn come_back(mut client: Traveller, node: SocketAddr) -> (Traveller, f64, Came) {
    client.lose().await;
    let began = Instant::now();
    let came = client.come(node).await;
    (client, began.elapsed().as_secs_f64() * 1e6, came)
}

fn is_good(came: Came, moves: bool) -> bool {
    came == if moves { Came::Moved } else { Came::Resumed }
}

fn row(what: &str, costs: &Costs, limit: &str) {
    let mut times = costs.times.clone();
    times.sort_by(f64::total_cmp);
    let [p50, p99] = [times[times.len() / 2], times[times.len() * 99 / 100]];
    let cpu = median(costs.cpu.clone());
    let rate = if costs.rates.is_empty() { 1e6 / p50 } else { median(costs.rates.clone()) };
    let spoiled = costs.spoiled;
    println!("{what:<46}{p50:>9.0}{p99:>9.0}{cpu:>9.0}{rate:>9.0}{spoiled:>9}{limit:>9}");
}
