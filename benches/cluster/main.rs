//! What several nodes cost, beside the client crates of their engines.
//!
//! `cargo bench --bench cluster`, with the programs of the engines in `REDIS_SERVER`, `VALKEY_SERVER` and
//! `NATS_SERVER`; one that is not set is skipped. Arguments choose parts: `in_memory`, `latency`, `cpu`, `waits`,
//! `memory`, `relay`, `moves`; and `crowd`, which runs only if it is chosen: a rolling restart under `CROWD` clients, 3000
//! by default.

mod connection;
mod cpu;
mod crowd;
mod engine;
mod frames;
mod in_memory;
mod latency;
mod memory;
mod moves;
mod relay;
#[path = "../support/mod.rs"]
mod support;
mod travel;
mod waits;

use tower_channels::cluster::Listen;
use tower_channels::test::Bus;
use tower_channels::{PubSub, PubSubConfig};

use self::engine::Engine;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let is_chosen = |part: &str| arguments.is_empty() || arguments.iter().any(|it| it == part);
    if is_chosen("in_memory") {
        in_memory::run();
    }
    if is_chosen("moves") {
        println!("an engine in memory\n");
        let bus = Bus::new();
        moves::run(|| {
            let config = PubSubConfig::new().adapter(bus.adapter());
            async { PubSub::with_config(config).expect("it is valid") }
        });
    }
    for name in Engine::NAMES {
        let Some(mut engine) = Engine::start(name) else {
            println!("{name}: skipped, its program is not set\n");
            continue;
        };
        println!("{name}\n");
        if is_chosen("latency") {
            latency::run(engine.address());
        }
        if is_chosen("cpu") {
            cpu::run(engine.address());
        }
        if is_chosen("relay") {
            relay::run(engine.address());
        }
        if is_chosen("moves") {
            let address = engine.address();
            moves::run(|| async move { address.node("moves", Listen::All).await });
        }
        if arguments.iter().any(|it| it == "crowd") {
            crowd::run(engine.address());
        }
        if is_chosen("memory") {
            memory::run(engine.address());
        }
        if is_chosen("waits") {
            waits::run(&mut engine);
        }
    }
}
