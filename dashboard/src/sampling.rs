//! The samples that the plots show: one in a second, while a page is open.

use std::sync::Weak;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior};
use tower_channels::inspect::{Cursor, Inspect, ROUND_TRIPS, Watch};
use tower_channels::{Payload, PubSub};

use crate::console::TOPIC;
use crate::monitor::Monitor;
use crate::numbers::{per_second, quantiles, since};

/// What is plotted, at one moment. Names are short, because a page that opens receives all of them.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Milliseconds since 1970.
    t: u64,
    /// Messages from clients in a second: over WebSocket, over long poll.
    r: [f64; 2],
    /// Messages to clients, likewise.
    s: [f64; 2],
    /// Broadcasts in a second.
    b: f64,
    /// Sessions with a connection: WebSocket, long poll, other.
    c: [usize; 3],
    /// Sessions without one.
    d: [usize; 3],
    /// Round trips in milliseconds: the median, and what 95 of 100 do not exceed.
    l: Option<[f64; 2]>,
    /// Reserved memory.
    m: usize,
    /// Bytes that wait for clients, counted every few seconds.
    q: usize,
}

/// What is shown as it is now.
#[derive(Serialize)]
struct Status {
    memory: (usize, usize),
    topics: (usize, usize),
    channels: Vec<(String, usize)>,
    nodes: Vec<NodeStatus>,
    counters: Vec<(&'static str, &'static str, u64)>,
}

#[derive(Serialize)]
struct NodeStatus {
    id: String,
    is_self: bool,
    uptime: u64,
    sessions: u64,
    state: &'static str,
}

const INTERVAL: Duration = Duration::from_secs(1);

/// With every so many samples the state is sent, and what waits for clients is counted.
const EVERY: u64 = 3;

/// How many nodes, and how many topic patterns, are shown.
const LONGEST: usize = 100;

/// Samples until the monitor is gone, or the task is aborted.
pub(crate) async fn run(monitor: Weak<Monitor>, inspect: Inspect, pages: PubSub) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // The first tick comes at once.
    ticks.tick().await;
    let mut sampler = Sampler::new(&inspect);
    let mut queued = 0;
    for number in 0.. {
        if number % EVERY == 0 {
            queued = count_queued(&inspect).await;
            send(&pages, "status", &status(&inspect));
        }
        ticks.tick().await;
        let (sample, broadcasts, seconds) = sampler.sample(&inspect, queued);
        let Some(monitor) = monitor.upgrade() else { return };
        monitor.add(sample, broadcasts, seconds);
        send(&pages, "sample", &sample);
    }
}

fn send(pages: &PubSub, event: &str, value: &impl Serialize) {
    if let Ok(payload) = Payload::json(value) {
        pages.local_broadcast(TOPIC, event, payload);
    }
}

/// The numbers of the last sample, from which the next one derives its rates.
struct Sampler {
    watch: Watch,
    at: Instant,
    received: [u64; 2],
    sent: [u64; 2],
    round_trips: [u64; ROUND_TRIPS.len() + 1],
}

impl Sampler {
    fn new(inspect: &Inspect) -> Self {
        let watch = inspect.watch();
        let [websocket, longpoll, _] = inspect.transports();
        Self {
            watch,
            at: Instant::now(),
            received: [websocket.received, longpoll.received],
            sent: [websocket.sent, longpoll.sent],
            round_trips: inspect.round_trips(),
        }
    }

    /// Returns a sample, the broadcasts of its time by topic, and how long that was.
    fn sample(&mut self, inspect: &Inspect, queued: usize) -> (Sample, Vec<(String, u64)>, f64) {
        let now = Instant::now();
        let seconds = now.duration_since(self.at).as_secs_f64();
        let transports = inspect.transports();
        let [websocket, longpoll, _] = &transports;
        let received = [websocket.received, longpoll.received];
        let sent = [websocket.sent, longpoll.sent];
        let round_trips = inspect.round_trips();
        let broadcasts = self.watch.take_broadcasts();
        let rate = |count| per_second(count, seconds);
        let sample = Sample {
            t: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
            r: since(&received, &self.received).map(rate),
            s: since(&sent, &self.sent).map(rate),
            b: rate(broadcasts.count),
            c: transports.map(|transport| transport.connected),
            d: transports.map(|transport| transport.detached),
            l: quantiles(&since(&round_trips, &self.round_trips)),
            m: inspect.memory().0,
            q: queued,
        };
        (self.at, self.received, self.sent) = (now, received, sent);
        self.round_trips = round_trips;
        (sample, broadcasts.topics, seconds)
    }
}

/// Counts the bytes that wait for clients, with other tasks in between.
async fn count_queued(inspect: &Inspect) -> usize {
    let (mut queued, mut next) = (0_usize, Some(Cursor::default()));
    while let Some(cursor) = next {
        let page = inspect.sessions(cursor);
        queued = page.items.iter().fold(queued, |sum, it| sum.saturating_add(it.queued));
        next = page.next;
        tokio::task::yield_now().await;
    }
    queued
}

fn status(inspect: &Inspect) -> Status {
    let nodes = inspect.pubsub().nodes().into_iter().take(LONGEST).map(|node| NodeStatus {
        id: node.id.to_string(),
        is_self: node.is_self,
        uptime: node.uptime.as_secs(),
        sessions: node.sessions,
        state: match (node.is_up, node.is_draining) {
            (false, _) => "not heard",
            (true, true) => "shutting down",
            (true, false) => "up",
        },
    });
    let channels = inspect.channels().into_iter().take(LONGEST);
    let counters = inspect.counters().into_iter();
    Status {
        memory: inspect.memory(),
        topics: inspect.topic_count(),
        channels: channels.map(|channel| (channel.pattern, channel.running)).collect(),
        nodes: nodes.collect(),
        counters: counters.map(|it| (it.name, it.meaning, it.total)).collect(),
    }
}
