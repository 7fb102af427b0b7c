//! What several nodes cost, beside the client crates of their engines.
//!
//! `cargo bench --bench cluster`, with the programs of the engines in `REDIS_SERVER`, `VALKEY_SERVER` and
//! `NATS_SERVER`; one that is not set is skipped. Arguments choose parts: `in_memory`, `latency`, `cpu`, `waits`,
//! `memory`, `relay`, `moves`, `history`, `kept`, `catch_up`. Some run only if they are chosen: `crowd`, a rolling restart
//! under `CROWD` clients, 3000 by default; `killed`, the same where nodes are killed and rooms have a history; and
//! `killed_in_memory`, that with 10,000 clients that connect in memory.

mod catch_up;
mod connection;
mod cpu;
mod crowd;
mod engine;
mod frames;
mod history;
mod in_memory;
mod kept;
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

use self::crowd::Form;
use self::engine::Engine;
use self::support::setting;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let is_chosen = |part: &str| arguments.is_empty() || arguments.iter().any(|it| it == part);
    if is_chosen("in_memory") {
        in_memory::run();
    }
    if is_chosen("kept") {
        kept::in_memory();
        println!();
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
        for (part, clients, kills, in_memory) in [
            ("crowd", setting("CROWD", 3000), false, false),
            ("killed", setting("CROWD", 3000), true, false),
            ("killed_in_memory", setting("CROWD", 10_000), true, true),
        ] {
            if arguments.iter().any(|it| it == part) {
                crowd::run(engine.address(), Form { clients, kills, in_memory });
            }
        }
        if is_chosen("history") {
            history::run(&engine);
        }
        if is_chosen("kept") {
            kept::over(engine.address());
            println!();
        }
        if is_chosen("memory") {
            memory::run(engine.address());
        }
        if is_chosen("waits") {
            waits::run(&mut engine);
        }
        drop(engine);
        if is_chosen("catch_up") {
            catch_up::run(&mut Engine::start_durable(name).expect("its program is set"));
        }
    }
}
