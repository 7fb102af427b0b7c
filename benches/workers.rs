//! What all threads of a server use for an echo and for a delivery on two workers, against one, beside
//! a server that answers with constants: the kernel's part grows there, too. There are rooms enough for
//! both workers. All of it in one process, over loopback, in turns.
//!
//! `cargo bench --bench workers`; `CONNECTIONS` (default 1000) needs eight file descriptors each.

mod support;

use std::sync::Arc;

use self::support::connections;
use self::support::crowd::{Crowd, Talk};
use self::support::least::Least;
use self::support::server::{Costs, Server};

const WORKERS: [usize; 2] = [1, 2];
const ROOMS: usize = 4;
const TURNS: usize = 15;
const ASKING: usize = 64;

/// The same rooms on both servers.
struct Place {
    server: Server,
    least: Vec<Least>,
    /// Ours, and the other's.
    crowds: [Vec<Crowd>; 2],
}

impl Place {
    fn new(workers: usize, connections: usize) -> Self {
        let server = Server::new(workers);
        let (size, address) = (connections / ROOMS, server.rooms());
        let ours = (0..ROOMS).map(|room| Crowd::join(address, &topic(room), size)).collect();
        let least: Vec<_> = (0..ROOMS).map(|_| Least::new(&server)).collect();
        let others = least.iter().map(|room| Crowd::connect(room.address, size)).collect();
        Self { server, least, crowds: [ours, others] }
    }
}

fn topic(room: usize) -> String {
    format!("room:{room}")
}

fn main() {
    let connections = connections(1000, 8);
    let places = WORKERS.map(|workers| Place::new(workers, connections));
    println!("{ROOMS} rooms, {connections} connections, the server's CPU in us; medians\n");
    println!(
        "{:<36}{:>8}{:>8}{:>7}{:>8}{:>10}{:>8}{:>7}",
        "workers", "1", "2", "ratio", "target", "least 1", "2", "ratio"
    );
    row("an echo of 64 B, 64 clients ask", &places, "ping", |rooms| {
        let (room, talk) = rooms[0];
        room.echo(talk, ASKING, 16)
    });
    row("a delivery of 64 B, one in each room", &places, "new_msg", |rooms| {
        rooms.iter().for_each(|(room, talk)| room.say(talk, 1));
        rooms.iter().map(|(room, talk)| room.hear(talk)).sum()
    });
}

type Rooms<'a> = [(&'a Crowd, &'a Arc<Talk>)];

fn row(what: &str, places: &[Place; 2], event: &str, work: impl Fn(&Rooms<'_>) -> usize) {
    // By workers, ours and the other.
    let mut costs = WORKERS.map(|_| [Costs::default(), Costs::default()]);
    let rooms = places[0].crowds[0].iter().enumerate();
    let talks: Vec<_> = rooms.map(|(room, crowd)| crowd.learn(&topic(room), event, 64)).collect();
    for place in places {
        place.least.iter().zip(&talks).for_each(|(room, talk)| room.answer(talk));
    }
    for _ in 0..TURNS {
        for (place, costs) in places.iter().zip(&mut costs) {
            for (crowds, costs) in place.crowds.iter().zip(costs) {
                let rooms: Vec<_> = crowds.iter().zip(&talks).collect();
                place.server.turn(costs, || work(&rooms));
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
