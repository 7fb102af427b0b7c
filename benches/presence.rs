//! Presence: the cost of joining, leaving and listing among few and among many entries, and of
//! announcing a change to a thousand subscribers. Few and many alternate, and the best turn of each
//! counts, so that the ratios hold on a busy machine.
//!
//! `cargo bench --bench presence`

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::runtime::Runtime;
use tower_channels::channel::Result;
use tower_channels::test::{Client, connect};
use tower_channels::{
    Channel, Endpoint, Joined, Payload, Presence, PresenceConfig, Socket, TrackGuard,
};

const TOPIC: &str = "lobby:1";
const FEW: usize = 100;
const MANY: usize = 10_000;
const SUBSCRIBERS: usize = 1000;
const TURNS: usize = 100;

/// A channel that tracks its client if the join payload is `true`.
struct Lobby {
    tracks: bool,
}

impl Channel for Lobby {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, payload: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self { tracks: payload.parse()? }.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        if self.tracks {
            Presence::track(socket, "client", json!({ "name": "somebody" }))?;
        }
        Ok(())
    }
}

/// An endpoint with a topic of the given number of entries.
struct Setup {
    endpoint: Endpoint<()>,
    presence: Presence,
    crowd: Vec<TrackGuard>,
    client: Client<()>,
}

impl Setup {
    /// Creates the entries under separate keys, or all under one.
    fn new(runtime: &Runtime, size: usize, one_key: bool, interval: Duration) -> Self {
        let endpoint = Endpoint::builder(|_| async { Ok(()) })
            .channel::<Lobby>("lobby:*")
            .presence(PresenceConfig::default().interval(interval))
            .build();
        let presence = endpoint.presence();
        let key =
            |index: usize| if one_key { "client".to_owned() } else { format!("user-{index}") };
        let enter = |index| presence.track_task(TOPIC, &key(index), json!({ "name": "somebody" }));
        let crowd = (0..size).map(|index| enter(index).expect("tracks")).collect();
        let client = runtime.block_on(connect(&endpoint, &[])).expect("connects");
        Self { endpoint, presence, crowd, client }
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let _inside = runtime.enter();
    for one_key in [false, true] {
        let what = if one_key { "metas of one key" } else { "keys" };
        println!("{what:<44}{FEW:>12}{MANY:>12}{:>9}", "ratio");
        // Nothing is announced during the measurement.
        let never = Duration::from_secs(3600);
        let mut setups = [FEW, MANY].map(|size| Setup::new(&runtime, size, one_key, never));
        row("track and untrack", 1000, &mut setups, |setup| {
            drop(setup.presence.track_task(TOPIC, "client", json!({})).expect("tracks"));
        });
        row("update", 1000, &mut setups, |setup| {
            setup.crowd[0].update(json!({ "away": true })).expect("tracks");
        });
        row("join, track and leave", 100, &mut setups, |setup| {
            runtime.block_on(setup.client.join(TOPIC, json!(true)));
            runtime.block_on(setup.client.leave(TOPIC));
            setup.client.discard();
        });
        row("count", 1000, &mut setups, |setup| {
            black_box(setup.presence.count(TOPIC));
        });
        row("list", 1, &mut setups, |setup| {
            black_box(runtime.block_on(setup.presence.list(TOPIC)));
        });
        println!();
    }
    tracking_among_readers(&runtime);
    announcing(&runtime);
}

/// Measures few and many in alternating turns.
fn row(what: &str, times: u32, setups: &mut [Setup; 2], mut work: impl FnMut(&mut Setup)) {
    let mut best = [Duration::MAX; 2];
    for _ in 0..TURNS {
        for (setup, best) in setups.iter_mut().zip(&mut best) {
            *best = (*best).min(time(times, || work(setup)));
        }
    }
    let [few, many] = best.map(|best| best.as_secs_f64() * 1e6);
    println!("{what:<44}{few:>9.2} us{many:>9.2} us{:>9.2}", many / few);
}

fn time(times: u32, mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    (0..times).for_each(|_| work());
    began.elapsed() / times
}

/// Prints the p99 of tracking while another thread lists the topic continuously.
fn tracking_among_readers(runtime: &Runtime) {
    let setup = Setup::new(runtime, MANY, false, Duration::from_secs(3600));
    let slowest = || {
        let track = || {
            time(1, || drop(setup.presence.track_task(TOPIC, "client", json!({})).expect("tracks")))
        };
        let mut all: Vec<_> = (0..20_000).map(|_| track()).collect();
        all.sort();
        all[all.len() * 99 / 100].as_secs_f64() * 1e6
    };
    let alone = slowest();
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (presence, done) = (setup.presence.clone(), Arc::clone(&done));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let (runtime, mut lists) = (runtime.expect("a runtime"), 0);
            while !done.load(Ordering::Relaxed) {
                lists += runtime.block_on(presence.list(TOPIC)).len() / MANY;
            }
            lists
        })
    };
    let read = slowest();
    done.store(true, Ordering::Relaxed);
    let lists = reader.join().expect("no panic");
    println!("track and untrack among {MANY}, p99: {alone:.1} us alone, {read:.1} us while");
    println!("another thread lists all entries ({lists} times)\n");
}

/// Measures one change among many entries, until all subscribers have received it.
fn announcing(runtime: &Runtime) {
    let setup = Setup::new(runtime, MANY, false, Duration::ZERO);
    let mut clients: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| runtime.block_on(connect(&setup.endpoint, &[])).expect("connects"))
        .collect();
    for client in &mut clients {
        runtime.block_on(client.join(TOPIC, json!(false)));
        client.discard();
    }
    let best = (0..TURNS).map(|_| {
        time(1, || {
            drop(setup.presence.track_task(TOPIC, "newcomer", json!({})).expect("tracks"));
            let newcomer = setup.presence.track_task(TOPIC, "newcomer", json!({}));
            runtime.block_on(receive(&mut clients));
            drop(newcomer);
            runtime.block_on(receive(&mut clients));
        }) / 2
    });
    let best = best.min().unwrap_or_default();
    let each = best.as_secs_f64() * 1e9 / SUBSCRIBERS as f64;
    println!("a diff to {SUBSCRIBERS} in-memory clients: {each:.0} ns each");
}

/// Waits until every client has received one more message.
async fn receive(clients: &mut [Client<()>]) {
    let mut received = 0;
    while received < clients.len() {
        tokio::task::yield_now().await;
        received += clients.iter_mut().map(Client::discard).sum::<usize>();
    }
}
