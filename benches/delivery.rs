//! What the server's thread uses for an echo and for a delivery, beside the least that is possible, a
//! server that answers with constants, in one write each, and looks at nothing; and beside what one
//! writes by hand on axum. All serve in one thread, over loopback, in turns.
//!
//! `cargo bench --bench delivery`; `CONNECTIONS` (default 1000) needs six file descriptors each.

mod support;

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use self::support::crowd::{Crowd, Talk};
use self::support::least::Least;
use self::support::server::{Costs, Server};
use self::support::{by_hand, connections};

const TURNS: usize = 15;
const ASKING: usize = 64;
/// How many messages leave in one go when some are always under way.
const MESSAGES: usize = 12;
const PERIOD: Duration = Duration::from_millis(50);

fn main() {
    let connections = connections(1000, 6);
    let server = Server::new(1);
    let least = Least::new(&server);
    let crowds = [
        Crowd::join(server.rooms(), "room:a", connections),
        Crowd::connect(least.address, connections),
        Crowd::join(by_hand::room(&server), "room:a", connections),
    ];
    let [ping, long_ping] = [64, 1024].map(|size| crowds[0].learn("room:a", "ping", size));
    let [text, long_text] = [64, 1024].map(|size| crowds[0].learn("room:a", "new_msg", size));

    println!("{connections} connections, the server's CPU in us, of that in user space; medians\n");
    println!(
        "{:<38}{:>7}{:>7}{:>8}{:>10}{:>7}{:>7}{:>8}{:>12}{:>7}",
        "", "us", "user", "target", "least us", "user", "ratio", "target", "by hand us", "ratio"
    );
    let row = |what: &str, talk, user: &str, target: f64, work: &dyn Fn(&Crowd) -> usize| {
        least.answer(talk);
        let mut costs: [Costs; 3] = Default::default();
        for _ in 0..TURNS {
            for (costs, crowd) in costs.iter_mut().zip(&crowds) {
                server.turn(costs, || work(crowd));
            }
        }
        let [ours, least, by_hand] = costs;
        println!(
            "{what:<38}{:>7.2}{:>7.2}{user:>8}{:>10.2}{:>7.2}{:>7.2}{target:>8.2}{:>12.2}{:>7.2}",
            ours.us(),
            ours.user_us(),
            least.us(),
            least.user_us(),
            ours.ratio(&least),
            by_hand.us(),
            by_hand.ratio(&least)
        );
    };
    let echo = |talk: &Talk, crowd: &Crowd| crowd.echo(talk, ASKING, 16);
    row("an echo of 64 B, 64 clients ask", &ping, "", 1.25, &|crowd| echo(&ping, crowd));
    row("an echo of 1 KiB", &long_ping, "", 1.25, &|crowd| echo(&long_ping, crowd));
    let one = |crowd: &Crowd| crowd.publish(&text, 1, 1);
    row("a delivery of 64 B, one message", &text, "0.80", 1.10, &one);
    let due = Cell::new(Instant::now());
    row("20 messages a second", &text, "0.80", 1.10, &|crowd| {
        thread::sleep(due.get().saturating_duration_since(Instant::now()));
        due.set(Instant::now().max(due.get() + PERIOD));
        one(crowd)
    });
    let four = |talk: &Talk, crowd: &Crowd| crowd.publish(talk, 4, MESSAGES);
    row("four messages under way", &text, "0.80", 1.10, &|crowd| four(&text, crowd));
    row("1 KiB, four messages under way", &long_text, "0.80", 1.10, &|crowd| {
        four(&long_text, crowd)
    });
}
