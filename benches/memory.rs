//! Heap memory per client, measured by counting every allocation. Everything runs on one thread
//! over in-memory pipes, and a second time with a baseline server: hyper and a task that exchange
//! the same bytes without interpreting them. The difference is the memory of this library.
//!
//! `cargo bench --bench memory`

mod support;

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tower_channels::{CheckOrigin, ConnectInfo, Endpoint, LongPollConfig, WebSocketConfig};

use self::support::room::Silent;
use self::support::{local, push};

const CLIENTS: usize = 1000;

fn main() {
    let websocket = |clients| held(clients, |service, _| websocket(service, String::new()));
    let idle = held(CLIENTS, |_, _| baseline_websocket());
    println!("heap bytes per client, {CLIENTS} clients\n");
    println!("{:<44}{:>8}{:>8}{:>8}{:>9}", "", "total", "base", "ours", "target");
    let row = |what: &str, total: f64, baseline: f64, target: &str| {
        println!("{what:<44}{total:>8.0}{baseline:>8.0}{:>8.0}{target:>9}", total - baseline);
    };
    row("WebSocket with a joined channel", websocket(CLIENTS), idle, "4096");
    let resumable = held(CLIENTS, resumable_websocket);
    row("the same with a resumable session", resumable, idle, "-");
    let detached = held(CLIENTS, |service, index| async move {
        drop(resumable_websocket(service, index).await);
    });
    row("detached session", detached, 0.0, "3072");
    let poll = held(CLIENTS, |service, _| poll(service));
    row("pending poll with a joined channel", poll, held(CLIENTS, |_, _| baseline_poll()), "3072");

    println!("\nour heap bytes per WebSocket, by number of WebSockets\n");
    let sizes = [100, 1000, 9000];
    let ours = sizes.map(|clients| websocket(clients) - idle);
    for (size, ours) in sizes.iter().zip(&ours) {
        println!("{size:<44}{:>24}{ours:>8.0}", "");
    }
    let [max, min] = [f64::max, f64::min].map(|of| ours.into_iter().reduce(of).expect("three"));
    println!("{:<60}{:>8.2}{:>9}", "largest to smallest", max / min, "1.20");
}

/// Returns the heap bytes per client. The first client is not counted, since it causes one-time
/// allocations.
fn held<C, F: Future<Output = C>>(clients: usize, open: impl Fn(Service, usize) -> F) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let service = service();
    let mut held = Vec::with_capacity(1 + clients);
    let mut add = |indices: std::ops::Range<usize>| {
        runtime.block_on(async {
            for index in indices {
                held.push(open(service.clone(), index).await);
            }
            // Let the server become idle.
            tokio::time::sleep(Duration::from_millis(100)).await;
        });
    };
    add(0..1);
    let measured = measure(|| add(1..1 + clients));
    measured.bytes_current as f64 / clients as f64
}

type Service = TowerToHyperService<tower_channels::Service<Option<String>>>;

fn service() -> Service {
    let connect = |info: ConnectInfo| async move { Ok(info.param("session").map(str::to_owned)) };
    let forever = Duration::from_secs(3600);
    let endpoint = Endpoint::builder(connect)
        .id(Option::clone)
        .channel::<Silent<_>>("room:*")
        .check_origin(CheckOrigin::off())
        .websocket(WebSocketConfig::new().idle_timeout(forever))
        .long_poll(LongPollConfig::new().poll_timeout(forever))
        .build();
    TowerToHyperService::new(endpoint.service())
}

async fn websocket(service: Service, parameters: String) -> DuplexStream {
    let mut client = local::connect(service);
    local::upgrade(&mut client, &parameters).await;
    local::join(&mut client, "room:a").await;
    client
}

async fn resumable_websocket(service: Service, index: usize) -> DuplexStream {
    websocket(service, format!("session={index:022}")).await
}

/// Joins over long poll and leaves a poll pending.
async fn poll(service: Service) -> DuplexStream {
    let mut client = local::connect(service);
    local::send_request(&mut client, "GET", "", "").await;
    let token = token(&local::response(&mut client).await);
    local::send_request(&mut client, "POST", &token, r#"["1","1","room:a","phx_join",{}]"#).await;
    assert_eq!(local::response(&mut client).await, r#"{"status":200}"#);
    local::send_request(&mut client, "GET", &token, "").await;
    let joined = local::response(&mut client).await;
    assert!(joined.contains("phx_reply"), "{joined}");
    local::send_request(&mut client, "GET", &self::token(&joined), "").await;
    client
}

fn token(response: &str) -> String {
    let token = response.split(r#""token":""#).nth(1).and_then(|rest| rest.split('"').next());
    format!("token={}", token.expect("a token"))
}

/// A baseline WebSocket that receives the same bytes.
async fn baseline_websocket() -> DuplexStream {
    let mut client = local::connect(service_fn(|request: Request<Incoming>| async {
        let upgrade = hyper::upgrade::on(request);
        tokio::spawn(async {
            let io = TokioIo::new(upgrade.await.expect("upgraded"));
            tokio::spawn(answer_one(io));
        });
        let response = Response::builder().status(101).header("connection", "Upgrade");
        let response = response.header("upgrade", "websocket");
        let response = response.header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        Ok::<_, Infallible>(response.body(Full::<Bytes>::default()).expect("a response"))
    }));
    local::upgrade(&mut client, "").await;
    local::join(&mut client, "room:a").await;
    client
}

/// The task of a connection that responses one message and then stays idle.
async fn answer_one(mut io: TokioIo<hyper::upgrade::Upgraded>) {
    const JOINED: &str = r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#;
    // Read byte by byte, so that no buffer lives across an await.
    for _ in push("1", "room:a", "phx_join", "{}") {
        io.read_u8().await.expect("a message");
    }
    io.write_u16(0x8100 + JOINED.len() as u16).await.expect("written");
    io.write_all(JOINED.as_bytes()).await.expect("written");
    pending::<()>().await;
    drop(io);
}

/// A baseline long poll with as many requests and responses, and a pending request.
async fn baseline_poll() -> DuplexStream {
    let token = "x".repeat(48);
    let reply = r#"["1","1","room:a","phx_reply",{\"status\":\"ok\",\"response\":{}}]"#;
    let responses = [
        format!(r#"{{"messages":[],"status":410,"token":"{token}"}}"#),
        r#"{"status":200}"#.to_owned(),
        format!(r#"{{"messages":["{reply}"],"status":200,"token":"{token}"}}"#),
    ];
    let responses: Arc<[Bytes; 3]> = Arc::new(responses.map(Into::into));
    let (count, served) = (responses.len(), AtomicUsize::new(0));
    let mut client = local::connect(service_fn(move |request: Request<Incoming>| {
        drop(request);
        let response = responses.get(served.fetch_add(1, Ordering::Relaxed)).cloned();
        async move {
            let Some(response) = response else { return pending().await };
            Ok::<_, Infallible>(Response::new(Full::new(response)))
        }
    }));
    for _ in 0..count {
        local::send_request(&mut client, "GET", &format!("token={token}"), "").await;
        local::response(&mut client).await;
    }
    local::send_request(&mut client, "GET", &format!("token={token}"), "").await;
    client
}
