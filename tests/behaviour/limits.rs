//! Input from clients is bounded, and exceeding a limit does not affect others.

use std::time::Duration;

use serde_json::json;

use crate::reference::Config;
use crate::support::binary::client_push;
use crate::support::longpoll::{JSON, NDJSON};
use crate::support::raw_websocket::{BINARY, CLOSE, TEXT, frame, head};
use crate::support::{
    Client, Frame, Http, LongPoll, RawWebSocket, Server, Transport, Version, base64, soon,
};

const MIB: usize = 1 << 20;
const FIN: u8 = 0x80;
const PING: &str = r#"["1","p","room:a","ping",{}]"#;
const ACK: &str = r#"["1","s","room:a","phx_reply",{"status":"ok","response":{}}]"#;
const PONG: &str = r#"["1","p","room:a","phx_reply",{"status":"ok","response":{}}]"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_one_mebibyte_is_accepted() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::member(&server).await;
    socket.send_text(&large(MIB)).await;
    socket.expect_text(ACK).await;
    socket.send_binary(&large_binary(MIB)).await;
    socket.expect_text(ACK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_right_after_one_of_one_mebibyte_is_handled() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::member(&server).await;
    for _ in 0..20 {
        let both = [frame(FIN | TEXT, large(MIB).as_bytes()), frame(FIN | TEXT, PING.as_bytes())];
        socket.send_bytes(&both.concat()).await;
        socket.expect_text(ACK).await;
        socket.expect_text(PONG).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_one_mebibyte_and_one_byte_closes_with_1009() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::member(&server).await;
    socket.send_text(&large(MIB + 1)).await;
    socket.expect_close(1009).await;
    let mut socket = RawWebSocket::member(&server).await;
    socket.send_binary(&large_binary(MIB + 1)).await;
    socket.expect_close(1009).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_of_one_mebibyte_in_total_are_accepted() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::member(&server).await;
    let text = large(MIB);
    let (start, end) = text.as_bytes().split_at(MIB / 2);
    socket.send_bytes(&frame(TEXT, start)).await;
    socket.send_bytes(&frame(FIN, end)).await;
    socket.expect_text(ACK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_body_over_one_mebibyte_is_a_413() {
    let server = Server::start().await;
    for content_type in [JSON, NDJSON] {
        let mut session = LongPoll::member(&server).await;
        let accepted = session.post(content_type, &large(MIB)).await;
        assert_eq!(accepted, json!({"status": 200}), "{content_type}");
        let rejected = session.post_raw(content_type, large(MIB + 1).as_bytes()).await;
        assert_eq!(
            (rejected.status, &*rejected.body),
            (413, r#"{"status":413}"#),
            "{content_type}"
        );
        // The session is still alive.
        let mut session = session.second_connection(&server).await;
        assert_eq!(session.receive(1).await, [ACK]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_binary_message_over_one_mebibyte_is_a_413() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    let accepted = session.post(NDJSON, &base64::encode(&large_binary(MIB))).await;
    assert_eq!(accepted, json!({"status": 200}));
    assert_eq!(session.receive(1).await, [ACK]);
    let more = base64::encode(&large_binary(MIB + 1));
    let rejected = session.post_raw(NDJSON, more.as_bytes()).await;
    assert_eq!((rejected.status, &*rejected.body), (413, r#"{"status":413}"#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_far_too_large_is_a_413() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    let lines = [large(MIB / 2), large(MIB / 2), large(MIB / 2), large(MIB / 2)].join("\n");
    let rejected = session.post_raw(NDJSON, lines.as_bytes()).await;
    assert_eq!((rejected.status, &*rejected.body), (413, r#"{"status":413}"#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_announces_too_much_is_rejected_before_it_arrives() {
    let server = Server::start().await;
    let session = LongPoll::member(&server).await;
    for length in ["10000000", "10000000000", "9223372036854775807"] {
        let mut http = Http::connect(&server).await;
        let headers = [("Content-Length", length)];
        http.send_request("POST", &session.target(), &headers, b"").await;
        let response = soon(http.response_to("POST")).await.expect("a response");
        assert_eq!((response.status, &*response.body), (413, r#"{"status":413}"#), "{length}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_chunked_body_is_rejected_midway() {
    let server = Server::start().await;
    let session = LongPoll::member(&server).await;
    let mut http = Http::connect(&server).await;
    http.send_request("POST", &session.target(), &[("Transfer-Encoding", "chunked")], b"").await;
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..32 {
        http.write(chunk.as_bytes()).await;
    }
    let response = soon(http.response_to("POST")).await.expect("a response");
    assert_eq!((response.status, &*response.body), (413, r#"{"status":413}"#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_that_announces_2_to_the_63_bytes_closes_at_once() {
    let server = Server::start().await;
    for length in [1 << 63, u64::MAX] {
        let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
        socket.send_bytes(&head(FIN | BINARY, length)).await;
        let close = socket.frame().await.expect("a close");
        assert_eq!(close.opcode, CLOSE);
        // Too big, or an invalid length by RFC 6455 section 5.2.
        assert!(matches!(close.payload[..], [3, 0xf1] | [3, 0xea]), "{close:?}");
        assert_eq!(socket.frame().await, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_fragments_are_one_message() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::member(&server).await;
    let text = large(10_000);
    let fragments = text.as_bytes().chunks(1).map(|byte| frame(0, byte)).collect::<Vec<_>>();
    let mut bytes = fragments.concat();
    bytes[0] = TEXT;
    socket.send_bytes(&bytes).await;
    socket.send_bytes(&frame(FIN, b"")).await;
    socket.expect_text(ACK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_fragments_close_with_1009() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::member(&server).await;
    let mut bytes = frame(0, &[b' '; 200]).repeat(10_000);
    bytes[0] = TEXT;
    socket.send_bytes(&bytes).await;
    socket.expect_close(1009).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_empty_lines_are_ignored() {
    let server = Server::start().await;
    let mut other = RawWebSocket::member(&server).await;
    let mut session = LongPoll::member(&server).await;
    for line in ["\n", "\r\n"] {
        let body = line.repeat(100_000);
        assert_eq!(session.post(NDJSON, &body).await, json!({"status": 200}));
    }
    session.post(JSON, PING).await;
    assert_eq!(session.poll().await["messages"], json!([PONG]));
    other.send_text(PING).await;
    other.expect_text(PONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_closes_the_connection_and_does_not_affect_others() {
    let idle = Duration::from_millis(500);
    let server = Server::with(Config { idle, ..Config::default() }).await;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for length in [1, 2, 3, 7, 14, 15, 64, 1000, 10_000] {
        let mut garbage = Vec::new();
        while garbage.len() < length {
            // xorshift64: arbitrary bytes, the same in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            garbage.extend(state.to_le_bytes());
        }
        let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
        socket.send_bytes(&garbage[..length]).await;
        let mut last = None;
        while let Some(frame) = socket.frame().await {
            last = Some(frame);
        }
        let last = last.expect("a close");
        assert_eq!(last.opcode, CLOSE, "{last:?}");
    }
    let mut other = RawWebSocket::member(&server).await;
    other.send_text(PING).await;
    other.expect_text(PONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_that_never_reads_closes_with_1013() {
    let server = Server::start().await;
    let mut silent = silent_member(&server).await;
    flood(&server).await;
    let mut last = None;
    while let Some(frame) = silent.frame().await {
        last = Some(frame);
    }
    let Frame { opcode, payload } = last.expect("a close");
    assert_eq!((opcode, &payload[..]), (CLOSE, &1013_u16.to_be_bytes()[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_that_never_reads_does_not_delay_others() {
    let server = Server::start().await;
    let _silent = silent_member(&server).await;
    let mut other = RawWebSocket::member(&server).await;
    tokio::join!(flood(&server), async {
        for _ in 0..FLOOD {
            assert_eq!(other.frame().await.expect("a broadcast").opcode, TEXT);
        }
    });
    other.send_text(PING).await;
    other.expect_text(PONG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_that_never_polls_loses_its_session() {
    let server = Server::start().await;
    let mut silent = LongPoll::member(&server).await;
    flood(&server).await;
    silent.expect_gone().await;
    silent.post(NDJSON, JOIN).await;
    assert_eq!(silent.poll().await["status"], 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_pushes_to_a_fast_handler_is_answered() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::member(&server).await;
    let burst = frame(FIN | TEXT, large(64 * 1024).as_bytes()).repeat(100);
    socket.send_bytes(&burst).await;
    for _ in 0..100 {
        socket.expect_text(ACK).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_that_never_acknowledges_loses_its_session() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    let token = session.token.clone();
    let large = "x".repeat(64 * 1024);
    let ping = format!(r#"["1","2","room:a","ping","{large}"]"#);
    soon(async {
        while session.post(JSON, &ping).await["status"] == 200 {
            session.token.clone_from(&token);
            session.poll().await;
            session.token.clone_from(&token);
        }
    })
    .await;
    // Earlier messages can still be acknowledged and read; then the session is gone.
    soon(async { while session.poll().await["status"] != 500 {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_closed_for_exceeding_a_limit_does_not_affect_others() {
    let server = Server::start().await;
    for transport in [Transport::WebSocket, Transport::LongPoll] {
        let mut other = Client::connect(&server, transport, Version::V2, "").await;
        other.join("1", "room:a").await;
        let mut socket = RawWebSocket::member(&server).await;
        socket.send_bytes(&head(FIN | TEXT, u64::MAX >> 1)).await;
        socket.expect_close(1009).await;
        other.ping("1", "room:a").await;
    }
}

const JOIN: &str = r#"["1","1","room:a","phx_join",{}]"#;
const FLOOD: usize = 16;

/// Broadcasts more than the buffers of a connection hold, quickly: a client that is closed for it
/// has only a few seconds to read the close.
async fn flood(server: &Server) {
    let large = format!(r#""{}""#, "x".repeat(900_000));
    for _ in 0..FLOOD {
        server.broadcast("room:a", "news", &large).await;
    }
}

/// Joins `room:a` with small buffers, without reading anything afterwards.
async fn silent_member(server: &Server) -> RawWebSocket {
    let mut silent = RawWebSocket::open_with_small_buffer(server, "vsn=2.0.0").await;
    silent.send_text(JOIN).await;
    // Ensures that it has joined before the flood. It reads nothing else.
    assert_eq!(silent.frame().await.expect("a reply").opcode, TEXT);
    silent
}

/// A message of that many bytes with a short reply.
fn large(length: usize) -> String {
    let empty = r#"["1","s","room:a","ack",""]"#;
    empty.replace(r#""""#, &format!(r#""{}""#, "x".repeat(length - empty.len())))
}

fn large_binary(length: usize) -> Vec<u8> {
    let empty = client_push("1", "s", "room:a", "ack", b"");
    client_push("1", "s", "room:a", "ack", &vec![0xff; length - empty.len()])
}
