//! CPU of all server threads per echo and per delivery on one and on two workers, compared with a
//! baseline server that returns canned responses, since the kernel's share grows for both. There
//! are enough rooms to occupy both workers. Everything runs in one process over loopback, in
//! alternating turns.
//!
//! `cargo bench --bench workers`; each of `CONNECTIONS` (default 1000) needs eight file
//! descriptors.

mod support;

use std::sync::Arc;

use self::support::baseline::Baseline;
use self::support::connections;
use self::support::crowd::{Crowd, Exchange};
use self::support::server::{Costs, Server};

const WORKERS: [usize; 2] = [1, 2];
const ROOMS: usize = 4;
const TURNS: usize = 15;
const ECHO_CLIENTS: usize = 64;

/// A server with its rooms, and baselines with the same rooms.
struct Setup {
    server: Server,
    baselines: Vec<Baseline>,
    /// Crowds of ours and of the baseline.
    crowds: [Vec<Crowd>; 2],
}

impl Setup {
    fn new(workers: usize, connections: usize) -> Self {
        let server = Server::new(workers);
        let (size, address) = (connections / ROOMS, server.rooms());
        let ours = (0..ROOMS).map(|room| Crowd::join(address, &topic(room), size)).collect();
        let baselines: Vec<_> = (0..ROOMS).map(|_| Baseline::new(&server)).collect();
        let others = baselines.iter().map(|room| Crowd::connect(room.address, size)).collect();
        Self { server, baselines, crowds: [ours, others] }
    }
}

fn topic(room: usize) -> String {
    format!("room:{room}")
}

fn main() {
    let connections = connections(1000, 8);
    let setups = WORKERS.map(|workers| Setup::new(workers, connections));
    println!("{ROOMS} rooms, {connections} connections; server CPU in us; medians\n");
    println!(
        "{:<36}{:>8}{:>8}{:>7}{:>8}{:>10}{:>8}{:>7}",
        "workers", "1", "2", "ratio", "target", "base 1", "2", "ratio"
    );
    row("echo of 64 B, 64 clients", &setups, "ping", |rooms| {
        let (room, exchange) = rooms[0];
        room.echo(exchange, ECHO_CLIENTS, 16)
    });
    row("delivery of 64 B, one per room", &setups, "new_msg", |rooms| {
        rooms.iter().for_each(|(room, exchange)| room.send(exchange, 1));
        rooms.iter().map(|(room, exchange)| room.receive(exchange)).sum()
    });
}

type Rooms<'a> = [(&'a Crowd, &'a Arc<Exchange>)];

fn row(what: &str, setups: &[Setup; 2], event: &str, work: impl Fn(&Rooms<'_>) -> usize) {
    // By number of workers: ours and the baseline.
    let mut costs = WORKERS.map(|_| [Costs::default(), Costs::default()]);
    let rooms = setups[0].crowds[0].iter().enumerate();
    let exchanges: Vec<_> =
        rooms.map(|(room, crowd)| crowd.record(&topic(room), event, 64)).collect();
    for setup in setups {
        setup
            .baselines
            .iter()
            .zip(&exchanges)
            .for_each(|(room, exchange)| room.set_exchange(exchange));
    }
    for _ in 0..TURNS {
        for (setup, costs) in setups.iter().zip(&mut costs) {
            for (crowds, costs) in setup.crowds.iter().zip(costs) {
                let rooms: Vec<_> = crowds.iter().zip(&exchanges).collect();
                setup.server.turn(costs, || work(&rooms));
            }
        }
    }
    let [one, two] = &costs;
    println!(
        "{what:<36}{:>8.2}{:>8.2}{:>7.2}{:>8.2}{:>10.2}{:>8.2}{:>7.2}",
        one[0].us(),
        two[0].us(),
        two[0].ratio(&one[0]),
        1.25,
        one[1].us(),
        two[1].us(),
        two[1].ratio(&one[1])
    );
}
