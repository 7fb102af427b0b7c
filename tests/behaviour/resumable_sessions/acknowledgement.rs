//! Sequence numbers, and what acknowledges a message.

use std::time::Duration;

use super::{SESSION, new_msg, parameters, witness};
use crate::support::Transport::{LongPoll as Poll, WebSocket};
use crate::support::raw_websocket::PING;
use crate::support::{Connection, RawWebSocket, Server, binary};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consecutive_numbers_stand_in_place_of_null_refs() {
    for transport in [WebSocket, Poll] {
        let server = Server::start().await;
        let mut conn = Connection::open(&server, transport, &parameters(true, 0)).await;
        conn.join("1", "room:a").await;
        assert_eq!(conn.received(), 1);
        for number in 2..5 {
            server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
            conn.expect(&new_msg("room:a", 1)).await;
            assert_eq!(conn.received(), number);
            conn.ping("1", "room:a").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_session_continues_from_the_number_of_the_client() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, &parameters(true, 41)).await;
    conn.join("1", "room:a").await;
    assert_eq!(conn.received(), 42);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_value_of_received_is_harmless() {
    let server = Server::start().await;
    for (index, received) in
        ["18446744073709551615", "9007199254740991", "-1", "1e3", "", "x"].iter().enumerate()
    {
        let parameters = format!(
            "vsn=2.0.0&user_id=u1&session=0123456789abcdefghij{index}x&received={received}"
        );
        let mut socket = RawWebSocket::open(&server, &parameters).await;
        socket.send_text(r#"["1","1","room:a","phx_join",{}]"#).await;
        for _ in 0..3 {
            socket.send_text(r#"["1",null,"room:a","push_me",{}]"#).await;
        }
        let mut pushed = 0;
        while pushed < 3 {
            let frame = socket.frame().await.expect("a live session");
            pushed += usize::from(String::from_utf8_lossy(&frame.payload).contains("pushed"));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binary_messages_are_numbered() {
    for transport in [WebSocket, Poll] {
        let server = Server::start().await;
        let parameters = format!("{}&binary=base64", parameters(true, 0));
        let mut conn = Connection::open(&server, transport, &parameters).await;
        conn.join("1", "room:a").await;
        let mut other = witness(&server, "room:a").await;
        other.send_binary(&binary::client_push("1", "2", "room:a", "new_msg", &[0, 255])).await;
        conn.expect_binary(&binary::broadcast("room:a", "new_msg", &[0, 255])).await;
        server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
        conn.expect(&new_msg("room:a", 1)).await;
        assert_eq!(conn.received(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binary_message_is_replayed_in_its_place() {
    let server = Server::start().await;
    let with_binary = |received| format!("{}&binary=base64", parameters(true, received));
    for (from, to) in [(WebSocket, Poll), (Poll, WebSocket)] {
        let mut conn = Connection::open(&server, from, &with_binary(0)).await;
        conn.join("1", "room:a").await;
        let mut other = witness(&server, "room:a").await;
        let received = conn.cut().await;
        let push = |byte| binary::client_push("1", "2", "room:a", "new_msg", &[byte]);
        other.send_binary(&push(1)).await;
        other.send(r#"["1",null,"room:a","new_msg",{"n":1}]"#).await;
        other.send_binary(&push(2)).await;
        other.expect_binary(&binary::broadcast("room:a", "new_msg", &[1])).await;
        other.expect(&new_msg("room:a", 1)).await;
        other.expect_binary(&binary::broadcast("room:a", "new_msg", &[2])).await;
        let mut conn = Connection::open(&server, to, &with_binary(received)).await;
        conn.rejoin("7", "room:a").await;
        conn.expect_binary(&binary::broadcast("room:a", "new_msg", &[1])).await;
        conn.expect(&new_msg("room:a", 1)).await;
        conn.expect_binary(&binary::broadcast("room:a", "new_msg", &[2])).await;
        // A wrong count would lose or repeat a message here.
        let mut conn = Connection::open(&server, from, &with_binary(conn.received())).await;
        conn.rejoin("8", "room:a").await;
        conn.ping("8", "room:a").await;
        server.disconnect("user_socket:u1").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn received_acknowledges_messages_up_to_its_number() {
    for (from, to) in [(WebSocket, WebSocket), (WebSocket, Poll), (Poll, WebSocket), (Poll, Poll)] {
        let server = Server::start().await;
        let mut conn = Connection::open(&server, from, &parameters(true, 0)).await;
        conn.join("1", "room:a").await;
        for number in 1..=5 {
            server.broadcast("room:a", "new_msg", &format!(r#"{{"n":{number}}}"#)).await;
            conn.expect(&new_msg("room:a", number)).await;
        }
        // The page has received up to the third message, which is number 4, since `joined` is
        // number 1.
        conn.cut().await;
        let mut conn = Connection::open(&server, to, &parameters(true, 4)).await;
        conn.rejoin("7", "room:a").await;
        conn.expect(&new_msg("room:a", 4)).await;
        conn.expect(&new_msg("room:a", 5)).await;
        conn.ping("7", "room:a").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_acknowledged_by_a_pong_are_sent_again_if_received_is_lower() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, &parameters(true, 0)).await;
    conn.join("1", "room:a").await;
    for number in 1..=3 {
        server.broadcast("room:a", "new_msg", &format!(r#"{{"n":{number}}}"#)).await;
        conn.expect(&new_msg("room:a", number)).await;
    }
    conn.pong().await;
    conn.cut().await;
    let mut conn = Connection::open(&server, WebSocket, &parameters(true, 2)).await;
    conn.rejoin("7", "room:a").await;
    conn.expect(&new_msg("room:a", 2)).await;
    conn.expect(&new_msg("room:a", 3)).await;
    conn.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_missed_evicted_messages_gets_a_new_session() {
    for to in [WebSocket, Poll] {
        let server = Server::start().await;
        let mut older = Connection::open(&server, WebSocket, &parameters(true, 0)).await;
        older.join("1", "room:a").await;
        let large = format!(r#""{}""#, "x".repeat(100_000));
        for _ in 0..5 {
            server.broadcast("room:a", "new_msg", &large).await;
            older.recv().await;
        }
        older.pong().await;
        // The server has read the Pong, which acknowledged more than is retained for a page that
        // has received only the first message.
        older.heartbeat().await;
        older.pong().await;
        let mut conn = Connection::open(&server, to, &parameters(true, 2)).await;
        conn.join("7", "room:a").await;
        assert_eq!(conn.received(), 3);
        older.websocket().expect_close(1012).await;
    }
}

/// Opens a connection without numbers on which one message has been received but not acknowledged.
async fn read_one(server: &Server) -> Connection {
    let mut conn = Connection::open(server, WebSocket, SESSION).await;
    conn.join("1", "room:a").await;
    conn.pong().await;
    // The reply proves that the server has read the Pong.
    conn.heartbeat().await;
    server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
    conn.expect(&new_msg("room:a", 1)).await;
    conn
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_acknowledged_by_a_pong_are_not_sent_again_after_a_cut() {
    let server = Server::start().await;
    let mut conn = read_one(&server).await;
    conn.pong().await;
    conn.heartbeat().await;
    conn.cut().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.rejoin("7", "room:a").await;
    conn.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unacknowledged_messages_are_sent_again() {
    let server = Server::start().await;
    read_one(&server).await.cut().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.rejoin("7", "room:a").await;
    conn.expect(&new_msg("room:a", 1)).await;
    conn.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_acknowledged_only_by_a_pong_are_sent_again_if_the_client_closed() {
    let server = Server::start().await;
    let mut conn = read_one(&server).await;
    conn.pong().await;
    conn.close().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.rejoin("7", "room:a").await;
    conn.skip_to(&new_msg("room:a", 1)).await;
    conn.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_acknowledged_only_by_a_pong_are_sent_again_if_the_client_seemed_alive() {
    let server = Server::start().await;
    let mut older = read_one(&server).await;
    older.pong().await;
    older.heartbeat().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.rejoin("7", "room:a").await;
    conn.skip_to(&new_msg("room:a", 1)).await;
    conn.ping("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_acknowledged_by_a_heartbeat_are_not_sent_again_even_if_the_client_closed() {
    let server = Server::start().await;
    let mut conn = read_one(&server).await;
    conn.acknowledge_all().await;
    conn.close().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.rejoin("7", "room:a").await;
    conn.ping("7", "room:a").await;
}

/// Sends heartbeats without reading anything, each after the server has replied to the one before.
async fn beat_without_reading(conn: &mut Connection, heartbeat: &str) {
    for _ in 0..5 {
        conn.send(heartbeat).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_that_do_not_wait_for_replies_acknowledge_nothing() {
    let heartbeats =
        [(true, r#"[null,"h","phoenix","heartbeat",{}]"#), (false, NULL), (true, NULL)];
    for (numbered, heartbeat) in heartbeats {
        for to in [WebSocket, Poll] {
            let server = Server::start().await;
            let mut conn = Connection::open(&server, WebSocket, &parameters(numbered, 0)).await;
            conn.join("1", "room:a").await;
            conn.pong().await;
            for number in 1..=2 {
                server.broadcast("room:a", "new_msg", &format!(r#"{{"n":{number}}}"#)).await;
                beat_without_reading(&mut conn, heartbeat).await;
            }
            let received = conn.cut().await;
            let mut conn = Connection::open(&server, to, &parameters(numbered, received)).await;
            conn.rejoin("7", "room:a").await;
            conn.expect(&new_msg("room:a", 1)).await;
            conn.expect(&new_msg("room:a", 2)).await;
            conn.ping("7", "room:a").await;
        }
    }
}

const NULL: &str = r#"[null,null,"phoenix","heartbeat",{}]"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_1_0_0_are_numbered() {
    let server = Server::start().await;
    for received in [0, 1] {
        let parameters = format!("vsn=1.0.0&{SESSION}&received={received}");
        let mut socket = RawWebSocket::open(&server, &parameters).await;
        let join = r#"{"topic":"room:a","event":"phx_join","payload":{},"ref":"1"}"#;
        socket.send_text(join).await;
        let reply = r#"{"ref":"1","event":"phx_reply","payload":{"status":"ok","response":{}},"topic":"room:a"}"#;
        let next = match received {
            0 => r#"{"ref":"s:1","event":"joined","payload":{"user_id":"u1"},"topic":"room:a"}"#,
            _ => r#"{"ref":"s:2","event":"new_msg","payload":{"n":1},"topic":"room:a"}"#,
        };
        for expected in [reply, next] {
            let mut frame = socket.frame().await.expect("a message");
            while frame.opcode == PING {
                frame = socket.frame().await.expect("a message");
            }
            assert_eq!(String::from_utf8_lossy(&frame.payload), expected);
        }
        socket.hang_up().await;
        server.broadcast("room:a", "new_msg", r#"{"n":1}"#).await;
    }
}
