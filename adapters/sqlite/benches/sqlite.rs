//! What a history in SQLite costs: `cargo bench -p tower-channels-sqlite`, on the disk of the temporary folder.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tower_channels::adapter::{Append, HistoryInbox, HistoryStore, Keep, Kept, Since};
use tower_channels::history::Position;
use tower_channels_adapter_tests::folder::Folder;
use tower_channels_sqlite::{Sqlite, SqliteConfig, Synchronous};

/// A message of a chat, with its event.
const CONTENT: &[u8] = &[b'x'; 200];
const KEEP: Keep = Keep { messages: 500, bytes: 1 << 20, within: Duration::from_secs(24 * 3600) };
const WAITING: usize = 1000;
const TURNS: usize = 7;

struct Count(AtomicUsize);

impl HistoryInbox for Count {
    fn kept(&self, _: &str, _: Kept) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

async fn append(store: &Sqlite, topic: &str) -> Position {
    let (done, told) = oneshot::channel();
    let content = Bytes::from_static(CONTENT);
    let message = Append { topic: topic.into(), content, keep: KEEP, done: Some(done) };
    store.append(message).expect("room in the queue");
    told.await.expect("told").expect("kept")
}

fn open(folder: &Folder, synchronous: Synchronous) -> Arc<Sqlite> {
    let path: PathBuf = folder.path().join("history");
    let store = Sqlite::with(SqliteConfig::new(path).synchronous(synchronous)).expect("opens");
    store.start(Arc::new(Count(AtomicUsize::new(0))));
    Arc::new(store)
}

fn percentile(times: &mut [f64], percent: usize) -> f64 {
    times.sort_by(f64::total_cmp);
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

/// The CPU time that this process has used, in seconds, as far as Linux tells it.
fn cpu() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name of the program, which may contain anything.
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

/// Appends a second while 1000 wait, each for its own, the median of turns; and the CPU time of one, in microseconds.
async fn throughput(store: &Arc<Sqlite>, topics: usize, each: usize) -> [f64; 2] {
    let mut rates = Vec::new();
    let used = cpu();
    for _ in 0..TURNS {
        let begun = Instant::now();
        let tasks: Vec<_> = (0..WAITING)
            .map(|task| {
                let store = store.clone();
                tokio::spawn(async move {
                    let topic = format!("room:{}", task % topics);
                    for _ in 0..each {
                        append(&store, &topic).await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        rates.push((WAITING * each) as f64 / begun.elapsed().as_secs_f64());
    }
    let used = (cpu() - used) * 1e6 / (TURNS * WAITING * each) as f64;
    [percentile(&mut rates, 50), used]
}

async fn alone(store: &Sqlite, count: usize) -> [f64; 2] {
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        append(store, "alone").await;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    [percentile(&mut times, 50), percentile(&mut times, 99)]
}

async fn reads(store: &Sqlite, count: usize) -> [f64; 2] {
    let all = store.read("room:0", Since::Newest, 500).await.expect("a page").messages;
    let before = Position { number: all[500 - count].previous, ..all[0].position };
    let mut times = Vec::new();
    for _ in 0..1000 {
        let begun = Instant::now();
        let page = store.read("room:0", Since::After(before), count).await.expect("a page");
        times.push(begun.elapsed().as_secs_f64() * 1e6);
        assert_eq!(page.messages.len(), count);
    }
    [percentile(&mut times, 50), percentile(&mut times, 99)]
}

fn main() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average: {}\n", load.trim());
    let runtime = Runtime::new().expect("a runtime");
    for synchronous in [Synchronous::Normal, Synchronous::Full] {
        println!("{synchronous:?}");
        let folder = Folder::new();
        let store = open(&folder, synchronous);
        let (each, count) = match synchronous {
            Synchronous::Normal => (30, 3000),
            Synchronous::Full => (10, 300),
        };
        runtime.block_on(async {
            for topics in [1, 1000] {
                let [rate, cpu] = throughput(&store, topics, each).await;
                println!(
                    "  {topics:>5} topics, 1000 waiting: {rate:>9.0} appends/s, {cpu:.1} us of CPU each"
                );
            }
            let [median, high] = alone(&store, count).await;
            println!("  one alone: p50 {median:.0} us, p99 {high:.0} us");
            for count in [1, 100, 500] {
                let [median, high] = reads(&store, count).await;
                println!("  a read of {count:>3}: p50 {median:.0} us, p99 {high:.0} us");
            }
        });
        drop(store);
        let begun = Instant::now();
        drop(open(&folder, synchronous));
        let size = std::fs::metadata(folder.path().join("history")).map_or(0, |file| file.len());
        let (took, size) = (begun.elapsed().as_secs_f64() * 1e3, size >> 20);
        println!("  opened and closed again: {took:.0} ms, with {size} MiB\n");
    }
}
