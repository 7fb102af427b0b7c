//! The memory of the endpoint, which all clients share.

use serde_json::json;
use tower_channels::channel::Result;
use tower_channels::{Channel, Endpoint, Joined, Payload, Socket};

use crate::support::longpoll::JSON;
use crate::support::raw_websocket::UPGRADE;
use crate::support::{Http, LongPoll, RawWebSocket, Response, Server, soon};

struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }
}

const KIB: usize = 1 << 10;

async fn server(memory: usize) -> (Server, Endpoint<()>) {
    let endpoint = Endpoint::builder(|_| async { Ok(()) })
        .channel::<Room>("room:*")
        .memory(memory)
        .max_message(256 * KIB)
        .build();
    let app = axum::Router::new().layer(endpoint.layer("/socket"));
    let server = Server::running(|listener, _| async { axum::serve(listener, app).await }).await;
    (server, endpoint)
}

/// A long-poll client that has joined a room and does not poll.
async fn member(server: &Server, topic: &str) -> LongPoll {
    let mut session = LongPoll::open(server, "vsn=2.0.0").await;
    let join = format!(r#"["1","1","{topic}","phx_join",{{}}]"#);
    assert_eq!(session.post(JSON, &join).await, json!({"status": 200}));
    session.receive(1).await;
    session
}

async fn connects(server: &Server) -> [Response; 2] {
    let upgrade = ("/socket/websocket?vsn=2.0.0", &UPGRADE[..]);
    let mut http = Http::connect(server).await;
    let websocket = http.request("GET", upgrade.0, upgrade.1, b"").await;
    let longpoll = Http::connect(server).await.get("/socket/longpoll?vsn=2.0.0").await;
    [websocket, longpoll]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_sessions_are_refused_while_memory_is_scarce() {
    // The session and its channel take a part, too.
    let (server, endpoint) = server(200 * KIB).await;
    let mut session = member(&server, "room:a").await;
    endpoint.broadcast("room:a", "news", json!("x".repeat(182 * KIB)));
    let [websocket, longpoll] = connects(&server).await;
    assert_eq!((websocket.status, &*websocket.body), (503, ""));
    // phoenix.js knows no 503 in the body of a poll.
    assert_eq!((longpoll.status, longpoll.json()), (503, json!({"status": 500})));
    // Those that have a session are served, and free the memory with the next poll.
    assert_eq!(session.receive(1).await.len(), 1);
    session.send_poll().await;
    soon(async { while connects(&server).await.map(|it| it.status) != [101, 200] {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_session_that_holds_most_is_closed_when_memory_is_exceeded() {
    let (server, endpoint) = server(400 * KIB).await;
    let mut large = member(&server, "room:large").await;
    let mut small = member(&server, "room:small").await;
    let news = |topic, size: usize| {
        endpoint.broadcast(topic, "news", json!("x".repeat(size)));
    };
    news("room:small", 100 * KIB);
    (0..2).for_each(|_| news("room:large", 140 * KIB));
    news("room:small", 40 * KIB);
    large.expect_gone().await;
    assert_eq!(small.receive(2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_message_counts() {
    let (server, _endpoint) = server(100 * KIB).await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    let mut other = RawWebSocket::open(&server, "vsn=2.0.0").await;
    // Most of a message, without its end.
    let frame = crate::support::raw_websocket::frame(0x02, &vec![0; 200 * KIB]);
    socket.send_bytes(&frame).await;
    socket.expect_close(1013).await;
    other.send_text(r#"[null,"1","phoenix","heartbeat",{}]"#).await;
    other.expect_text(r#"[null,"1","phoenix","phx_reply",{"status":"ok","response":{}}]"#).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_body_of_a_post_counts() {
    let (server, _endpoint) = server(100 * KIB).await;
    let session = member(&server, "room:a").await;
    let mut http = Http::connect(&server).await;
    let headers = [("Content-Length", "300000")];
    http.send_request("POST", &session.target(), &headers, &[b' '; 200 * KIB]).await;
    let response = soon(http.response_to("POST")).await.expect("a response");
    assert_eq!((response.status, response.json()), (503, json!({"status": 500})));
}
