//! Graceful shutdown: every client is told to reconnect, and nothing delays the shutdown.

use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Http, LongPoll, RawWebSocket, Server, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_with_a_channel_closes_with_1012() {
    let mut server = Server::start().await;
    for version in ["vsn=1.0.0", "vsn=2.0.0"] {
        RawWebSocket::open(&server, version).await;
    }
    let mut socket = RawWebSocket::member(&server).await;
    server.shut_down();
    socket.expect_close(1012).await;
    drop(socket);
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_without_a_channel_closes_with_1012() {
    let mut server = Server::start().await;
    let mut sockets = [
        RawWebSocket::open(&server, "vsn=1.0.0").await,
        RawWebSocket::open(&server, "vsn=2.0.0").await,
    ];
    server.shut_down();
    for socket in &mut sockets {
        socket.expect_close(1012).await;
    }
    drop(sockets);
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_poll_is_answered_at_once() {
    let mut server = Server::start().await;
    let session = LongPoll::open(&server, "vsn=2.0.0").await;
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
async fn no_connection_is_accepted_afterwards() {
    let mut server = Server::start().await;
    let address = server.address();
    server.shut_down();
    server.ended().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_http_connection_does_not_delay_the_shutdown() {
    let mut server = Server::start().await;
    let mut used = Http::connect(&server).await;
    used.get("/health").await;
    let _unused = TcpStream::connect(server.address()).await.unwrap();
    server.shut_down();
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_frame_does_not_delay_the_shutdown() {
    let mut server = Server::start().await;
    let mut socket = RawWebSocket::member(&server).await;
    socket.send_bytes(&[0x81]).await;
    server.shut_down();
    socket.expect_close(1012).await;
    drop(socket);
    server.ended().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_does_not_delay_the_shutdown() {
    let mut server = Server::start().await;
    let mut silent = RawWebSocket::open_with_small_buffer(&server, "vsn=2.0.0").await;
    silent.send_text(r#"["1","1","room:a","phx_join",{}]"#).await;
    // More than the buffers of the connection hold, less than the outbox limit.
    let large = format!(r#"["1","2","room:a","ping","{}"]"#, "x".repeat(100_000));
    for _ in 0..10 {
        silent.send_text(&large).await;
    }
    server.shut_down();
    soon(server.ended()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_websockets_are_closed_in_bounded_time() {
    let mut server = Server::start().await;
    let mut sockets = Vec::new();
    for _ in 0..200 {
        sockets.push(RawWebSocket::open(&server, "vsn=2.0.0").await);
    }
    server.shut_down();
    for socket in &mut sockets {
        socket.expect_close(1012).await;
    }
    drop(sockets);
    server.ended().await;
}
