//! The cost of a join and of a broadcast to a room of 100 among few topics and among many. They
//! alternate on one thread without a network, and ratios are taken per turn.
//!
//! `cargo bench --bench topics`

mod support;

use std::hint::black_box;

use serde_json::json;
use tokio::runtime::Runtime;
use tower_channels::test::{Client, connect};
use tower_channels::{Endpoint, Payload};

use self::support::room::Silent;
use self::support::{Thread, median};

const TOPICS: [usize; 4] = [1, 100, 10_000, 100_000];
const ROOM: usize = 100;
const JOINS: usize = 100;
const BROADCASTS: usize = 100;
const TURNS: usize = 40;

/// An endpoint with the given number of topics.
struct Setup {
    endpoint: Endpoint<()>,
    crowd: Vec<Client<()>>,
    /// Has joined all other topics.
    _others: Client<()>,
}

impl Setup {
    async fn new(topics: usize) -> Self {
        let endpoint = Endpoint::builder(|_| async { Ok(()) })
            .channel::<Silent<_>>("room:*")
            .max_channels(topics)
            .build();
        let mut others = connect(&endpoint, &[]).await.expect("connects");
        for index in 1..topics {
            others.join(&format!("room:other-{index}"), json!({})).await;
        }
        let mut crowd = Vec::new();
        for _ in 0..ROOM {
            let mut client = connect(&endpoint, &[]).await.expect("connects");
            client.join("room:1", json!({})).await;
            crowd.push(client);
        }
        Self { endpoint, crowd, _others: others }
    }

    /// Connects clients that join `topic`, or a separate new topic each, and then drops all of
    /// them.
    async fn join(&self, topic: Option<&str>) {
        let mut clients = Vec::with_capacity(JOINS);
        for index in 0..JOINS {
            let mut client = connect(&self.endpoint, &[]).await.expect("connects");
            let own = format!("room:own-{index}");
            client.join(topic.unwrap_or(&own), json!({})).await;
            clients.push(client);
        }
        drop(clients);
        // Include the cleanup in the same turn.
        tokio::task::yield_now().await;
    }

    async fn broadcast(&mut self, payload: &Payload) {
        for _ in 0..BROADCASTS {
            self.endpoint.broadcast("room:1", "new_msg", black_box(payload.clone()));
        }
        let received = self.crowd.iter_mut().map(Client::discard).sum::<usize>();
        assert_eq!(received, ROOM * BROADCASTS);
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut setups = TOPICS.map(|topics| runtime.block_on(Setup::new(topics)));
    let payload = Payload::from(json!({ "body": "x".repeat(64) }));

    println!("CPU in us by number of topics, and ratio to the first; medians\n");
    print!("{:<40}", "topics");
    TOPICS.iter().for_each(|topics| print!("{topics:>15}"));
    println!("{:>9}", "target");
    table("connect, join a room of 100, drop", JOINS, &runtime, &mut setups, &mut async |setup| {
        setup.join(Some("room:1")).await;
    });
    table("connect, join a new topic, drop", JOINS, &runtime, &mut setups, &mut async |setup| {
        setup.join(None).await;
    });
    table("broadcast to a room of 100", BROADCASTS, &runtime, &mut setups, &mut async |setup| {
        setup.broadcast(&payload).await;
    });
}

fn table(
    what: &str,
    count: usize,
    runtime: &Runtime,
    setups: &mut [Setup; TOPICS.len()],
    work: &mut impl AsyncFnMut(&mut Setup),
) {
    let thread = Thread::current();
    let mut spent = [const { Vec::new() }; TOPICS.len()];
    for turn in 0..=TURNS {
        for (setup, spent) in setups.iter_mut().zip(&mut spent) {
            // The thread clock advances when the thread yields.
            std::thread::yield_now();
            let before = thread.cpu();
            runtime.block_on(work(setup));
            std::thread::yield_now();
            // The first turn is a warm-up.
            if turn > 0 {
                spent.push((thread.cpu() - before).as_secs_f64() * 1e6 / count as f64);
            }
        }
    }
    let first = spent[0].clone();
    print!("{what:<40}");
    for spent in spent {
        let ratios = spent.iter().zip(&first).map(|(many, one)| many / one).collect();
        print!("{:>9.2}{:>6.2}", median(spent), median(ratios));
    }
    println!("{:>9}", "1.20");
}
