//! What a delivery costs the server's thread with few connections and with many, beside a server that
//! answers with constants: the kernel's part grows there, too. Each server is new and alone, in turns.
//!
//! `cargo bench --bench growth`; `CONNECTIONS` (the most of them, default 9000) needs two file
//! descriptors each.

mod support;

use self::support::connections;
use self::support::crowd::{Crowd, Talk};
use self::support::least::Least;
use self::support::server::{Costs, Server};

const ROUNDS: usize = 5;
const TURNS: usize = 3;

fn main() {
    let sizes = [100, 1000, connections(9000, 2)];
    // By size, ours and the other.
    let mut costs = sizes.map(|_| [Costs::default(), Costs::default()]);
    for _ in 0..ROUNDS {
        for (&size, [ours, least]) in sizes.iter().zip(&mut costs) {
            let server = Server::new(1);
            let crowd = Crowd::join(server.rooms(), "room:a", size);
            let talk = crowd.learn("room:a", "new_msg", 64);
            turns(&server, ours, &crowd, &talk);
            drop((crowd, server));

            let server = Server::new(1);
            let other = Least::new(&server);
            other.answer(&talk);
            turns(&server, least, &Crowd::connect(other.address, size), &talk);
        }
    }
    println!("a delivery of 64 B, one message at a time, the server's CPU in us; medians\n");
    println!(
        "{:<13}{:>7}{:>8}{:>8}{:>10}{:>8}{:>18}",
        "connections", "us", "growth", "target", "least us", "growth", "growth to growth"
    );
    let [[few, least_few], ..] = &costs;
    for (size, [ours, least]) in sizes.iter().zip(&costs) {
        let [growth, least_growth] = [ours.ratio(few), least.ratio(least_few)];
        println!(
            "{size:<13}{:>7.2}{growth:>8.2}{:>8.2}{:>10.2}{least_growth:>8.2}{:>18.2}",
            ours.us(),
            1.20,
            least.us(),
            growth / least_growth
        );
    }
}

fn turns(server: &Server, costs: &mut Costs, crowd: &Crowd, talk: &Talk) {
    // The first message of all fills what is kept.
    crowd.publish(talk, 1, 1);
    (0..TURNS).for_each(|_| server.turn(costs, || crowd.publish(talk, 1, 1)));
}
