//! What a node itself costs, without an engine.

use std::hint::black_box;
use std::time::Instant;

use allocation_counter::measure;
use bytes::Bytes;
use serde_json::json;
use tokio::runtime::Runtime;
use tower_channels::test::{Client, connect};
use tower_channels::{Endpoint, PubSub};

use super::frames::{EVENT, Nowhere, Sender, TOPIC, payload};
use super::support::median;
use super::support::room::Silent;

const SIZE: usize = 160;
const TURNS: usize = 101;
const TIMES: usize = 1000;

pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let _inside = runtime.enter();
    let nowhere = Nowhere::default();
    let (with, without) = (nowhere.node(), PubSub::new());
    println!("in memory, {SIZE} B: ns and allocations\n");
    println!("{:<52}{:>8}{:>8}", "", "ns", "allocs");

    let payload = payload(SIZE);
    let broadcast = |pubsub: &PubSub| pubsub.broadcast(TOPIC, EVENT, black_box(payload.clone()));
    row("broadcast to nobody", || (), |()| broadcast(&without));
    row("the same with an adapter", || (), |()| broadcast(&with));

    let own = nowhere.last();
    row("its echo", || own.clone(), |frame| nowhere.receive(frame));
    let mut sender = Sender::new(1, TOPIC, SIZE);
    row(
        "a broadcast of another node that nobody wants",
        || sender.next(),
        |frame: Bytes| {
            nowhere.receive(frame);
        },
    );

    let mut local = join(&runtime, without.clone());
    row_read("broadcast to one client", &mut local, || (), |()| broadcast(&without));
    let mut client = join(&runtime, with.clone());
    row_read(
        "the same of another node",
        &mut client,
        || sender.next(),
        |frame| {
            nowhere.receive(frame);
        },
    );
    println!();
}

/// Returns a client of the topic.
fn join(runtime: &Runtime, pubsub: PubSub) -> Client<()> {
    let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Silent>("room:*");
    let endpoint = endpoint.pubsub(pubsub).build();
    let mut client = runtime.block_on(connect(&endpoint, &[])).expect("connects");
    runtime.block_on(client.join(TOPIC, json!({})));
    client.discard();
    client
}

/// Measures `work`, to which `prepare` is no part.
fn row<T>(what: &str, prepare: impl FnMut() -> T, work: impl FnMut(T)) {
    measured(what, prepare, work, || ());
}

/// Measures `work`, of which a client receives one message each.
fn row_read<T>(
    what: &str,
    client: &mut Client<()>,
    prepare: impl FnMut() -> T,
    work: impl FnMut(T),
) {
    measured(what, prepare, work, || assert_eq!(client.discard(), TIMES));
}

fn measured<T>(
    what: &str,
    mut prepare: impl FnMut() -> T,
    mut work: impl FnMut(T),
    mut end: impl FnMut(),
) {
    let mut turns = Vec::new();
    let mut allocations = 0;
    for _ in 0..TURNS {
        let prepared: Vec<T> = (0..TIMES).map(|_| prepare()).collect();
        let mut took = 0.0;
        let counted = measure(|| {
            let began = Instant::now();
            prepared.into_iter().for_each(&mut work);
            took = began.elapsed().as_nanos() as f64;
        });
        turns.push(took / TIMES as f64);
        allocations = counted.count_total;
        end();
    }
    println!("{what:<52}{:>8.0}{:>8.2}", median(turns), allocations as f64 / TIMES as f64);
}
