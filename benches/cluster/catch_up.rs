//! Topics with a history after the engine was away: until a node has delivered what it has missed.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tower_channels::test::{Client, connect};
use tower_channels::{Endpoint, PubSub};
use tower_channels_adapter_tests::proxy::Proxy;

use super::engine::Engine;
use super::frames::{EVENT, payload};
use super::support::room::Silent;
use super::support::server::Server;

const TOPICS: usize = 1000;
/// The topics of one client.
const SHARE: usize = 50;
/// What is missed of each topic.
const MESSAGES: usize = 10;
const SIZE: usize = 160;
const ROUNDS: usize = 5;
const MILLISECOND: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(30);

/// The engine is to keep what it has acknowledged when it is killed.
pub(crate) fn run(engine: &mut Engine) {
    let what = format!("{TOPICS} topics, {MESSAGES} messages of each missed, ms");
    println!("{what:<60}{:>8}{:>8}{:>10}", "p50", "max", "limit");
    for (kills, what) in [(false, "link back until all are caught up"), (true, "engine answers")] {
        let mut times: Vec<_> = (0..ROUNDS).map(|round| catch_up(engine, round, kills)).collect();
        times.sort_by(f64::total_cmp);
        println!("{what:<60}{:>8.0}{:>8.0}{:>10}", times[ROUNDS / 2], times[ROUNDS - 1], 1000);
    }
    println!();
}

/// Cuts one of two nodes off, keeps messages meanwhile, and returns how long it takes until that node has delivered them
/// all, in ms: from when its link can be opened again, or from the first answer of an engine that was killed besides.
fn catch_up(engine: &mut Engine, round: usize, kills: bool) -> f64 {
    let address = engine.address();
    let [sending, receiving, between] = [(); 3].map(|()| Server::new(1));
    let proxy = between.run(async move { Proxy::new(address.socket_address()).await });
    let app = format!("catch-up-{round}-{kills}");
    let (name, behind) = (app.clone(), address.behind(proxy.address()));
    let sender = sending.run(async move { address.node_with_history(&name, "kept:*").await });
    let node = receiving.run(async move { behind.node_with_history(&app, "kept:*").await });
    let mut clients = receiving.run(crowd(node));

    proxy.cut();
    thread::sleep(100 * MILLISECOND);
    sending.run(async move {
        for topic in 0..TOPICS {
            let topic = format!("kept:{topic}");
            for _ in 1..MESSAGES {
                sender.broadcast(&topic, EVENT, payload(SIZE));
            }
            sender.publish(&topic, EVENT, payload(SIZE)).await.expect("the engine answers");
        }
        // It is needed no more, and what it does when the engine is back is not measured.
        drop(sender);
    });
    assert_eq!(clients.iter_mut().map(Client::discard).sum::<usize>(), 0, "it is cut off");
    let back = if kills {
        engine.kill();
        proxy.heal();
        thread::sleep(500 * MILLISECOND);
        let answered = thread::spawn(move || {
            while !address.answers() {
                thread::sleep(MILLISECOND / 2);
            }
            Instant::now()
        });
        engine.restart();
        answered.join().expect("no panic")
    } else {
        proxy.heal();
        Instant::now()
    };
    let caught_up = receiving.run(async move {
        let mut received = 0;
        while received < TOPICS * MESSAGES {
            assert!(back.elapsed() < PATIENCE, "{received} messages");
            tokio::time::sleep(MILLISECOND).await;
            received += clients.iter_mut().map(Client::discard).sum::<usize>();
        }
        Instant::now()
    });
    caught_up.saturating_duration_since(back).as_secs_f64() * 1e3
}

/// Clients that have joined all topics.
async fn crowd(node: PubSub) -> Vec<Client<()>> {
    let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Silent>("kept:*");
    let endpoint = endpoint.pubsub(node).build();
    let mut clients = Vec::new();
    for first in (0..TOPICS).step_by(SHARE) {
        let mut client = connect(&endpoint, &[]).await.expect("connects");
        for topic in first..first + SHARE {
            client.join(&format!("kept:{topic}"), json!({})).await;
        }
        client.discard();
        clients.push(client);
    }
    clients
}
