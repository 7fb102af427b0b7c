//! Long-poll requests for a session of another node, beside those at the node that has it, and beside two messages of the
//! client crate: one there and one back.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tower_channels::Endpoint;
use tower_channels::cluster::Listen;

use super::engine::Address;
use super::frames::{Sender, TOPIC};
use super::support::long_poll::{Client, push};
use super::support::room::Room;
use super::support::server::Server;
use super::support::{Thread, median};

const TURNS: usize = 25;
/// Echoes per turn: a POST, and the poll that brings the reply.
const ECHOES: usize = 200;
/// Clients that ask at the same time.
const CROWD: usize = 16;

/// How long requests took, and what they cost, in us.
#[derive(Default)]
struct Costs {
    posts: Vec<f64>,
    polls: Vec<f64>,
    /// The CPU time of both nodes per request, by turn.
    cpu: Vec<f64>,
}

impl Costs {
    /// Lets each client make so many echoes.
    fn turn(&mut self, clients: &mut [Client], echoes: usize, servers: &[Server]) {
        let before = cpu(servers);
        let all = thread::scope(|scope| {
            let begin = |client| scope.spawn(move || echo(client, echoes));
            let begun: Vec<_> = clients.iter_mut().map(begin).collect();
            begun.into_iter().map(|client| client.join().expect("no panic")).collect::<Vec<_>>()
        });
        self.cpu.push((cpu(servers) - before) / (2 * echoes * clients.len()) as f64);
        for [posts, polls] in all {
            self.posts.extend(posts);
            self.polls.extend(polls);
        }
    }
}

/// Returns how long the POSTs took, and the polls.
fn echo(client: &mut Client, echoes: usize) -> [Vec<f64>; 2] {
    let ping = push("ping", &format!(r#"{{"body":"{}"}}"#, "x".repeat(64)));
    let [mut posts, mut polls] = [Vec::new(), Vec::new()];
    for _ in 0..echoes {
        time(&mut posts, || client.post(&ping));
        let size = time(&mut polls, || {
            client.poll();
            client.take()
        });
        assert!(size > 64, "a response without the reply");
    }
    [posts, polls]
}

pub(crate) fn run(engine: Address) {
    let servers = [Server::new(1), Server::new(1)];
    let [own, other] = servers.each_ref().map(|server| serve(server, engine));
    let mut local: Vec<_> = (0..CROWD).map(|_| Client::join(own)).collect();
    let mut relayed: Vec<_> = (0..CROWD).map(|_| Client::join(own)).collect();
    // By then each node knows the other.
    thread::sleep(Duration::from_secs(3));
    relayed.iter_mut().for_each(|client| client.move_to(other));
    let mut raw = Raw::new(engine);
    let mut costs: [[Costs; 2]; 2] = Default::default();
    for _ in 0..TURNS {
        raw.turn();
        for (clients, costs) in [&mut local, &mut relayed].into_iter().zip(&mut costs) {
            costs[0].turn(&mut clients[..1], ECHOES, &servers);
            costs[1].turn(clients, ECHOES / CROWD, &servers);
        }
    }
    let [[local, local_crowd], [relayed, relayed_crowd]] = costs;
    println!(
        "{:<48}{:>8}{:>10}{:>8}{:>8}{:>8}",
        "us", "local", "relayed", "ratio", "added", "limit"
    );
    row("POST, p50", local.posts, relayed.posts, "400");
    row("poll that has a message, p50", local.polls, relayed.polls, "400");
    row("CPU of both nodes per request", local.cpu, relayed.cpu, "30");
    let what = format!("the same, {CROWD} clients at a time");
    row(&what, local_crowd.cpu, relayed_crowd.cpu, "30");
    println!("the crate, there and back: {:.1}, CPU {:.1}", median(raw.times), median(raw.cpu));
    println!();
}

fn serve(server: &Server, engine: Address) -> SocketAddr {
    let node = server.run(async move { engine.node("bench", Listen::All).await });
    let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*");
    server.http(endpoint.pubsub(node).build().service())
}

/// Two connections of the client crate on each of two threads: a message there and one back.
struct Raw {
    servers: [Server; 2],
    asks: mpsc::UnboundedSender<()>,
    answers: mpsc::UnboundedReceiver<()>,
    times: Vec<f64>,
    cpu: Vec<f64>,
}

impl Raw {
    fn new(engine: Address) -> Self {
        let servers = [Server::new(1), Server::new(1)];
        let [(asks, asked), (heard, answers)] = [(); 2].map(|()| mpsc::unbounded_channel());
        let (question, questions) = mpsc::unbounded_channel();
        hear(&servers[1], engine, "there", question);
        hear(&servers[0], engine, "back", heard);
        publish(&servers[0], engine, "there", asked);
        publish(&servers[1], engine, "back", questions);
        Self { servers, asks, answers, times: Vec::new(), cpu: Vec::new() }
    }

    fn turn(&mut self) {
        let before = cpu(&self.servers);
        for _ in 0..ECHOES {
            time(&mut self.times, || {
                self.asks.send(()).expect("it publishes");
                self.answers.blocking_recv().expect("an answer");
            });
        }
        self.cpu.push((cpu(&self.servers) - before) / ECHOES as f64);
    }
}

fn hear(server: &Server, engine: Address, app: &'static str, heard: mpsc::UnboundedSender<()>) {
    let prefix = engine.channel(app, "").trim_end_matches('0').to_owned();
    server.run(async move {
        let ear = engine
            .hear(&prefix, move || {
                let _ = heard.send(());
            })
            .await;
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(ear);
        });
    });
}

/// Publishes a message whenever it is asked to.
fn publish(
    server: &Server,
    engine: Address,
    app: &'static str,
    mut asked: mpsc::UnboundedReceiver<()>,
) {
    server.run(async move {
        let (mut publisher, channel) = (engine.publisher().await, engine.channel(app, TOPIC));
        let mut sender = Sender::new(1, TOPIC, 160);
        tokio::spawn(async move {
            while asked.recv().await.is_some() {
                publisher.publish(&channel, [sender.next()]).await;
            }
        });
    });
}

/// The CPU time of servers, in us.
fn cpu(servers: &[Server]) -> f64 {
    servers.iter().map(|server| server.seconds(Thread::cpu)).sum::<f64>() * 1e6
}

fn row(what: &str, local: Vec<f64>, relayed: Vec<f64>, limit: &str) {
    let (local, relayed) = (median(local), median(relayed));
    let (ratio, added) = (relayed / local, relayed - local);
    println!("{what:<48}{local:>8.1}{relayed:>10.1}{ratio:>8.2}{added:>8.1}{limit:>8}");
}

/// Notes how long `work` took, in us.
fn time<R>(times: &mut Vec<f64>, work: impl FnOnce() -> R) -> R {
    let began = Instant::now();
    let result = work();
    times.push(began.elapsed().as_secs_f64() * 1e6);
    result
}
