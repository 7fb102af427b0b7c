//! A client that sends more than its rate is read more slowly, and far more than its rate, no more.

use std::time::{Duration, Instant};

use serde_json::json;
use tower_channels::channel::Result;
use tower_channels::{Channel, Endpoint, Joined, Payload, Rate, Reply, Socket};

use crate::support::longpoll::NDJSON;
use crate::support::raw_websocket::{TEXT, frame};
use crate::support::{LongPoll, RawWebSocket, Server};

struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(&mut self, _: &str, _: Payload, _: &Socket<Self>) -> Result<Reply> {
        Ok(Reply::ack())
    }
}

/// Allows 100 messages per second, and 10 at once.
async fn server() -> Server {
    server_with(1 << 20).await
}

async fn server_with(bytes: usize) -> Server {
    let endpoint = Endpoint::builder(|_| async { Ok(()) })
        .channel::<Room>("room:*")
        .rate(Rate::new(100, bytes).burst(Duration::from_millis(100)))
        .build();
    let app = axum::Router::new().layer(endpoint.layer("/socket"));
    Server::running(|listener, _| async { axum::serve(listener, app).await }).await
}

fn push(n: usize) -> String {
    if n == 0 {
        return r#"["1","0","room:a","phx_join",{}]"#.to_owned();
    }
    format!(r#"["1","{n}","room:a","ping",{{}}]"#)
}

fn reply(n: usize) -> String {
    format!(r#"["1","{n}","room:a","phx_reply",{{"status":"ok","response":{{}}}}]"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_above_its_rate_is_answered_at_its_rate() {
    let server = server().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    let all: Vec<_> = (0..60).flat_map(|n| frame(0x80 | TEXT, push(n).as_bytes())).collect();
    let start = Instant::now();
    socket.send_bytes(&all).await;
    for n in 0..60 {
        socket.expect_text(&reply(n)).await;
    }
    // Without the burst, 50 messages take half a second.
    assert!(start.elapsed() >= Duration::from_millis(490), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_post_above_the_rate_waits() {
    let server = server().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let start = Instant::now();
    let all: Vec<_> = (0..60).map(push).collect();
    assert_eq!(session.post(NDJSON, &all.join("\n")).await, json!({"status": 200}));
    assert!(start.elapsed() >= Duration::from_millis(490), "{:?}", start.elapsed());
    assert_eq!(session.receive(60).await.len(), 60);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_times_the_burst_at_once_ends_the_session() {
    let server = server().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let all: Vec<_> = (0..102).map(push).collect();
    assert_eq!(session.post(NDJSON, &all.join("\n")).await, json!({"status": 500}));
    // At most 10,000 bytes.
    let server = server_with(10_000).await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    let large = format!(r#"["1","1","room:a","ping","{}"]"#, "x".repeat(60_000));
    socket.send_text(&large).await;
    loop {
        let next = socket.frame().await.expect("a close");
        if next.opcode == crate::support::raw_websocket::CLOSE {
            assert_eq!(next.payload[..2], 1008_u16.to_be_bytes());
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_below_its_rate_is_not_delayed() {
    let server = server().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let all: Vec<_> = (0..9).map(push).collect();
    assert_eq!(session.post(NDJSON, &all.join("\n")).await, json!({"status": 200}));
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    for n in 0..9 {
        socket.send_text(&push(n)).await;
        socket.expect_text(&reply(n)).await;
    }
}
