//! The cost of a join and of a broadcast to a room of 100 among few topics and among many. They
//! alternate on one thread without a network, and ratios are taken per turn. And what a crowd on one
//! topic costs the others: a broadcast after it has left, and a join while it receives broadcasts.
//!
//! `cargo bench --bench topics`

mod support;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

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
const CROWD: usize = 100_000;

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
    drop(setups);
    let mut setup = runtime.block_on(Setup::new(1));
    setup.crowd.truncate(1);
    settle(&runtime);
    println!();
    after_a_crowd(&runtime, &mut setup, &payload);
    beside_a_crowd(&runtime, &mut setup, &payload);
}

/// A broadcast to one subscriber, before a crowd has come to its topic and after it has left.
fn after_a_crowd(runtime: &Runtime, setup: &mut Setup, payload: &Payload) {
    let broadcast = |setup: &mut Setup| {
        let mut each = Vec::new();
        for _ in 0..TURNS {
            let began = Instant::now();
            for _ in 0..BROADCASTS {
                setup.endpoint.broadcast("room:1", "new_msg", black_box(payload.clone()));
            }
            each.push(began.elapsed().as_secs_f64() * 1e6 / BROADCASTS as f64);
            setup.crowd[0].discard();
        }
        median(each)
    };
    // The first turns fill what is kept.
    broadcast(setup);
    let before = broadcast(setup);
    drop(runtime.block_on(crowd(&setup.endpoint, CROWD)));
    settle(runtime);
    let after = broadcast(setup);
    println!("one subscriber after {CROWD} came and went: a broadcast takes {after:.2} us");
    println!("one subscriber before: {before:.2} us; the ratio is {:.2}\n", after / before);
}

/// Joins of a topic while another thread broadcasts to its crowd.
fn beside_a_crowd(runtime: &Runtime, setup: &mut Setup, payload: &Payload) {
    let mut all = runtime.block_on(crowd(&setup.endpoint, CROWD));
    let thread = Thread::current();
    // Without the time in which the thread could have run but for the others of a busy machine.
    let joins = |runtime: &Runtime, until: &dyn Fn(usize) -> bool| {
        let mut waits = Vec::new();
        while !until(waits.len()) {
            let mut client = runtime.block_on(connect(&setup.endpoint, &[])).expect("connects");
            let (began, waited) = (Instant::now(), thread.waited());
            runtime.block_on(client.join("room:1", json!({})));
            let elapsed = began.elapsed().saturating_sub(thread.waited() - waited);
            waits.push(elapsed.as_secs_f64() * 1e6);
        }
        waits.sort_by(f64::total_cmp);
        waits
    };
    let alone = joins(runtime, &|count| count == 30_000);
    let done = AtomicBool::new(false);
    let (waits, walks) = thread::scope(|scope| {
        let broadcaster = scope.spawn(|| {
            let walk = || {
                let began = Instant::now();
                setup.endpoint.broadcast("room:1", "new_msg", black_box(payload.clone()));
                began.elapsed().as_secs_f64() * 1e3
            };
            let walks: Vec<_> = (0..20).map(|_| walk()).collect();
            done.store(true, Ordering::Relaxed);
            walks
        });
        let waits = joins(runtime, &|_| done.load(Ordering::Relaxed));
        (waits, broadcaster.join().expect("no panic"))
    });
    let received: usize = all.iter_mut().map(Client::discard).sum();
    assert_eq!(received, CROWD * walks.len());
    let row = |what: &str, waits: &[f64]| {
        let at = |part: usize| waits[(waits.len() - 1) * part / 1000];
        print!("{what:<40}");
        [500, 990, 999, 1000].iter().for_each(|&part| print!("{:>9.1}", at(part)));
        println!();
    };
    let head = ["median", "p99", "p99.9", "longest"];
    print!("{:<40}", format!("a join in us, beside {CROWD}"));
    head.iter().for_each(|column| print!("{column:>9}"));
    println!();
    row("alone", &alone);
    row("while broadcasts reach them", &waits);
    println!("one broadcast to {CROWD} takes {:.1} ms", median(walks));
}

/// Lets the channels of clients that are gone end.
fn settle(runtime: &Runtime) {
    runtime.block_on(async { tokio::time::sleep(Duration::from_secs(2)).await });
}

async fn crowd(endpoint: &Endpoint<()>, size: usize) -> Vec<Client<()>> {
    let mut clients = Vec::with_capacity(size);
    for _ in 0..size {
        let mut client = connect(endpoint, &[]).await.expect("connects");
        client.join("room:1", json!({})).await;
        clients.push(client);
    }
    clients
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
