//! Repeated requests.

use serde_json::json;

use super::{SESSION, new_msg, parameters};
use crate::support::Transport::{LongPoll as Poll, WebSocket};
use crate::support::connection::ok;
use crate::support::longpoll::{JSON, NDJSON};
use crate::support::{Connection, LongPoll, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_poll_gets_the_same_messages() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, &format!("vsn=2.0.0&{}", parameters(true, 0))).await;
    session.post(JSON, r#"["1","1","room:a","phx_join",{}]"#).await;
    session.post(JSON, r#"["1","2","room:a","ping",{}]"#).await;
    let mut messages = json!([]);
    while messages.as_array().map_or(0, Vec::len) < 3 {
        // Each poll uses the first token, so it gets all messages sent so far.
        messages = session.second_connection(&server).await.poll().await["messages"].take();
    }
    let joined = r#"[null,"s:1","room:a","joined",{"user_id":"u1"}]"#;
    assert_eq!(messages, json!([ok("1", "room:a"), joined, ok("2", "room:a")]));
    assert_eq!(json!(session.receive(3).await), messages);
    server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
    assert_eq!(session.receive(1).await, [r#"[null,"s:2","room:a","new_msg",{"n":1}]"#]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_post_is_handled_once() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, Poll, SESSION).await;
    conn.join("1", "room:a").await;
    let body = [r#"["1","2","room:a","new_msg",{"n":1}]"#, r#"["1","3","room:a","ping",{}]"#];
    for _ in 0..3 {
        let response = conn.longpoll().post(NDJSON, &body.join("\n")).await;
        assert_eq!(response, json!({"status": 200}));
    }
    conn.expect(&new_msg("room:a", 1)).await;
    conn.expect(&ok("3", "room:a")).await;
    conn.ping("1", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_ref_on_a_websocket_is_another_message() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("1", "room:a").await;
    for number in 1..=3 {
        conn.send(&format!(r#"["1","2","room:a","new_msg",{{"n":{number}}}]"#)).await;
        conn.expect(&new_msg("room:a", number)).await;
    }
}
