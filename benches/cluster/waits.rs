//! What takes a moment: the return of an engine, presences of other nodes, the first join of a topic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::json;
use tower_channels::cluster::Listen;
use tower_channels::test::{Client, connect};
use tower_channels::{Endpoint, PubSub};

use super::engine::{Address, Engine};
use super::frames::{EVENT, TOPIC, payload};
use super::support::room::Silent;
use super::support::server::Server;

const ROUNDS: usize = 50;
const JOINS: usize = 500;
const MILLISECOND: Duration = Duration::from_millis(1);

pub(crate) fn run(engine: &mut Engine) {
    println!("{:<52}{:>8}{:>8}{:>10}", "ms", "p50", "max", "limit");
    restart(engine, "engine restarted: answers until a broadcast is heard", Duration::ZERO, ROUNDS);
    restart(engine, "the same after 2 s without it", Duration::from_secs(2), 5);
    presence(engine.address());
    println!("{:<52}{:>8}{:>8}{:>10}", "us", "p50", "p99", "limit");
    join(engine.address());
    println!();
}

/// Two nodes, each on a thread.
struct Nodes {
    servers: [Server; 2],
    nodes: [PubSub; 2],
    /// When the second has heard a broadcast of the first.
    heard: Arc<Mutex<Option<Instant>>>,
    /// Makes the first broadcast every millisecond.
    broadcasts: Arc<AtomicBool>,
}

impl Nodes {
    fn new(engine: Address) -> Self {
        let servers = [Server::new(1), Server::new(1)];
        let nodes = [0, 1].map(|index: usize| {
            servers[index].run(async move { engine.node("bench", Listen::All).await })
        });
        let (heard, broadcasts) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        let nodes = Self { servers, nodes, heard, broadcasts };
        let (node, is_running) = (nodes.nodes[0].clone(), nodes.broadcasts.clone());
        nodes.servers[0].run(async move {
            tokio::spawn(async move {
                while is_running.load(Ordering::Relaxed) {
                    node.broadcast(TOPIC, EVENT, payload(160));
                    tokio::time::sleep(MILLISECOND).await;
                }
            });
        });
        let (node, heard) = (nodes.nodes[1].clone(), nodes.heard.clone());
        nodes.servers[1].run(async move {
            let mut subscription = node.subscribe(TOPIC);
            tokio::spawn(async move {
                while subscription.recv().await.is_ok() {
                    heard.lock().expect("no panic").get_or_insert_with(Instant::now);
                }
            });
        });
        nodes.wait();
        nodes
    }

    /// Waits until a broadcast is heard from now on, and returns when.
    fn wait(&self) -> Instant {
        loop {
            if let Some(heard) = *self.heard.lock().expect("no panic") {
                return heard;
            }
            sleep(MILLISECOND);
        }
    }

    fn forget(&self) {
        *self.heard.lock().expect("no panic") = None;
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.broadcasts.store(false, Ordering::Relaxed);
    }
}

fn restart(engine: &mut Engine, what: &str, away: Duration, rounds: usize) {
    let address = engine.address();
    let mut times = Vec::new();
    for _ in 0..rounds {
        let nodes = Nodes::new(address);
        engine.kill();
        sleep(10 * MILLISECOND);
        nodes.forget();
        sleep(away);
        let answered = thread::spawn(move || {
            while !address.answers() {
                sleep(MILLISECOND / 2);
            }
            Instant::now()
        });
        engine.restart();
        let answered = answered.join().expect("no panic");
        times.push(nodes.wait().saturating_duration_since(answered).as_secs_f64() * 1e3);
    }
    let [p50, _, max] = spread(times);
    println!("{what:<52}{p50:>8.1}{max:>8.1}{:>10}", 50);
}

fn presence(engine: Address) {
    let nodes = Nodes::new(engine);
    nodes.broadcasts.store(false, Ordering::Relaxed);
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let topic = format!("lobby:{round}");
        let [mine, others] = nodes.nodes.each_ref().map(PubSub::presence);
        let presence = mine.clone();
        let (name, began) = (topic.clone(), Instant::now());
        let tracked = nodes.servers[0]
            .run(async move { presence.track_task(&name, "ann", json!({})).expect("tracks") });
        while others.count(&topic) == 0 {
            sleep(MILLISECOND / 10);
        }
        times.push(began.elapsed().as_secs_f64() * 1e3);
        nodes.servers[0].run(async move { drop(tracked) });
        // So that the next is at another moment of the node's period.
        sleep(Duration::from_millis(7 * (round as u64 % 8)));
    }
    let [p50, _, max] = spread(times);
    let what = "tracked until another node lists it";
    println!("{what:<52}{p50:>8.1}{max:>8.1}{:>10}", 100);
}

fn join(engine: Address) {
    let server = Server::new(1);
    let [all, topics] = server.run(async move {
        let clients = [Listen::All, Listen::Topics].map(|listen| async move {
            let pubsub = engine.node("bench", listen).await;
            let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Silent>("room:*");
            connect(&endpoint.pubsub(pubsub).build(), &[]).await.expect("connects")
        });
        let [all, topics] = clients;
        let mut clients = [all.await, topics.await];
        // Both begin with hearing all topics.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut times: [Vec<f64>; 2] = Default::default();
        for index in 0..JOINS {
            for (client, times) in clients.iter_mut().zip(&mut times) {
                times.push(time_join(client, &format!("room:{index}")).await);
            }
        }
        times
    });
    let [[all, slow_all, _], [topics, slow_topics, _]] = [all, topics].map(spread);
    let what = "first join of a topic, in memory, all are heard";
    println!("{what:<52}{all:>8.1}{slow_all:>8.1}");
    let what = "the same with `Listen::Topics`";
    println!("{what:<52}{topics:>8.1}{slow_topics:>8.1}{:>10.1}", all + 100.0);
}

async fn time_join(client: &mut Client<()>, topic: &str) -> f64 {
    let began = Instant::now();
    client.join(topic, json!({})).await;
    let time = began.elapsed().as_secs_f64() * 1e6;
    client.leave(topic).await;
    client.discard();
    time
}

/// The median, the 99th percentile and the largest.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values.len() / 2, values.len() * 99 / 100, values.len() - 1].map(|index| values[index])
}
