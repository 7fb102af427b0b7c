//! Detached sessions: the memory of 10,000 of them, their share of a broadcast, and their effect on
//! connected clients. Runs on one thread over in-memory connections.
//!
//! `cargo bench --bench detached`

mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use allocation_counter::measure;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{BufReader, DuplexStream};
use tokio::runtime::Runtime;
use tokio::task::{LocalSet, spawn_local};
use tower_channels::{CheckOrigin, ConnectInfo, Endpoint, Payload, ResumeConfig};

use self::support::local::{self, frame};
use self::support::room::Silent;
use self::support::{Thread, median};

const DETACHED: usize = 10_000;
const CONNECTED: usize = 100;
/// Few enough not to overflow an outbox.
const BROADCASTS: usize = 100;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (runtime, tasks) = (runtime.expect("a runtime"), LocalSet::new());
    let endpoint = endpoint();
    let block_on = |work: &dyn Fn() -> Work<()>| tasks.block_on(&runtime, work());

    // The first session causes one-time allocations.
    block_on(&|| detach(endpoint.clone(), 0, 1));
    let received = Rc::new(Cell::new(0));
    for _ in 0..CONNECTED {
        let (endpoint, received) = (endpoint.clone(), Rc::clone(&received));
        tasks.block_on(&runtime, async move {
            let member = member(&endpoint, "").await;
            spawn_local(read(member, received));
        });
    }
    let few = deliver(&runtime, &tasks, &endpoint, &received);

    let held = measure(|| block_on(&|| detach(endpoint.clone(), 1, DETACHED))).bytes_current;
    assert_eq!(endpoint.sessions().total(), 1 + DETACHED + CONNECTED);
    let mut many = None;
    let retained = measure(|| many = Some(deliver(&runtime, &tasks, &endpoint, &received)));
    let many = many.expect("delivered");
    let idle = {
        let thread = Thread::current();
        let before = thread.cpu();
        tasks.block_on(&runtime, async { tokio::time::sleep(IDLE).await });
        thread.cpu() - before
    };
    // Check that the sessions retain all messages.
    let replayed = tasks.block_on(&runtime, replay(&endpoint, 1));
    assert_eq!(replayed, BROADCASTS);

    let each = |bytes: i64| bytes as f64 / DETACHED as f64;
    println!("{CONNECTED} connected, {BROADCASTS} broadcasts of 160 bytes; medians\n");
    println!("{:<48}{:>12}{:>12}", "detached sessions", 1, 1 + DETACHED);
    row("CPU per broadcast", few.cpu, many.cpu);
    row("until queued for all sessions", few.queued, many.queued);
    row("until received by all connected clients", few.delivered, many.delivered);
    row("of that, after queueing", few.delivered - few.queued, many.delivered - many.queued);
    println!();
    let per_session = (many.cpu.saturating_sub(few.cpu)).as_nanos() as f64 / DETACHED as f64;
    println!("CPU per broadcast and detached session  {per_session:>10.0} ns");
    println!("heap per detached session               {:>10.0} bytes", each(held));
    println!(
        "heap per retained message and session   {:>10.0} bytes",
        each(retained.bytes_current) / BROADCASTS as f64
    );
    let share = idle.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    println!("CPU while idle                          {share:>10.2} %");
}

type Work<T> = std::pin::Pin<Box<dyn Future<Output = T>>>;

const IDLE: Duration = Duration::from_secs(5);

fn row(what: &str, few: Duration, many: Duration) {
    println!("{what:<48}{:>9.1} us{:>9.1} us", few.as_secs_f64() * 1e6, many.as_secs_f64() * 1e6);
}

fn endpoint() -> Endpoint<Option<String>> {
    let connect = |info: ConnectInfo| async move { Ok(info.param("session").map(str::to_owned)) };
    let ttl = Duration::from_secs(600);
    Endpoint::builder(connect)
        .id(Option::clone)
        .channel::<Silent<_>>("room:*")
        .check_origin(CheckOrigin::off())
        .resume(ResumeConfig::new().session_ttl(ttl))
        .build()
}

/// Connects and joins `room:a`.
async fn member(endpoint: &Endpoint<Option<String>>, parameters: &str) -> BufReader<DuplexStream> {
    let service = TowerToHyperService::new(endpoint.service());
    let mut client = BufReader::new(local::connect(service));
    local::upgrade(&mut client, parameters).await;
    local::join(&mut client, "room:a").await;
    client
}

async fn read(mut client: BufReader<DuplexStream>, received: Rc<Cell<usize>>) {
    while frame(&mut client).await.is_some() {
        received.set(received.get() + 1);
    }
}

/// Creates sessions and drops their connections.
fn detach(endpoint: Endpoint<Option<String>>, first: usize, count: usize) -> Work<()> {
    Box::pin(async move {
        for index in first..first + count {
            drop(member(&endpoint, &format!("session={index:022}")).await);
        }
        // Let the server notice the last one.
        tokio::time::sleep(Duration::from_millis(100)).await;
    })
}

/// Resumes a detached session and counts the replayed messages.
async fn replay(endpoint: &Endpoint<Option<String>>, index: usize) -> usize {
    let mut client = member(endpoint, &format!("session={index:022}")).await;
    let mut count = 0;
    let next = async {
        while let Some(frame) = frame(&mut client).await {
            count += usize::from(frame.starts_with(b"[null,null,\"room:a\",\"new_msg\""));
        }
    };
    let _ = tokio::time::timeout(Duration::from_millis(200), next).await;
    count
}

struct Delivery {
    cpu: Duration,
    queued: Duration,
    delivered: Duration,
}

/// Broadcasts repeatedly, each time after the previous message has arrived.
fn deliver(
    runtime: &Runtime,
    tasks: &LocalSet,
    endpoint: &Endpoint<Option<String>>,
    received: &Cell<usize>,
) -> Delivery {
    let payload = Payload::from(json!({ "body": "x".repeat(120) }));
    let (mut queued, mut delivered) = (Vec::new(), Vec::new());
    let thread = Thread::current();
    let used = thread.cpu();
    for _ in 0..BROADCASTS {
        let target = received.get() + CONNECTED;
        let began = Instant::now();
        endpoint.broadcast("room:a", "new_msg", payload.clone());
        queued.push(began.elapsed().as_secs_f64());
        tasks.block_on(runtime, async {
            while received.get() < target {
                tokio::task::yield_now().await;
            }
        });
        delivered.push(began.elapsed().as_secs_f64());
    }
    // The thread clock is too coarse for a single broadcast.
    let cpu = (thread.cpu() - used) / BROADCASTS as u32;
    let [queued, delivered] = [queued, delivered].map(|all| Duration::from_secs_f64(median(all)));
    Delivery { cpu, queued, delivered }
}
