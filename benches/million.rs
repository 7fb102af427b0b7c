//! A million joined sessions in one process, a hundred per room: their memory, and whether a
//! broadcast to one room is slower among the others. Runs on one thread with in-memory clients,
//! whose memory is included.
//!
//! `cargo bench --bench million`; `SESSIONS=100000` runs a smaller version.

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
/// The number of sessions to compare with.
const FEW: usize = 10_000;
const BROADCASTS: usize = 2000;

/// An endpoint with clients, grouped by room. They joined the rooms in turn, so the members of a
/// room are not neighbours in memory.
struct Setup {
    runtime: Runtime,
    endpoint: Endpoint<()>,
    clients: Vec<Vec<Client<()>>>,
}

impl Setup {
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

    /// Returns the median time until a broadcast is queued for all members, in microseconds.
    /// Broadcasts to each room in turn, or always to the same room.
    fn broadcast(&mut self, turns: bool) -> f64 {
        let _inside = self.runtime.enter();
        let payload = Payload::from(json!({ "body": "x".repeat(64) }));
        let rooms = self.clients.len();
        let mut spent = Vec::new();
        for at in 0..BROADCASTS {
            // Skip neighbours, which may be cached.
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
    let mut few = Setup::new(FEW);
    let mut many = None;
    let resident_before = resident();
    let heap = measure(|| many = Some(Setup::new(sessions))).bytes_current;
    let mut many = many.expect("set up");
    let resident = resident() - resident_before;
    let rooms = many.clients.len();
    let each = |bytes: f64| bytes / (rooms * ROOM) as f64;

    println!("{} sessions in {rooms} rooms\n", rooms * ROOM);
    println!("{:<52}{:>12}{:>12}", "", "", "target");
    println!("{:<52}{:>8.2} GiB{:>8} GiB", "resident memory, including clients", gib(resident), 8);
    println!("{:<52}{:>12.0}", "resident bytes per session", each(resident as f64));
    println!("{:<52}{:>12.0}", "heap bytes per session", each(heap as f64));
    println!(
        "\n{:<40}{:>12}{:>12}{:>9}",
        "broadcast to a room of 100, in us", FEW, sessions, "ratio"
    );
    for (what, turns) in [("the same room", false), ("each room in turn", true)] {
        // Warm up, then measure in alternating turns.
        for setup in [&mut few, &mut many] {
            setup.broadcast(turns);
        }
        let (mut all, mut ratios) = ([const { Vec::new() }; 2], Vec::new());
        for _ in 0..7 {
            let [few, many] = [&mut few, &mut many].map(|setup| setup.broadcast(turns));
            all[0].push(few);
            all[1].push(many);
            ratios.push(many / few);
        }
        let [few, many] = all.map(median);
        let ratio = median(ratios);
        println!("{what:<40}{few:>12.1}{many:>12.1}{ratio:>9.2}   0.75 to 1.25");
    }
    // Skip the teardown, which takes longer than the setup.
    std::process::exit(0);
}

/// Returns the resident memory of the process in bytes.
fn resident() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = text.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    pages * 4096
}

fn gib(bytes: usize) -> f64 {
    bytes as f64 / (1 << 30) as f64
}
