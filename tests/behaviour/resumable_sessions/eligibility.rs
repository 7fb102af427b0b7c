//! Which clients get a resumable session.

use super::SESSION;
use crate::support::Transport::{LongPoll as Poll, WebSocket};
use crate::support::raw_websocket::{PING, PONG, frame};
use crate::support::{Client, Connection, RawWebSocket, Server, Version};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_valid_session_id_and_a_socket_id_sessions_behave_as_in_phoenix() {
    let server = Server::start().await;
    let long = "a".repeat(65);
    for parameters in [
        "user_id=u1",
        "user_id=u1&received=0",
        "user_id=u1&session=",
        "user_id=u1&session=0123456789abcdefghi",
        &format!("user_id=u1&session={long}"),
        "user_id=u1&session=0123456789abcdefghij.l&received=3",
        "user_id=u1&session=0123456789abcdefghij%20l",
        "user_id=u1&session[]=0123456789abcdefghijkl",
        "session=0123456789abcdefghijkl&received=0",
    ] {
        for transport in [WebSocket, Poll] {
            let mut client = Client::connect(&server, transport, Version::V2, parameters).await;
            client.send(r#"["1","1","room:a","phx_join",{}]"#).await;
            client.expect(r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
            let joined = client.recv().await;
            assert!(joined.starts_with(r#"["1",null,"room:a","joined""#), "{parameters}: {joined}");
            client.send(r#"["1",null,"room:a","new_msg",{}]"#).await;
            client.expect(r#"[null,null,"room:a","new_msg",{}]"#).await;
            client.ping("1", "room:a").await;
            client.send(r#"["1","5","room:a","phx_leave",{}]"#).await;
            client.expect(r#"["1","5","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
            client.expect(r#"["1","1","room:a","phx_close",{}]"#).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_without_a_session_id_receives_no_pings() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::member(&server).await;
    for _ in 0..3 {
        // Any other frame than the reply fails.
        socket.expect_nothing().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_without_messages_receives_no_pings() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("1", "room:a").await;
    conn.cut().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.websocket().send_bytes(&frame(0x80 | PING, b"first")).await;
    conn.websocket().expect_frame(PONG, b"first").await;
    conn.rejoin("7", "room:a").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_ids_of_20_to_64_characters_are_accepted() {
    let server = Server::start().await;
    for id in ["Az09_-Az09_-Az09_-Az", "V1StGXR8_Z5jdHi6B-myT", &"a".repeat(64)] {
        let parameters = format!("user_id=u1&session={id}");
        let mut conn = Connection::open(&server, WebSocket, &parameters).await;
        conn.join("1", "room:a").await;
        conn.acknowledge_all().await;
        conn.cut().await;
        let mut conn = Connection::open(&server, WebSocket, &parameters).await;
        conn.rejoin("7", "room:a").await;
        conn.ping("7", "room:a").await;
    }
}
