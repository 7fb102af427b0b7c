//! Server CPU per delivery with few connections and with many, compared with a baseline server that
//! returns canned responses, since the kernel's share grows for both. Each measurement starts a new
//! server, in alternating turns.
//!
//! `cargo bench --bench growth`; each of `CONNECTIONS` (the largest number, default 9000) needs two
//! file descriptors.

mod support;

use self::support::baseline::Baseline;
use self::support::connections;
use self::support::crowd::{Crowd, Exchange};
use self::support::server::{Costs, Server};

const ROUNDS: usize = 5;
const TURNS: usize = 3;

fn main() {
    let sizes = [100, 1000, connections(9000, 2)];
    // By size: ours and the baseline.
    let mut costs = sizes.map(|_| [Costs::default(), Costs::default()]);
    for _ in 0..ROUNDS {
        for (&size, [ours, baseline]) in sizes.iter().zip(&mut costs) {
            let server = Server::new(1);
            let crowd = Crowd::join(server.rooms(), "room:a", size);
            let exchange = crowd.record("room:a", "new_msg", 64);
            turns(&server, ours, &crowd, &exchange);
            drop((crowd, server));

            let server = Server::new(1);
            let other = Baseline::new(&server);
            other.set_exchange(&exchange);
            turns(&server, baseline, &Crowd::connect(other.address, size), &exchange);
        }
    }
    println!("delivery of 64 B, one message in flight; server CPU in us; medians\n");
    println!(
        "{:<13}{:>7}{:>8}{:>8}{:>10}{:>8}{:>18}",
        "connections", "us", "growth", "target", "base us", "growth", "growth ratio"
    );
    let [[few, baseline_few], ..] = &costs;
    for (size, [ours, baseline]) in sizes.iter().zip(&costs) {
        let [growth, baseline_growth] = [ours.ratio(few), baseline.ratio(baseline_few)];
        println!(
            "{size:<13}{:>7.2}{growth:>8.2}{:>8.2}{:>10.2}{baseline_growth:>8.2}{:>18.2}",
            ours.us(),
            1.20,
            baseline.us(),
            growth / baseline_growth
        );
    }
}

fn turns(server: &Server, costs: &mut Costs, crowd: &Crowd, exchange: &Exchange) {
    // Warm up with a first message.
    crowd.publish(exchange, 1, 1);
    (0..TURNS).for_each(|_| server.turn(costs, || crowd.publish(exchange, 1, 1)));
}
