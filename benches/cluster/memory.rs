//! The memory of a node for each topic that it listens to.

use std::time::Duration;

use allocation_counter::measure;
use tower_channels::cluster::Listen;

use super::engine::Address;

const TOPICS: usize = 10_000;

pub(crate) fn run(engine: Address) {
    let [all, topics] = [Listen::All, Listen::Topics].map(|listen| held(engine, listen));
    println!("{:<52}{:>8}{:>18}", "bytes of the node", "", "limit");
    let what = "topic that is listened to, without its subscribers";
    println!("{what:<52}{:>8.0}{:>18}\n", topics - all, 200);
}

/// Returns the bytes held per topic that was subscribed to a moment ago.
fn held(engine: Address, listen: Listen) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
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
