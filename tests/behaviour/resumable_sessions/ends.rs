//! How sessions end, and what their clients receive.

use std::time::Duration;

use serde_json::json;

use super::{SESSION, new_msg, witness};
use crate::reference::Config;
use crate::support::Transport::{LongPoll as Poll, WebSocket};
use crate::support::longpoll::JSON;
use crate::support::raw_websocket::CLOSE;
use crate::support::{Client, Connection, LongPoll, RawWebSocket, Server, Version};

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
    let shutdown = Duration::from_secs(60);
    let mut server = Server::with(Config { shutdown, ..Config::default() }).await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("1", "room:a").await;
    conn.cut().await;
    server.shut_down();
    server.ended().await;
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
async fn a_client_ends_its_session_for_good() {
    for version in [Version::V1, Version::V2] {
        for transport in [WebSocket, Poll] {
            let server = Server::start().await;
            let mut conn = Connection::with_version(version, &server, transport, SESSION).await;
            conn.join("1", "room:a").await;
            conn.acknowledge_all().await;
            conn.send(r#"[null,null,"phoenix","end_session",{}]"#).await;
            match transport {
                WebSocket => conn.websocket().expect_close(1000).await,
                Poll => assert_eq!(conn.longpoll().poll().await, json!({"status": 500})),
            }
            let mut conn = Connection::with_version(version, &server, transport, SESSION).await;
            // An ordinary join, which pushes `joined`.
            conn.join("7", "room:a").await;
            conn.heartbeat().await;
        }
    }
}

/// As it is where a client cannot know what the server keeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_not_resumable_has_nothing_to_end() {
    let server = Server::start().await;
    for transport in [WebSocket, Poll] {
        let mut client = Client::connect(&server, transport, Version::V2, "").await;
        client.send(r#"[null,"1","phoenix","end_session",{}]"#).await;
        client
            .expect(
                r#"[null,"1","phoenix","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
            )
            .await;
        client.heartbeat().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_batch_is_handled_behind_the_end_of_the_session() {
    let server = Server::start().await;
    let mut witness = witness(&server, "room:a").await;
    let mut conn = Connection::open(&server, Poll, SESSION).await;
    conn.join("1", "room:a").await;
    conn.send_all(&[
        r#"["1","2","room:a","new_msg",{"n":1}]"#,
        r#"[null,null,"phoenix","end_session",{}]"#,
        r#"["1","3","room:a","new_msg",{"n":2}]"#,
    ])
    .await;
    witness.expect(&new_msg("room:a", 1)).await;
    witness.heartbeat().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superseded_connection_cannot_end_the_session() {
    for transport in [WebSocket, Poll] {
        let server = Server::start().await;
        let mut older = Connection::open(&server, transport, SESSION).await;
        older.join("1", "room:a").await;
        older.acknowledge_all().await;
        let mut newer = Connection::open(&server, transport, SESSION).await;
        newer.rejoin("7", "room:a").await;
        let end = r#"[null,null,"phoenix","end_session",{}]"#;
        match transport {
            WebSocket => older.websocket().send_text(end).await,
            Poll => assert_eq!(older.longpoll().post(JSON, end).await, json!({"status": 500})),
        }
        newer.ping("7", "room:a").await;
    }
}
