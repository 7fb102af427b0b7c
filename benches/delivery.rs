//! Server CPU per echo and per delivery, compared with a baseline server that returns canned
//! responses without parsing, and with a hand-written axum server. All run on one thread over
//! loopback, in alternating turns.
//!
//! `cargo bench --bench delivery`; each of `CONNECTIONS` (default 1000) needs six file descriptors.

mod support;

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use self::support::baseline::Baseline;
use self::support::crowd::{Crowd, Exchange};
use self::support::server::{Costs, Server};
use self::support::{by_hand, connections};

const TURNS: usize = 15;
const ECHO_CLIENTS: usize = 64;
/// The number of messages per run when several are in flight.
const MESSAGES: usize = 12;
const PERIOD: Duration = Duration::from_millis(50);

fn main() {
    let connections = connections(1000, 6);
    let server = Server::new(1);
    let baseline = Baseline::new(&server);
    let crowds = [
        Crowd::join(server.rooms(), "room:a", connections),
        Crowd::connect(baseline.address, connections),
        Crowd::join(by_hand::room(&server), "room:a", connections),
    ];
    let [ping, long_ping] = [64, 1024].map(|size| crowds[0].record("room:a", "ping", size));
    let [text, long_text] = [64, 1024].map(|size| crowds[0].record("room:a", "new_msg", size));

    println!("{connections} connections; server CPU in us, total and in user space; medians\n");
    println!(
        "{:<38}{:>7}{:>7}{:>8}{:>10}{:>7}{:>7}{:>8}{:>12}{:>7}",
        "", "us", "user", "target", "base us", "user", "ratio", "target", "by hand us", "ratio"
    );
    let row = |what: &str, exchange, user: &str, target: f64, work: &dyn Fn(&Crowd) -> usize| {
        baseline.set_exchange(exchange);
        let mut costs: [Costs; 3] = Default::default();
        for _ in 0..TURNS {
            for (costs, crowd) in costs.iter_mut().zip(&crowds) {
                server.turn(costs, || work(crowd));
            }
        }
        let [ours, baseline, by_hand] = costs;
        println!(
            "{what:<38}{:>7.2}{:>7.2}{user:>8}{:>10.2}{:>7.2}{:>7.2}{target:>8.2}{:>12.2}{:>7.2}",
            ours.us(),
            ours.user_us(),
            baseline.us(),
            baseline.user_us(),
            ours.ratio(&baseline),
            by_hand.us(),
            by_hand.ratio(&baseline)
        );
    };
    let echo = |exchange: &Exchange, crowd: &Crowd| crowd.echo(exchange, ECHO_CLIENTS, 16);
    row("echo of 64 B, 64 clients", &ping, "", 1.25, &|crowd| echo(&ping, crowd));
    row("echo of 1 KiB, 64 clients", &long_ping, "", 1.25, &|crowd| echo(&long_ping, crowd));
    let one = |crowd: &Crowd| crowd.publish(&text, 1, 1);
    row("delivery of 64 B, one in flight", &text, "0.80", 1.10, &one);
    let due = Cell::new(Instant::now());
    row("delivery of 64 B, 20 messages/s", &text, "0.80", 1.10, &|crowd| {
        thread::sleep(due.get().saturating_duration_since(Instant::now()));
        due.set(Instant::now().max(due.get() + PERIOD));
        one(crowd)
    });
    let four = |exchange: &Exchange, crowd: &Crowd| crowd.publish(exchange, 4, MESSAGES);
    row("delivery of 64 B, four in flight", &text, "0.80", 1.10, &|crowd| four(&text, crowd));
    row("delivery of 1 KiB, four in flight", &long_text, "0.80", 1.10, &|crowd| {
        four(&long_text, crowd)
    });
}
