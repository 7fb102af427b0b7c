//! How sessions end, and what their clients receive.

use std::time::{Duration, Instant};

use serde_json::json;

use super::SESSION;
use crate::support::Transport::WebSocket;
use crate::support::longpoll::JSON;
use crate::support::raw_websocket::CLOSE;
use crate::support::{Connection, LongPoll, RawWebSocket, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_by_id_closes_the_connection_and_ends_the_session() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("1", "room:a").await;
    conn.pong().await;
    server.disconnect("user_socket:u1").await;
    conn.websocket().expect_close(1001).await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_by_id_answers_the_pending_poll_204_and_the_next_500() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, &format!("vsn=2.0.0&{SESSION}")).await;
    let mut pending = session.pending_poll(&server).await;
    server.disconnect("user_socket:u1").await;
    let response = pending.response().await;
    assert_eq!(
        (&response["status"], &response["messages"]),
        (&json!(204), &json!([])),
        "{response}"
    );
    assert_eq!(session.poll().await, json!({"status": 500}));
    session.expect_gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_does_not_read_closes_with_1013_and_the_session_starts_anew() {
    let server = Server::start().await;
    let mut socket =
        RawWebSocket::open_with_small_buffer(&server, &format!("vsn=2.0.0&{SESSION}")).await;
    socket.send_text(r#"["1","1","room:a","phx_join",{}]"#).await;
    let payload = format!(r#""{}""#, "x".repeat(300_000));
    for _ in 0..12 {
        server.broadcast("room:a", "new_msg", &payload).await;
    }
    let mut last = None;
    while let Some(frame) = socket.frame().await {
        last = Some(frame);
    }
    let last = last.expect("a close");
    assert_eq!((last.opcode, &*last.payload), (CLOSE, &1013_u16.to_be_bytes()[..]));
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("7", "room:a").await;
    conn.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_message_ends_the_session() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("1", "room:a").await;
    conn.pong().await;
    conn.websocket().send_text("not json").await;
    conn.websocket().expect_close(1011).await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_ends_detached_sessions_at_once() {
    let mut server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("1", "room:a").await;
    conn.cut().await;
    let began = Instant::now();
    server.shut_down();
    server.ended().await;
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_closes_the_websocket_of_a_session_with_1012() {
    let mut server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("1", "room:a").await;
    conn.pong().await;
    server.shut_down();
    conn.websocket().expect_close(1012).await;
    drop(conn);
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_answers_the_pending_poll_of_a_session() {
    let mut server = Server::start().await;
    let session = LongPoll::open(&server, &format!("vsn=2.0.0&{SESSION}")).await;
    let mut pending = session.pending_poll(&server).await;
    server.shut_down();
    let response = pending.response().await;
    assert_eq!(
        (&response["status"], &response["messages"]),
        (&json!(204), &json!([])),
        "{response}"
    );
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_presented_an_unknown_token_is_made_to_rejoin() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    // A token of another server, as after a restart.
    session.token = LongPoll::open(&Server::start().await, "vsn=2.0.0").await.token;
    session.expect_gone().await;
    session.post(JSON, r#"["1","5","room:a","ping",{}]"#).await;
    let got = session.receive(2).await;
    assert_eq!(
        got[0],
        r#"[null,"5","room:a","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#
    );
    assert!(got[1].starts_with(r#"["1","1","room:a","phx_error","#), "{got:?}");
}
