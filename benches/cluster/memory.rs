//! The memory of a node for each topic that it listens to, and that of a node and of the engine for each resumable session.

use std::time::Duration;

use allocation_counter::measure;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Runtime;
use tower_channels::cluster::Listen;
use tower_channels::{CheckOrigin, ConnectInfo, Endpoint, PubSub, WebSocketConfig};

use super::engine::Address;
use super::support::local;
use super::support::room::Silent;

const TOPICS: usize = 10_000;
const SESSIONS: usize = 1000;
const APP: &str = "memory";

pub(crate) fn run(engine: Address) {
    let [all, topics] = [Listen::All, Listen::Topics].map(|listen| held(engine, listen));
    println!("{:<52}{:>8}{:>18}", "bytes", "", "limit");
    let what = "topic that is listened to, without its subscribers";
    println!("{what:<52}{:>8.0}{:>18}", topics - all, 200);
    let [alone, shared, with_history] = [
        sessions(|| async { PubSub::new() }),
        sessions(|| engine.node("memory-plain", Listen::All)),
        sessions(|| engine.node_with_history(APP, "room:*")),
    ];
    println!("{:<52}{alone:>8.0}", "resumable session with a topic, without an adapter");
    println!("{:<52}{:>+8.0}{:>18}", "more with an adapter", shared - alone, "100");
    println!("{:<52}{:>+8.0}{:>18}", "and with a history", with_history - alone, "100");
    let in_engine = runtime().block_on(engine.bytes_per_record(APP));
    println!("{:<52}{in_engine:>8.0}{:>18}\n", "its record in the engine", 600);
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Returns the bytes held per topic that was subscribed to a moment ago.
fn held(engine: Address, listen: Listen) -> f64 {
    let runtime = runtime();
    let node = runtime.block_on(async {
        let node = engine.node("bench", listen).await;
        // The node begins with hearing all topics.
        tokio::time::sleep(Duration::from_secs(2)).await;
        node
    });
    let subscribe = |topics: std::ops::Range<usize>| {
        runtime.block_on(async {
            for topic in topics {
                drop(node.subscribe(&format!("room:{topic:016x}")));
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        });
    };
    // What all topics share.
    subscribe(0..TOPICS);
    let measured = measure(|| subscribe(TOPICS..2 * TOPICS));
    measured.bytes_current as f64 / TOPICS as f64
}

/// Returns the bytes held per resumable session, connection included, whose client has joined one topic.
fn sessions<F: Future<Output = PubSub>>(node: impl FnOnce() -> F) -> f64 {
    let runtime = runtime();
    let connect = async |info: ConnectInfo| Ok(info.param("session").map(str::to_owned));
    let forever = WebSocketConfig::new().idle_timeout(Duration::from_secs(3600));
    let node = runtime.block_on(node());
    let builder = Endpoint::builder(connect).id(Option::clone).channel::<Silent<_>>("room:*");
    let builder = builder.check_origin(CheckOrigin::off()).websocket(forever);
    let endpoint = runtime.block_on(async { builder.pubsub(node).build() });
    let service = TowerToHyperService::new(endpoint.service());
    let mut clients = Vec::with_capacity(2 * SESSIONS);
    let mut add = |sessions: std::ops::Range<usize>| {
        runtime.block_on(async {
            for session in sessions {
                let mut client = local::connect(service.clone());
                // As they are drawn at random.
                let id = (session as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
                local::upgrade(&mut client, &format!("session={id:032x}")).await;
                local::join(&mut client, "room:a").await;
                clients.push(client);
            }
            // Until their records are written.
            tokio::time::sleep(Duration::from_secs(2)).await;
        });
    };
    // What all sessions share.
    add(0..SESSIONS);
    let measured = measure(|| add(SESSIONS..2 * SESSIONS));
    measured.bytes_current as f64 / SESSIONS as f64
}
