//! What a history costs the subscribers of a topic: the same broadcasts on a topic with one and on a topic without, in
//! alternating turns. All figures are CPU time.

use std::time::Duration;

use serde_json::json;
use tower_channels::test::{Client, connect};
use tower_channels::{Endpoint, History, PubSub, PubSubConfig};

use super::engine::Address;
use super::frames::{EVENT, payload};
use super::support::room::Silent;
use super::support::server::Server;
use super::support::{Thread, median};

const SIZE: usize = 160;
const CLIENTS: usize = 1000;
const TURNS: usize = 101;
/// Broadcasts in a turn.
const TIMES: usize = 20;
/// Without a history, and with one.
const TOPICS: [&str; 2] = ["room:a", "kept:a"];

/// The node itself, without an engine: deliveries in memory, and what the clients read.
pub(crate) fn in_memory() {
    let server = Server::new(1);
    let times = server.run(async {
        let config = PubSubConfig::new().history("kept:*", History::last(500));
        let node = PubSub::with_config(config).expect("it is valid");
        let mut crowds = [crowd(&node, TOPICS[0]).await, crowd(&node, TOPICS[1]).await];
        let mut times = [Vec::new(), Vec::new()];
        let payload = payload(SIZE);
        for _ in 0..TURNS {
            for ((clients, times), topic) in crowds.iter_mut().zip(&mut times).zip(TOPICS) {
                let (thread, count) = (Thread::current(), (TIMES * CLIENTS) as f64);
                let used = thread.cpu();
                for _ in 0..TIMES {
                    node.broadcast(topic, EVENT, payload.clone());
                    let received: usize = clients.iter_mut().map(Client::discard).sum();
                    assert_eq!(received, CLIENTS);
                }
                times.push((thread.cpu() - used).as_nanos() as f64 / count);
            }
        }
        times
    });
    print("a delivery in memory", times);
}

/// Two nodes over an engine. Measures the receiving one, with its connections to the engine.
pub(crate) fn over(engine: Address) {
    let [sending, receiving] = [Server::new(1), Server::new(1)];
    let sender = sending.run(async move { engine.node_with_history("kept", "kept:*").await });
    let node = receiving.run(async move { engine.node_with_history("kept", "kept:*").await });
    let mut crowds = TOPICS.map(|topic| {
        let node = node.clone();
        Some(receiving.run(async move { crowd(&node, topic).await }))
    });
    // Both begin with hearing all topics.
    std::thread::sleep(Duration::from_secs(2));
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        for ((crowd, costs), topic) in crowds.iter_mut().zip(&mut costs).zip(TOPICS) {
            let mut clients = crowd.take().expect("it was given back");
            let used = receiving.seconds(Thread::cpu);
            let sender = sender.clone();
            sending.run(async move {
                let payload = payload(SIZE);
                (0..TIMES).for_each(|_| sender.broadcast(topic, EVENT, payload.clone()));
            });
            let received = receiving.run(async move {
                let mut received = 0;
                while received < TIMES {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    received += clients[0].discard();
                }
                let others = clients[1..].iter_mut().map(Client::discard);
                assert_eq!(others.sum::<usize>(), TIMES * (CLIENTS - 1));
                clients
            });
            *crowd = Some(received);
            let used = receiving.seconds(Thread::cpu) - used;
            costs.push(used * 1e9 / (TIMES * CLIENTS) as f64);
        }
    }
    print("a delivery from another node", costs);
}

async fn crowd(node: &PubSub, topic: &'static str) -> Vec<Client<()>> {
    let builder = Endpoint::builder(|_| async { Ok(()) });
    let builder = builder.channel::<Silent>("room:*").channel::<Silent>("kept:*");
    let endpoint = builder.pubsub(node.clone()).build();
    let mut clients = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        let mut client = connect(&endpoint, &[]).await.expect("connects");
        client.join(topic, json!({})).await;
        client.discard();
        clients.push(client);
    }
    clients
}

fn print(what: &str, [without, with]: [Vec<f64>; 2]) {
    let ratio = median(without.iter().zip(&with).map(|(without, with)| with / without).collect());
    let [without, with] = [without, with].map(median);
    println!(
        "{:<44}{without:>6.1} ns without a history, {with:>6.1} ns with one, {ratio:>5.3} times",
        format!("{what}, {CLIENTS} clients")
    );
}
