//! Presence of a crowd: what coming and going costs among few and among many, what a list costs, and
//! what a change costs with a thousand who hear of it. Few and many take turns, and the best turn of
//! each counts, so that the ratios hold on a machine that does other things too.
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
    Channel, Endpoint, JoinError, Joined, Payload, Presence, PresenceConfig, Socket, TrackGuard,
};

const TOPIC: &str = "lobby:1";
const FEW: usize = 100;
const MANY: usize = 10_000;
const SUBSCRIBERS: usize = 1000;
const TURNS: usize = 100;

/// Tracks its client if the join says so.
struct Lobby {
    tracks: bool,
}

impl Channel for Lobby {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, payload: Payload, _: &Socket<Self>) -> Result<Joined<Self>, JoinError> {
        Ok(Self { tracks: payload.parse()? }.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        if self.tracks {
            Presence::track(socket, "client", json!({ "name": "somebody" }))?;
        }
        Ok(())
    }
}

/// A topic with so many present.
struct Place {
    endpoint: Endpoint<()>,
    presence: Presence,
    crowd: Vec<TrackGuard>,
    client: Client<()>,
}

impl Place {
    /// Each present under a key of its own, or all under one.
    fn new(runtime: &Runtime, size: usize, one_key: bool, interval: Duration) -> Self {
        let endpoint = Endpoint::builder(|_| async { Ok(()) })
            .channel::<Lobby>("lobby:*")
            .presence(PresenceConfig::default().interval(interval))
            .build();
        let presence = endpoint.presence();
        let key =
            |index: usize| if one_key { "client".to_owned() } else { format!("user-{index}") };
        let enter = |index| presence.track_task(TOPIC, &key(index), json!({ "name": "somebody" }));
        let crowd = (0..size).map(|index| enter(index).expect("may be tracked")).collect();
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
        // Nothing is announced meanwhile.
        let never = Duration::from_secs(3600);
        let mut places = [FEW, MANY].map(|size| Place::new(&runtime, size, one_key, never));
        row("track and untrack", 1000, &mut places, |place| {
            drop(place.presence.track_task(TOPIC, "client", json!({})).expect("may be tracked"));
        });
        row("update", 1000, &mut places, |place| {
            place.crowd[0].update(json!({ "away": true })).expect("may be tracked");
        });
        row("a client joins, is tracked, and leaves", 100, &mut places, |place| {
            runtime.block_on(place.client.join(TOPIC, json!(true)));
            runtime.block_on(place.client.leave(TOPIC));
            place.client.discard();
        });
        row("count", 1000, &mut places, |place| {
            black_box(place.presence.count(TOPIC));
        });
        row("list", 1, &mut places, |place| {
            black_box(runtime.block_on(place.presence.list(TOPIC)));
        });
        println!();
    }
    among_readers(&runtime);
    announcing(&runtime);
}

/// Measures few and many in turn.
fn row(what: &str, times: u32, places: &mut [Place; 2], mut work: impl FnMut(&mut Place)) {
    let mut best = [Duration::MAX; 2];
    for _ in 0..TURNS {
        for (place, best) in places.iter_mut().zip(&mut best) {
            *best = (*best).min(time(times, || work(place)));
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

/// How long the slowest of many waits whose list is being read all the time.
fn among_readers(runtime: &Runtime) {
    let place = Place::new(runtime, MANY, false, Duration::from_secs(3600));
    let slowest = || {
        let track = || {
            time(1, || drop(place.presence.track_task(TOPIC, "client", json!({})).expect("may be")))
        };
        let mut all: Vec<_> = (0..20_000).map(|_| track()).collect();
        all.sort();
        all[all.len() * 99 / 100].as_secs_f64() * 1e6
    };
    let alone = slowest();
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (presence, done) = (place.presence.clone(), Arc::clone(&done));
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
    let lists = reader.join().expect("it lists");
    println!(
        "track and untrack among {MANY}, p99: {alone:.1} us alone, {read:.1} us while another"
    );
    println!("thread lists them all ({lists} times)\n");
}

/// One change among many, until everyone who listens has it.
fn announcing(runtime: &Runtime) {
    let place = Place::new(runtime, MANY, false, Duration::ZERO);
    let mut clients: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| runtime.block_on(connect(&place.endpoint, &[])).expect("connects"))
        .collect();
    for client in &mut clients {
        runtime.block_on(client.join(TOPIC, json!(false)));
        client.discard();
    }
    let best = (0..TURNS).map(|_| {
        time(1, || {
            drop(place.presence.track_task(TOPIC, "newcomer", json!({})).expect("may be tracked"));
            let newcomer = place.presence.track_task(TOPIC, "newcomer", json!({}));
            runtime.block_on(receive(&mut clients));
            drop(newcomer);
            runtime.block_on(receive(&mut clients));
        }) / 2
    });
    let best = best.min().unwrap_or_default();
    let each = best.as_secs_f64() * 1e9 / SUBSCRIBERS as f64;
    println!("a diff to {SUBSCRIBERS} in-memory clients: {each:.0} ns each");
}

/// Waits until everyone has one more message.
async fn receive(clients: &mut [Client<()>]) {
    let mut received = 0;
    while received < clients.len() {
        tokio::task::yield_now().await;
        received += clients.iter_mut().map(Client::discard).sum::<usize>();
    }
}
