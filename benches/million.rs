//! A million joined sessions in one process, a hundred to a room: what they hold, and whether a room
//! notices the others. One thread does everything, with the clients of `tower_channels::test`; what
//! those hold is counted, too.
//!
//! `cargo bench --bench million`; `SESSIONS=100000` makes it smaller.

mod support;

use std::fs;
use std::io::Write;
use std::time::Instant;

use allocation_counter::measure;
use serde_json::json;
use tokio::runtime::Runtime;
use tower_channels::test::{Client, connect};
use tower_channels::{Endpoint, Payload};

use self::support::room::Silent;
use self::support::{median, setting};

const ROOM: usize = 100;
/// What the many are compared with.
const FEW: usize = 10_000;
const BROADCASTS: usize = 2000;

/// All of a room are neighbours in `clients`, but have come one by one to every room in turn.
struct Place {
    runtime: Runtime,
    endpoint: Endpoint<()>,
    clients: Vec<Vec<Client<()>>>,
}

impl Place {
    fn new(sessions: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let endpoint =
            Endpoint::builder(|_| async { Ok(()) }).channel::<Silent<_>>("room:*").build();
        let mut clients: Vec<_> = (0..sessions / ROOM).map(|_| Vec::with_capacity(ROOM)).collect();
        let began = Instant::now();
        for turn in 1..=ROOM {
            for (room, clients) in clients.iter_mut().enumerate() {
                let join = async {
                    let mut client = connect(&endpoint, &[]).await.expect("connects");
                    client.join(&format!("room:{room}"), json!({})).await;
                    client
                };
                clients.push(runtime.block_on(join));
            }
            let (joined, seconds) = (turn * clients.len(), began.elapsed().as_secs());
            eprint!("\r{joined} of {sessions} sessions, {seconds} s, {:.2} GiB ", gib(resident()));
            std::io::stderr().flush().expect("written");
        }
        eprintln!();
        Self { runtime, endpoint, clients }
    }

    /// How long a broadcast takes until it is queued for everyone, in us, the median: to one room again
    /// and again, or to each in turn.
    fn broadcast(&mut self, turns: bool) -> f64 {
        let _inside = self.runtime.enter();
        let payload = Payload::from(json!({ "body": "x".repeat(64) }));
        let rooms = self.clients.len();
        let mut spent = Vec::new();
        for at in 0..BROADCASTS {
            // Not the one beside the last, which a cache might know.
            let room = if turns { at * 7919 % rooms } else { 0 };
            let topic = format!("room:{room}");
            let began = Instant::now();
            self.endpoint.broadcast(&topic, "new_msg", payload.clone());
            spent.push(began.elapsed().as_secs_f64() * 1e6);
            let received = self.clients[room].iter_mut().map(Client::discard).sum::<usize>();
            assert_eq!(received, ROOM);
        }
        median(spent)
    }
}

fn main() {
    let sessions = setting("SESSIONS", 1_000_000);
    let mut few = Place::new(FEW);
    let mut many = None;
    let resident_before = resident();
    let heap = measure(|| many = Some(Place::new(sessions))).bytes_current;
    let mut many = many.expect("made");
    let resident = resident() - resident_before;
    let rooms = many.clients.len();
    let each = |bytes: f64| bytes / (rooms * ROOM) as f64;

    println!("{} sessions in {rooms} rooms\n", rooms * ROOM);
    println!("{:<52}{:>12}{:>12}", "", "", "target");
    println!("{:<52}{:>8.2} GiB{:>8} GiB", "resident memory, with their clients", gib(resident), 8);
    println!("{:<52}{:>12.0}", "the same for each, in bytes", each(resident as f64));
    println!("{:<52}{:>12.0}", "of that in the heap", each(heap as f64));
    println!(
        "\n{:<40}{:>12}{:>12}{:>9}",
        "a broadcast to a room of 100, in us", FEW, sessions, "ratio"
    );
    for (what, turns) in [("the same room", false), ("each room in turn", true)] {
        // Warm, and then in turns.
        for place in [&mut few, &mut many] {
            place.broadcast(turns);
        }
        let (mut all, mut ratios) = ([const { Vec::new() }; 2], Vec::new());
        for _ in 0..7 {
            let [few, many] = [&mut few, &mut many].map(|place| place.broadcast(turns));
            all[0].push(few);
            all[1].push(many);
            ratios.push(many / few);
        }
        let [few, many] = all.map(median);
        let ratio = median(ratios);
        println!("{what:<40}{few:>12.1}{many:>12.1}{ratio:>9.2}   0.75 to 1.25");
    }
    // To end them takes longer than to make them, and shows nothing.
    std::process::exit(0);
}

/// What the process has in memory, in bytes.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    pages * 4096
}

fn gib(bytes: usize) -> f64 {
    bytes as f64 / (1 << 30) as f64
}
