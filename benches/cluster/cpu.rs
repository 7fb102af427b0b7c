//! The CPU time of a node's thread per broadcast, beside the client crate's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tower_channels::cluster::Listen;
use tower_channels::{Payload, PubSub};

use super::engine::{Address, Publisher};
use super::frames::{EVENT, Sender, TOPIC, payload};
use super::support::server::Server;
use super::support::{Thread, median};

const SIZES: [usize; 2] = [160, 1024];
const TURNS: usize = 15;
/// Bursts per turn.
const BURSTS: usize = 100;
/// Broadcasts per burst.
const BURST: usize = 32;
const PAUSE: Duration = Duration::from_millis(1);
/// A topic without subscribers.
const UNWANTED: &str = "room:2";

/// What the bursts of a turn consist of.
#[derive(Clone)]
enum Load {
    Nothing,
    /// The client crate publishes the frames of a node that does not exist.
    Frames(Publisher, String, Arc<tokio::sync::Mutex<Sender>>),
    Broadcasts(PubSub, Payload),
}

impl Load {
    async fn burst(&mut self) {
        match self {
            Self::Nothing => {}
            Self::Frames(publisher, channel, sender) => {
                let mut sender = sender.lock().await;
                publisher.publish(channel, (0..BURST).map(|_| sender.next())).await;
            }
            Self::Broadcasts(node, payload) => {
                (0..BURST).for_each(|_| node.broadcast(TOPIC, EVENT, payload.clone()));
            }
        }
    }

    async fn turn(mut self) {
        for _ in 0..BURSTS {
            self.burst().await;
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(10 * PAUSE).await;
    }
}

pub(crate) fn run(engine: Address) {
    println!(
        "{:<52}{:>8}{:>8}{:>10}",
        "CPU of the thread per broadcast, us", "crate", "node", "limit"
    );
    for size in SIZES {
        send(engine, size);
        receive(engine, size);
    }
    println!();
}

/// What is published, where, and the thread whose CPU time counts.
struct Rows<'a> {
    publishing: &'a Server,
    loads: Vec<Load>,
    measured: &'a Server,
}

impl Rows<'_> {
    /// Returns the cost of a broadcast of each load but the first, in us, less that of the first: medians of
    /// alternating turns.
    fn costs<const N: usize>(&self) -> [f64; N] {
        let mut turns = vec![Vec::new(); N + 1];
        for _ in 0..TURNS {
            for (load, costs) in self.loads.iter().zip(&mut turns) {
                let before = self.measured.seconds(Thread::cpu);
                self.publishing.run(load.clone().turn());
                let used = self.measured.seconds(Thread::cpu) - before;
                costs.push(used * 1e6 / (BURSTS * BURST) as f64);
            }
        }
        let idle = turns.remove(0);
        let less_idle = |costs: Vec<f64>| {
            median(costs.into_iter().zip(&idle).map(|(cost, idle)| cost - idle).collect())
        };
        let costs: Vec<f64> = turns.into_iter().map(less_idle).collect();
        costs.try_into().unwrap_or_else(|_| panic!("a load each"))
    }
}

fn send(engine: Address, size: usize) {
    let server = Server::new(1);
    let raw = frames(&server, engine, "raw", TOPIC, 1, size);
    let echoed = frames(&server, engine, "echo", TOPIC, 1, size);
    let prefix = engine.channel("echo", "").trim_end_matches('0').to_owned();
    let _ear = server.run(async move { engine.hear(&prefix, || ()).await });
    let node = |app, listen| {
        let node = server.run(async move { engine.node(app, listen).await });
        Load::Broadcasts(node, payload(size))
    };
    let (all, topics) = (node("all", Listen::All), node("topics", Listen::Topics));
    // The node begins with hearing all topics.
    thread::sleep(Duration::from_secs(2));
    let loads = [Load::Nothing, raw, echoed, topics, all];
    let rows = Rows { publishing: &server, loads: loads.into(), measured: &server };
    let [raw, echoed, topics, all] = rows.costs();
    row(&format!("send {size} B"), raw, topics, 1.3 * raw + 0.5);
    row(&format!("send {size} B and hear the echo"), echoed, all, 1.3 * raw + 0.5 + echoed - raw);
}

fn receive(engine: Address, size: usize) {
    let [sending, receiving] = [Server::new(1), Server::new(1)];
    let raw = frames(&sending, engine, "raw", TOPIC, 1, size);
    let prefix = engine.channel("raw", "").trim_end_matches('0').to_owned();
    let _ear = receiving.run(async move { engine.hear(&prefix, || ()).await });
    let unwanted = frames(&sending, engine, "all", UNWANTED, 2, size);
    let wanted = frames(&sending, engine, "all", TOPIC, 3, size);
    let received = Arc::new(AtomicUsize::new(0));
    let count = received.clone();
    let _node = receiving.run(async move {
        let node = engine.node("all", Listen::All).await;
        let mut subscription = node.subscribe(TOPIC);
        tokio::spawn(async move {
            while subscription.recv().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Until it hears.
        tokio::time::sleep(Duration::from_millis(500)).await;
        node
    });
    let loads = [Load::Nothing, raw, unwanted, wanted];
    let rows = Rows { publishing: &sending, loads: loads.into(), measured: &receiving };
    let [raw, unwanted, wanted] = rows.costs();
    // All of it, unless the machine had no time for the engine.
    let (received, sent) = (received.load(Ordering::Relaxed), TURNS * BURSTS * BURST);
    assert!(received <= sent && received >= sent * 9 / 10, "received {received} of {sent}");
    row(&format!("receive {size} B that nobody wants"), raw, unwanted, raw + 0.2);
    row(&format!("receive {size} B, and a task reads it"), raw, wanted, raw + 1.0);
}

/// Frames that the client crate publishes.
fn frames(
    server: &Server,
    engine: Address,
    app: &'static str,
    topic: &'static str,
    node: u64,
    size: usize,
) -> Load {
    server.run(async move {
        let sender = Arc::new(tokio::sync::Mutex::new(Sender::new(node, topic, size)));
        Load::Frames(engine.publisher().await, engine.channel(app, topic), sender)
    })
}

fn row(what: &str, raw: f64, node: f64, limit: f64) {
    println!("{what:<52}{raw:>8.2}{node:>8.2}{limit:>10.2}");
}
