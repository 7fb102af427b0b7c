//! Replies to heartbeats and joins overtake a replay.

use super::SESSION;
use crate::support::Transport::WebSocket;
use crate::support::connection::ok;
use crate::support::raw_websocket::{PING, PONG, TEXT, frame as masked};
use crate::support::{Connection, RawWebSocket, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_overtakes_a_replay_to_a_client_that_reads_slowly() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("1", "room:a").await;
    conn.acknowledge_all().await;
    conn.cut().await;
    let payload = format!(r#""{}""#, "x".repeat(60_000));
    for _ in 0..16 {
        server.broadcast("room:a", "new_msg", &payload).await;
    }
    let mut socket =
        RawWebSocket::open_with_small_buffer(&server, &format!("vsn=2.0.0&{SESSION}")).await;
    socket.send_text(r#"["7","7","room:a","phx_join",{}]"#).await;
    let mut before = 0;
    let mut after = 0;
    let mut replied = false;
    while before + after < 16 {
        let frame = socket.frame().await.expect("a frame");
        if frame.opcode == PING {
            socket.send_bytes(&masked(0x80 | PONG, &frame.payload)).await;
        } else if frame.payload.len() > 60_000 {
            if before == 0 {
                socket.send_text(r#"[null,"8","phoenix","heartbeat",{}]"#).await;
            }
            if replied { after += 1 } else { before += 1 }
        } else {
            replied |= frame.payload == ok("8", "phoenix").as_bytes();
        }
    }
    assert!(replied && before <= 6, "{before} messages of 60 kB preceded the heartbeat's reply");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reply_to_a_join_overtakes_a_replay() {
    let server = Server::start().await;
    let mut conn = Connection::open(&server, WebSocket, SESSION).await;
    conn.join("1", "room:a").await;
    conn.join("2", "room:b").await;
    conn.acknowledge_all().await;
    conn.cut().await;
    let payload = format!(r#""{}""#, "x".repeat(60_000));
    for _ in 0..16 {
        server.broadcast("room:a", "new_msg", &payload).await;
    }
    let mut socket =
        RawWebSocket::open_with_small_buffer(&server, &format!("vsn=2.0.0&{SESSION}")).await;
    socket.send_text(r#"["7","7","room:a","phx_join",{}]"#).await;
    let mut before = 0;
    loop {
        let frame = socket.frame().await.expect("a frame");
        if frame.opcode == TEXT && frame.payload.len() > 60_000 {
            if before == 0 {
                socket.send_text(r#"["8","8","room:b","phx_join",{}]"#).await;
            }
            before += 1;
        } else if frame.payload == ok("8", "room:b").as_bytes() {
            break;
        }
    }
    assert!(before <= 6, "{before} messages of 60 kB preceded the join's reply");
}
