//! A newer connection takes a session over from an older one.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{SESSION, new_msg};
use crate::support::Transport::{LongPoll as Poll, WebSocket};
use crate::support::connection::ok;
use crate::support::longpoll::JSON;
use crate::support::{Connection, Http, LongPoll, Server, UPGRADE, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_websocket_closes_the_older_one_with_1012() {
    let server = Server::start().await;
    let mut older = Connection::open(&server, WebSocket, SESSION).await;
    // The session is attached a moment after the handshake is answered.
    older.heartbeat().await;
    older.pong().await;
    let mut newer = Connection::open(&server, WebSocket, SESSION).await;
    older.websocket().expect_close(1012).await;
    newer.heartbeat().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_takes_over_with_its_first_poll_not_when_it_gets_its_token() {
    let server = Server::start().await;
    let mut older = Connection::open(&server, WebSocket, SESSION).await;
    let mut newer = Connection::open(&server, Poll, SESSION).await;
    older.heartbeat().await;
    older.pong().await;
    newer.longpoll().send_poll().await;
    older.websocket().expect_close(1012).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_never_used_has_no_effect() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, Poll, SESSION).await;
    conn.join("1", "room:a").await;
    for _ in 0..3 {
        Connection::open(&server, Poll, SESSION).await;
    }
    server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
    conn.expect(&new_msg("room:a", 1)).await;
    conn.ping("1", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_poll_is_answered_204_and_its_next_request_500() {
    for newer in [WebSocket, Poll] {
        let server = Server::start().await;
        let mut older = LongPoll::open(&server, &format!("vsn=2.0.0&{SESSION}")).await;
        let mut pending = older.pending_poll(&server).await;
        let mut newer = Connection::open(&server, newer, SESSION).await;
        newer.heartbeat().await;
        let response = pending.response().await;
        assert_eq!(
            (&response["status"], &response["messages"]),
            (&json!(204), &json!([])),
            "{response}"
        );
        assert_eq!(older.poll().await, json!({"status": 500}));
        older.expect_gone().await;
        newer.heartbeat().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_connection_cannot_send_or_take_the_session_back() {
    let server = Server::start().await;
    let mut older = LongPoll::open(&server, &format!("vsn=2.0.0&{SESSION}")).await;
    older.post(JSON, r#"["1","1","room:a","phx_join",{}]"#).await;
    let mut newer = Connection::open(&server, WebSocket, SESSION).await;
    newer.begin_join("2", "room:a").await;
    newer.skip_to(&ok("2", "room:a")).await;
    newer.expect(r#"[null,null,"room:a","joined",{"user_id":"u1"}]"#).await;
    let response = older.post(JSON, r#"["1",null,"room:a","new_msg",{"n":1}]"#).await;
    assert_eq!(response, json!({"status": 500}));
    newer.ping("2", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_response_of_a_resumable_session_is_delayed() {
    let server = Server::start().await;
    let began = Instant::now();
    Connection::open(&server, Poll, SESSION).await;
    assert!(began.elapsed() >= Duration::from_millis(15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_connections_are_cut_repeatedly_keeps_its_session() {
    for transport in [WebSocket, Poll] {
        let server = Server::start().await;
        let mut conn = Connection::open(&server, transport, SESSION).await;
        conn.join("1", "room:a").await;
        conn.acknowledge_all().await;
        // The server does not notice any of these cuts.
        let mut dead = Vec::new();
        for _ in 0..20 {
            let mut next = Connection::open(&server, transport, SESSION).await;
            next.rejoin("7", "room:a").await;
            dead.push(std::mem::replace(&mut conn, next));
        }
        conn.acknowledge_all().await;
        conn.ping("7", "room:a").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_clients_that_compete_for_a_session_one_gets_a_new_session() {
    for transport in [WebSocket, Poll] {
        let server = Server::start().await;
        let mut conn = Connection::open(&server, transport, SESSION).await;
        conn.join("1", "room:a").await;
        conn.acknowledge_all().await;
        let own = soon(async {
            loop {
                let mut next = Connection::open(&server, transport, SESSION).await;
                next.send(r#"["7","7","room:a","phx_join",{}]"#).await;
                if next.recv().await.starts_with(r#"["7","7","#) {
                    return next;
                }
                std::mem::replace(&mut conn, next).yield_session().await;
            }
        });
        let mut own = own.await;
        own.expect(r#"["7",null,"room:a","joined",{"user_id":"u1"}]"#).await;
        server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
        own.expect(&new_msg("room:a", 1)).await;
        conn.skip_to(&new_msg("room:a", 1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flapping_websocket_is_rejected_once_and_the_session_goes_on_over_either_transport() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("1", "room:a").await;
    conn.acknowledge_all().await;
    conn.cut().await;
    for _ in 0..4 {
        Connection::open(&server, WebSocket, SESSION).await.cut().await;
    }
    let target = format!("/socket/websocket?vsn=2.0.0&{SESSION}");
    // The server may not have noticed the last loss yet: then one more is accepted, and lost, or rejected.
    let answered = async |status: u16| {
        let attempts = async {
            while Http::connect(&server).await.request("GET", &target, &UPGRADE, b"").await.status
                != status
            {}
        };
        soon(attempts).await;
    };
    answered(403).await;
    answered(101).await;
    let mut conn = Connection::open(&server, Poll, SESSION).await;
    conn.rejoin("7", "room:a").await;
    conn.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_close_its_websockets_as_soon_and_as_often_as_it_likes() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("1", "room:a").await;
    conn.acknowledge_all().await;
    for code in [Some(1000), Some(1001), None].into_iter().cycle().take(12) {
        conn.close_with(code).await;
        conn = Connection::open(&server, WebSocket, SESSION).await;
    }
    conn.rejoin("7", "room:a").await;
    conn.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_connect_cannot_resume_a_session() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.heartbeat().await;
    let target = format!("/socket/websocket?vsn=2.0.0&{SESSION}&reject=true");
    let rejected = Http::connect(&server).await.request("GET", &target, &UPGRADE, b"").await;
    assert_eq!(rejected.status, 403);
    conn.heartbeat().await;
}
