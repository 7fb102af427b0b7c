//! Histories that an engine keeps: how long messages and pages take, and what a message costs the engine beside one that
//! is published and forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tower_channels::adapter::{
    Adapter, Append, HistoryInbox, HistoryStore, Keep, Kept, Link, NodeId, NodeInbox, Since,
};

use super::engine::{Address, Engine};
use super::support::median;
use super::support::server::Server;

const SIZE: usize = 200;
const ALONE: usize = 250;
/// Messages that wait at once, and rounds of them.
const WAITING: usize = 1000;
const ROUNDS: usize = 20;
const TOPICS: [usize; 2] = [1, 1000];
const PAGES: [usize; 3] = [1, 100, 500];
/// How many topics there are when the pages of one are read, each with a thousand messages.
const ROOMS: usize = 20;
const READS: usize = 300;
const KEEP: Keep =
    Keep { messages: 1000, bytes: 1 << 20, within: Duration::from_secs(7 * 24 * 3600) };

/// Learns that the engine was reached, and that messages come back.
struct Ear(watch::Sender<bool>);

impl HistoryInbox for Ear {
    fn kept(&self, _: &str, _: Kept) {}

    fn interrupted(&self) {
        self.0.send_replace(true);
    }
}

struct Nobody;

impl NodeInbox for Nobody {
    fn receive(&self, _: Bytes) {}

    fn link(&self, _: Link) {}

    fn lost(&self, _: Bytes) {}
}

/// A started adapter with its histories.
#[derive(Clone)]
struct Node {
    _adapter: Arc<dyn Adapter>,
    store: Arc<dyn HistoryStore>,
}

impl Node {
    async fn start(engine: Address) -> Option<Self> {
        let adapter = engine.adapter("history").await;
        let store = adapter.history()?;
        let is_up = watch::Sender::new(false);
        adapter.start(NodeId(1), Arc::new(Nobody));
        store.start(Arc::new(Ear(is_up.clone())));
        is_up.subscribe().wait_for(|is_up| *is_up).await.expect("the ear is there");
        Some(Self { _adapter: adapter, store })
    }

    fn append(&self, topic: &str) -> oneshot::Receiver<impl Sized + use<>> {
        let (done, told) = oneshot::channel();
        let content = Bytes::from_static(&[b'x'; SIZE]);
        let message = Append { topic: topic.into(), content, keep: KEEP, done: Some(done) };
        self.store.append(message).expect("room in the queue");
        told
    }

    /// Appends many messages at once, and waits for all.
    async fn append_many(&self, topics: usize) {
        let told: Vec<_> =
            (0..WAITING).map(|number| self.append(&format!("room:{}", number % topics))).collect();
        for told in told {
            let _ = told.await.expect("whoever waits is told");
        }
    }
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e6;
    format!("p50 {:>6.0} us, p99 {:>6.0} us", at(50), at(99))
}

pub(crate) fn run(engine: &Engine) {
    let server = Server::new(1);
    let Some(node) = server.run(Node::start(engine.address())) else {
        println!("it keeps no histories\n");
        return;
    };
    alone(&server, engine.address(), &node);

    for topics in TOPICS {
        let node = node.clone();
        let took = server.run(async move {
            let mut times = Vec::new();
            for _ in 0..ROUNDS {
                let begun = Instant::now();
                node.append_many(topics).await;
                times.push(begun.elapsed().as_secs_f64());
            }
            median(times)
        });
        let rate = WAITING as f64 / took;
        println!("{:<44}{rate:>10.0} /s", format!("{WAITING} waiting, on {topics} topics"));
    }

    server.run({
        let node = node.clone();
        async move {
            for _ in 0..ROOMS {
                node.append_many(ROOMS).await;
            }
        }
    });
    for limit in PAGES {
        let node = node.clone();
        let times = server.run(async move {
            let mut times = Vec::new();
            for _ in 0..READS {
                let begun = Instant::now();
                let page = node.store.read("room:0", Since::Newest, limit).await;
                times.push(begun.elapsed());
                assert_eq!(page.expect("the engine answers").messages.len(), limit);
            }
            times
        });
        println!("{:<44}{}", format!("a page of {limit}"), percentiles(times));
    }

    for topics in TOPICS {
        cost(&server, engine, &node, topics);
    }
    println!();
}

/// Prints how long a message takes that nothing else waits for, and one of the client crate that is published and answered:
/// in alternating turns.
fn alone(server: &Server, engine: Address, node: &Node) {
    let node = node.clone();
    let [published, kept] = server.run(async move {
        let mut publisher = engine.publisher().await;
        publisher.prepare().await;
        node.store.listen("alone").await;
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for _ in 0..ALONE {
                let begun = Instant::now();
                publisher.answered(Bytes::from_static(&[b'x'; SIZE])).await;
                times[0].push(begun.elapsed());
            }
            for _ in 0..ALONE {
                let begun = Instant::now();
                let _ = node.append("alone").await.expect("whoever waits is told");
                times[1].push(begun.elapsed());
            }
        }
        times
    });
    let middle = |times: &[Duration]| median(times.iter().map(Duration::as_secs_f64).collect());
    let ratio = middle(&kept) / middle(&published);
    println!("{:<44}{}", "a message of 200 B, alone", percentiles(kept));
    println!("{:<44}{}", "one that the client crate publishes", percentiles(published));
    println!("{:<44}{ratio:>10.2} times", "kept, relative to published");
}

/// Prints the CPU time of the engine for a published message, for one that the client crate keeps with plain commands, and for
/// one of a history: medians of alternating turns.
fn cost(server: &Server, engine: &Engine, node: &Node, topics: usize) {
    let publisher = server.run(engine.address().publisher());
    let channel = engine.address().channel("history", "room:0");
    let mut turns = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        let (node, channel) = (node.clone(), channel.clone());
        let [mut publishes, mut keeps] = [publisher.clone(), publisher.clone()];
        let messages = || (0..WAITING).map(|_| Bytes::from_static(&[b'x'; SIZE]));
        let before = engine.cpu();
        server.run(async move {
            publishes.publish(&channel, messages()).await;
            publishes.flush().await;
        });
        let published = engine.cpu();
        server.run(async move { keeps.keep(messages(), topics).await });
        let kept = engine.cpu();
        server.run(async move { node.append_many(topics).await });
        let used = [published - before, kept - published, engine.cpu() - kept];
        for (turns, used) in turns.iter_mut().zip(used) {
            turns.push(used.as_secs_f64() * 1e6 / WAITING as f64);
        }
    }
    let [published, plain, kept] = turns.map(median);
    println!(
        "{:<44}{published:.2} us published, {plain:.2} plainly kept, {kept:.2} kept: {:.2} and {:.2} times",
        format!("CPU of the engine, {topics} topics"),
        kept / published,
        kept / plain,
    );
}
