//! Long-poll requests for a session of another node, beside those at the node that has it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tower_channels::Endpoint;
use tower_channels::cluster::Listen;

use super::engine::Address;
use super::support::long_poll::{Client, push};
use super::support::room::Room;
use super::support::server::Server;
use super::support::{Thread, median};

const TURNS: usize = 25;
/// Echoes per turn: a POST, and the poll that brings the reply.
const ECHOES: usize = 200;

/// How long the requests of a client took, and what they cost, in us.
#[derive(Default)]
struct Costs {
    posts: Vec<f64>,
    polls: Vec<f64>,
    /// The CPU time of both nodes per request, by turn.
    cpu: Vec<f64>,
}

impl Costs {
    fn turn(&mut self, client: &mut Client, servers: &[Server]) {
        let cpu = || servers.iter().map(|server| server.seconds(Thread::cpu)).sum::<f64>();
        let ping = push("ping", &format!(r#"{{"body":"{}"}}"#, "x".repeat(64)));
        let before = cpu();
        for _ in 0..ECHOES {
            time(&mut self.posts, || client.post(&ping));
            let size = time(&mut self.polls, || {
                client.poll();
                client.take()
            });
            assert!(size > 64, "a response without the reply");
        }
        self.cpu.push((cpu() - before) * 1e6 / (2 * ECHOES) as f64);
    }
}

pub(crate) fn run(engine: Address) {
    let servers = [Server::new(1), Server::new(1)];
    let [own, other] = servers.each_ref().map(|server| serve(server, engine));
    let mut clients = [Client::join(own), Client::join(own)];
    // By then each node knows the other.
    std::thread::sleep(Duration::from_secs(3));
    clients[1].move_to(other);
    let mut costs = [Costs::default(), Costs::default()];
    for _ in 0..TURNS {
        for (costs, client) in costs.iter_mut().zip(&mut clients) {
            costs.turn(client, &servers);
        }
    }
    let [local, relayed] = costs;
    println!(
        "{:<34}{:>8}{:>10}{:>8}{:>8}{:>8}",
        "us", "local", "relayed", "ratio", "added", "limit"
    );
    row("POST, p50", local.posts, relayed.posts, 400);
    row("poll that has a message, p50", local.polls, relayed.polls, 400);
    row("CPU of both nodes per request", local.cpu, relayed.cpu, 30);
    println!();
}

fn serve(server: &Server, engine: Address) -> SocketAddr {
    let node = server.run(async move { engine.node("bench", Listen::All).await });
    let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*");
    server.http(endpoint.pubsub(node).build().service())
}

fn row(what: &str, local: Vec<f64>, relayed: Vec<f64>, limit: u32) {
    let (local, relayed) = (median(local), median(relayed));
    let (ratio, added) = (relayed / local, relayed - local);
    println!("{what:<34}{local:>8.1}{relayed:>10.1}{ratio:>8.2}{added:>8.1}{limit:>8}");
}

/// Notes how long `work` took, in us.
fn time<R>(times: &mut Vec<f64>, work: impl FnOnce() -> R) -> R {
    let began = Instant::now();
    let result = work();
    times.push(began.elapsed().as_secs_f64() * 1e6);
    result
}
