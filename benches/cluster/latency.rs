//! From publish to receive: node to node, beside the client crate.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use tower_channels::cluster::Listen;

use super::engine::Address;
use super::frames::{EVENT, Sender, TOPIC, payload};
use super::support::median;
use super::support::server::Server;

const SIZES: [usize; 2] = [160, 16 << 10];
const TURNS: usize = 25;
const MESSAGES: usize = 200;
const PERIOD: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(5);

/// What was sent and not yet received, and how long the rest took, in us.
#[derive(Clone, Default)]
struct Times(Arc<Mutex<(VecDeque<Instant>, Vec<f64>)>>);

impl Times {
    fn sent(&self) {
        self.0.lock().expect("no panic").0.push_back(Instant::now());
    }

    fn received(&self) {
        let now = Instant::now();
        let mut times = self.0.lock().expect("no panic");
        if let Some(sent) = times.0.pop_front() {
            times.1.push((now - sent).as_secs_f64() * 1e6);
        }
    }

    /// Waits until everything is received, and adds the median and the 99th percentile to `turns`. Nothing if some is
    /// not received in time, as it may be on a machine without time for the engine.
    fn take(&self, turns: &mut [Vec<f64>; 2]) {
        let deadline = Instant::now() + PATIENCE;
        let is_complete = || self.0.lock().expect("no panic").0.is_empty();
        while !is_complete() && Instant::now() < deadline {
            thread::sleep(PERIOD);
        }
        let (unheard, mut times) = std::mem::take(&mut *self.0.lock().expect("no panic"));
        if !unheard.is_empty() {
            println!("{} of {MESSAGES} messages were lost: a turn is left out", unheard.len());
            return;
        }
        times.sort_by(f64::total_cmp);
        let percentiles = [times[MESSAGES / 2], times[MESSAGES * 99 / 100]];
        turns.iter_mut().zip(percentiles).for_each(|(turns, value)| turns.push(value));
    }
}

pub(crate) fn run(engine: Address) {
    println!(
        "{:<36}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}",
        "latency at 1000/s, us", "crate", "node", "added", "limit", "p99", "limit"
    );
    for size in SIZES {
        let [mut raws, mut nodes]: [[Vec<f64>; 2]; 2] = Default::default();
        let (publishing, hearing) = (Server::new(1), Server::new(1));
        let (raw, node) = (Times::default(), Times::default());

        let times = raw.clone();
        let prefix = engine.channel("raw", "").trim_end_matches('0').to_owned();
        let _ear = hearing.run(async move { engine.hear(&prefix, move || times.received()).await });
        let publisher = publishing.run(engine.publisher());
        let frame = publishing.run(async move { Sender::new(1, TOPIC, size).next() });

        let times = node.clone();
        let _hears = hearing.run(async move {
            let node = engine.node("bench", Listen::All).await;
            let mut subscription = node.subscribe(TOPIC);
            tokio::spawn(async move {
                while subscription.recv().await.is_ok() {
                    times.received();
                }
            });
            node
        });
        let sends = publishing.run(async move { engine.node("bench", Listen::All).await });
        thread::sleep(Duration::from_secs(1));

        for _ in 0..TURNS {
            let (times, mut publisher, frame) = (raw.clone(), publisher.clone(), frame.clone());
            let channel = engine.channel("raw", TOPIC);
            publishing.run(async move {
                let mut period = period();
                for _ in 0..MESSAGES {
                    period.tick().await;
                    times.sent();
                    publisher.publish(&channel, [frame.clone()]).await;
                }
            });
            raw.take(&mut raws);
            let (times, sends, payload) = (node.clone(), sends.clone(), payload(size));
            publishing.run(async move {
                let mut period = period();
                for _ in 0..MESSAGES {
                    period.tick().await;
                    times.sent();
                    sends.broadcast(TOPIC, EVENT, payload.clone());
                }
            });
            node.take(&mut nodes);
        }
        let added = |index: usize| {
            let pairs = nodes[index].iter().zip(&raws[index]);
            median(pairs.map(|(node, raw)| node - raw).collect())
        };
        let [p50, p99] = [0, 1].map(added);
        let [raw, node] = [raws, nodes].map(|[medians, _]| median(medians));
        let what = format!("{size} B");
        println!("{what:<36}{raw:>8.0}{node:>8.0}{p50:>+8.0}{:>8}{p99:>+8.0}{:>8}", 30, 500);
    }
    println!();
}

fn period() -> tokio::time::Interval {
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    period
}
