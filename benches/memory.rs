//! What a client holds of the heap, by counting every allocation. One thread does everything, over pipes
//! in memory, and everything is done a second time with a server that knows nothing: hyper and a task
//! with the same bytes on the wire. The difference is what is ours.
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
    let idle = held(CLIENTS, |_, _| least_websocket());
    println!("bytes of the heap for each of {CLIENTS}\n");
    println!("{:<44}{:>8}{:>8}{:>8}{:>9}", "", "all", "least", "ours", "target");
    let row = |what: &str, all: f64, least: f64, target: &str| {
        println!("{what:<44}{all:>8.0}{least:>8.0}{:>8.0}{target:>9}", all - least);
    };
    row("a WebSocket with a joined channel", websocket(CLIENTS), idle, "4096");
    let kept = held(CLIENTS, websocket_kept);
    row("the same, its session kept", kept, idle, "-");
    let parked = held(CLIENTS, |service, index| async move {
        drop(websocket_kept(service, index).await);
    });
    row("a kept session without a connection", parked, 0.0, "3072");
    let poll = held(CLIENTS, |service, _| poll(service));
    row(
        "a poll that waits, with a joined channel",
        poll,
        held(CLIENTS, |_, _| least_poll()),
        "3072",
    );

    println!("\nof a WebSocket, with so many of them\n");
    let sizes = [100, 1000, 9000];
    let ours = sizes.map(|clients| websocket(clients) - idle);
    for (size, ours) in sizes.iter().zip(&ours) {
        println!("{size:<44}{:>24}{ours:>8.0}", "");
    }
    let [most, least] = [f64::max, f64::min].map(|of| ours.into_iter().reduce(of).expect("three"));
    println!("{:<60}{:>8.2}{:>9}", "most by least", most / least, "1.20");
}

/// The bytes for each of so many clients, counted once what is made with the first is there.
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
            // The server comes to rest.
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
    TowerToHyperService::new(endpoint.service("/socket"))
}

async fn websocket(service: Service, parameters: String) -> DuplexStream {
    let mut client = local::connect(service);
    local::upgrade(&mut client, &parameters).await;
    local::join(&mut client, "room:a").await;
    client
}

async fn websocket_kept(service: Service, index: usize) -> DuplexStream {
    websocket(service, format!("session={index:022}")).await
}

/// A poll that nobody answers.
async fn poll(service: Service) -> DuplexStream {
    let mut client = local::connect(service);
    local::ask(&mut client, "GET", "", "").await;
    let token = token(&local::answer(&mut client).await);
    local::ask(&mut client, "POST", &token, r#"["1","1","room:a","phx_join",{}]"#).await;
    assert_eq!(local::answer(&mut client).await, r#"{"status":200}"#);
    local::ask(&mut client, "GET", &token, "").await;
    let joined = local::answer(&mut client).await;
    assert!(joined.contains("phx_reply"), "{joined}");
    local::ask(&mut client, "GET", &self::token(&joined), "").await;
    client
}

fn token(answer: &str) -> String {
    let token = answer.split(r#""token":""#).nth(1).and_then(|rest| rest.split('"').next());
    format!("token={}", token.expect("a token"))
}

/// A WebSocket that hears as much and knows nothing.
async fn least_websocket() -> DuplexStream {
    let mut client = local::connect(service_fn(|request: Request<Incoming>| async {
        let upgrade = hyper::upgrade::on(request);
        tokio::spawn(async {
            let io = TokioIo::new(upgrade.await.expect("upgraded"));
            tokio::spawn(rest(io));
        });
        let answer = Response::builder().status(101).header("connection", "Upgrade");
        let answer = answer.header("upgrade", "websocket");
        let answer = answer.header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        Ok::<_, Infallible>(answer.body(Full::<Bytes>::default()).expect("an answer"))
    }));
    local::upgrade(&mut client, "").await;
    local::join(&mut client, "room:a").await;
    client
}

/// The task of a connection that answers one message.
async fn rest(mut io: TokioIo<hyper::upgrade::Upgraded>) {
    const JOINED: &str = r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#;
    // No byte of the message is kept over a wait.
    for _ in push("1", "room:a", "phx_join", "{}") {
        io.read_u8().await.expect("a message");
    }
    io.write_u16(0x8100 + JOINED.len() as u16).await.expect("written");
    io.write_all(JOINED.as_bytes()).await.expect("written");
    pending::<()>().await;
    drop(io);
}

/// As many requests and answers, and one without an answer.
async fn least_poll() -> DuplexStream {
    let token = "x".repeat(48);
    let reply = r#"["1","1","room:a","phx_reply",{\"status\":\"ok\",\"response\":{}}]"#;
    let answers = [
        format!(r#"{{"messages":[],"status":410,"token":"{token}"}}"#),
        r#"{"status":200}"#.to_owned(),
        format!(r#"{{"messages":["{reply}"],"status":200,"token":"{token}"}}"#),
    ];
    let answers: Arc<[Bytes; 3]> = Arc::new(answers.map(Into::into));
    let (count, served) = (answers.len(), AtomicUsize::new(0));
    let mut client = local::connect(service_fn(move |request: Request<Incoming>| {
        drop(request);
        let answer = answers.get(served.fetch_add(1, Ordering::Relaxed)).cloned();
        async move {
            let Some(answer) = answer else { return pending().await };
            Ok::<_, Infallible>(Response::new(Full::new(answer)))
        }
    }));
    for _ in 0..count {
        local::ask(&mut client, "GET", &format!("token={token}"), "").await;
        local::answer(&mut client).await;
    }
    local::ask(&mut client, "GET", &format!("token={token}"), "").await;
    client
}
