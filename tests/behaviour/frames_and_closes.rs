//! WebSocket frames and the ways in which a WebSocket ends.

use std::time::{Duration, Instant};

use crate::reference::Config;
use crate::support::raw_websocket::{BINARY, CLOSE, PING, PONG, TEXT, close, frame, head};
use crate::support::{RawWebSocket, Server, soon};

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const HEARTBEAT: &[u8] = br#"[null,"2","phoenix","heartbeat",{}]"#;
const REPLY: &str = r#"[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]"#;

#[tokio::test]
async fn a_close_is_answered_with_1000_whatever_its_code() {
    let server = Server::start().await;
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4000, 4999, 5000] {
        let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
        socket.send_bytes(&close(code, b"")).await;
        socket.expect_close(1000).await;
    }
}

#[tokio::test]
async fn a_close_without_a_code_is_answered_with_1000() {
    answered_with_close(&frame(FIN | CLOSE, b""), 1000).await;
}

#[tokio::test]
async fn a_close_with_a_reason_is_answered_with_1000() {
    answered_with_close(&close(1000, "bye ✓".as_bytes()), 1000).await;
    answered_with_close(&close(4000, &[b'x'; 123]), 1000).await;
}

#[tokio::test]
async fn a_close_with_a_code_that_must_not_be_sent_is_a_protocol_error() {
    let server = Server::start().await;
    for code in [0, 999, 1004, 1005, 1006, 1012, 1015, 1016, 1100, 2000, 2999] {
        let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
        socket.send_bytes(&close(code, b"")).await;
        socket.expect_close(1002).await;
    }
}

#[tokio::test]
async fn a_close_with_half_a_code_is_a_protocol_error() {
    answered_with_close(&frame(FIN | CLOSE, b"\x03"), 1002).await;
}

#[tokio::test]
async fn a_close_whose_reason_is_not_utf8_is_a_protocol_error() {
    answered_with_close(&close(1000, b"\xff\xfe"), 1002).await;
}

#[tokio::test]
async fn what_follows_a_close_is_not_handled() {
    let bytes = [close(1000, b""), frame(FIN | TEXT, HEARTBEAT)].concat();
    answered_with_close(&bytes, 1000).await;
}

#[tokio::test]
async fn what_precedes_a_close_is_handled() {
    let server = Server::start().await;
    let mut member = RawWebSocket::member(&server).await;
    let mut leaver = RawWebSocket::member(&server).await;
    let message = frame(FIN | TEXT, br#"["1","2","room:a","typing",{"last":1}]"#);
    leaver.send_bytes(&[message, close(1000, b"")].concat()).await;
    leaver.expect_close(1000).await;
    member.expect_text(r#"[null,null,"room:a","typing",{"last":1}]"#).await;
}

#[tokio::test]
async fn a_ping_is_answered_with_its_data() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    for data in [&b""[..], b"abc", &[0xff; 125]] {
        socket.send_bytes(&frame(FIN | PING, data)).await;
        socket.expect_frame(PONG, data).await;
    }
}

#[tokio::test]
async fn an_unasked_pong_is_ignored() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    socket.send_bytes(&frame(FIN | PONG, b"abc")).await;
    socket.expect_nothing().await;
}

#[tokio::test]
async fn a_message_may_come_in_fragments() {
    let fragments = [
        frame(TEXT, &HEARTBEAT[..5]),
        frame(CONTINUATION, &HEARTBEAT[5..9]),
        frame(FIN | CONTINUATION, &HEARTBEAT[9..]),
    ];
    answered_with_text(&fragments.concat(), REPLY).await;
}

#[tokio::test]
async fn an_empty_first_and_an_empty_last_fragment_are_fine() {
    let fragments = [frame(TEXT, b""), frame(FIN | CONTINUATION, HEARTBEAT)];
    answered_with_text(&fragments.concat(), REPLY).await;
    let fragments = [frame(TEXT, HEARTBEAT), frame(FIN | CONTINUATION, b"")];
    answered_with_text(&fragments.concat(), REPLY).await;
}

#[tokio::test]
async fn a_ping_between_fragments_is_answered_at_once() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    socket.send_bytes(&frame(TEXT, &HEARTBEAT[..5])).await;
    socket.send_bytes(&frame(FIN | PING, b"abc")).await;
    socket.expect_frame(PONG, b"abc").await;
    socket.send_bytes(&frame(FIN | CONTINUATION, &HEARTBEAT[5..])).await;
    socket.expect_text(REPLY).await;
}

#[tokio::test]
async fn a_character_may_be_cut_between_fragments() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::member(&server).await;
    let message = r#"["1","2","room:a","ping","é✓😀"]"#.as_bytes();
    let mut fragments = vec![frame(TEXT, b"")];
    fragments.extend(message.iter().map(|byte| frame(CONTINUATION, &[*byte])));
    fragments.push(frame(FIN | CONTINUATION, b""));
    socket.send_bytes(&fragments.concat()).await;
    socket.expect_text(r#"["1","2","room:a","phx_reply",{"status":"ok","response":"é✓😀"}]"#).await;
}

#[tokio::test]
async fn a_message_may_come_byte_by_byte() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    for byte in frame(FIN | TEXT, HEARTBEAT) {
        socket.send_bytes(&[byte]).await;
        tokio::task::yield_now().await;
    }
    socket.expect_text(REPLY).await;
}

#[tokio::test]
async fn many_frames_may_come_in_one_write() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    socket.send_bytes(&frame(FIN | TEXT, HEARTBEAT).repeat(200)).await;
    for _ in 0..200 {
        socket.expect_text(REPLY).await;
    }
}

#[tokio::test]
async fn a_text_that_is_not_utf8_closes_with_1007() {
    for payload in
        [&b"\xff"[..], b"[\"\xc0\xaf\"]", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"abc\xe2\x82"]
    {
        answered_with_close(&frame(FIN | TEXT, payload), 1007).await;
    }
}

#[tokio::test]
async fn a_fragmented_text_that_is_not_utf8_closes_with_1007() {
    let fragments = [frame(TEXT, b"abc\xe2"), frame(FIN | CONTINUATION, b"abc")];
    answered_with_close(&fragments.concat(), 1007).await;
}

#[tokio::test]
async fn an_unmasked_frame_closes_with_1002() {
    answered_with_close(&[FIN | TEXT, 2, b'[', b']'], 1002).await;
    answered_with_close(&[FIN | PING, 0], 1002).await;
}

#[tokio::test]
async fn reserved_bits_close_with_1002() {
    for bit in [0x40, 0x20, 0x10] {
        answered_with_close(&frame(FIN | bit | TEXT, HEARTBEAT), 1002).await;
        answered_with_close(&frame(FIN | bit | PING, b""), 1002).await;
    }
}

#[tokio::test]
async fn reserved_opcodes_close_with_1002() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        answered_with_close(&frame(FIN | opcode, b""), 1002).await;
    }
}

#[tokio::test]
async fn a_fragmented_control_frame_closes_with_1002() {
    for opcode in [CLOSE, PING, PONG] {
        answered_with_close(&frame(opcode, b""), 1002).await;
    }
}

#[tokio::test]
async fn a_control_frame_over_125_bytes_closes_with_1002() {
    for opcode in [CLOSE, PING, PONG] {
        answered_with_close(&frame(FIN | opcode, &[b'x'; 126]), 1002).await;
    }
}

#[tokio::test]
async fn a_continuation_of_nothing_closes_with_1002() {
    answered_with_close(&frame(FIN | CONTINUATION, b"abc"), 1002).await;
    answered_with_close(&frame(CONTINUATION, b"abc"), 1002).await;
}

#[tokio::test]
async fn a_new_message_inside_a_fragmented_one_closes_with_1002() {
    for opcode in [TEXT, BINARY] {
        let fragments = [frame(TEXT, b"abc"), frame(FIN | opcode, b"abc")];
        answered_with_close(&fragments.concat(), 1002).await;
    }
}

#[tokio::test]
async fn an_empty_continuation_that_is_not_the_last_closes_with_1008() {
    let fragments = [frame(TEXT, b"abc"), frame(CONTINUATION, b"")];
    answered_with_close(&fragments.concat(), 1008).await;
}

#[tokio::test]
async fn a_frame_that_announces_too_much_closes_with_1009_before_it_comes() {
    for opcode in [TEXT, BINARY] {
        for length in [1_048_577, 1 << 32, 1 << 62] {
            answered_with_close(&head(FIN | opcode, length), 1009).await;
        }
    }
}

#[tokio::test]
async fn fragments_that_add_up_to_too_much_close_with_1009_before_the_last_comes() {
    let fragments = [frame(TEXT, &[b' '; 600_000]), head(FIN | CONTINUATION, 448_577)];
    answered_with_close(&fragments.concat(), 1009).await;
}

#[tokio::test]
async fn a_disconnect_by_id_closes_with_1001_and_nothing_else() {
    let server = Server::start().await;
    for version in ["vsn=1.0.0", "vsn=2.0.0"] {
        let mut socket = RawWebSocket::open(&server, &format!("{version}&user_id=u1")).await;
        server.disconnect("user_socket:u1").await;
        socket.expect_close(1001).await;
    }
}

#[tokio::test]
async fn a_disconnect_does_not_wait_for_the_rest_of_a_frame() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0&user_id=u1").await;
    socket.send_bytes(&head(FIN | TEXT, 1000)).await;
    server.disconnect("user_socket:u1").await;
    socket.expect_close(1001).await;
}

#[tokio::test]
async fn a_client_that_vanishes_disturbs_nobody() {
    let server = Server::start().await;
    let mut staying = RawWebSocket::member(&server).await;
    for _ in 0..10 {
        drop(RawWebSocket::member(&server).await);
    }
    staying.send_text(r#"["1","2","room:a","new_msg",{}]"#).await;
    staying.expect_text(r#"[null,null,"room:a","new_msg",{}]"#).await;
    staying.expect_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_websocket_closes_with_1002_after_the_idle_time() {
    let idle = Duration::from_millis(400);
    let server = Server::with(Config { idle, ..Config::default() }).await;
    let started = Instant::now();
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    socket.expect_close(1002).await;
    assert!(started.elapsed() >= idle, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_frame_and_nothing_more_closes_after_the_idle_time() {
    let server =
        Server::with(Config { idle: Duration::from_millis(400), ..Config::default() }).await;
    let whole = frame(FIN | TEXT, HEARTBEAT);
    for half in [&whole[..1], &whole[..4], &whole[..20], &head(FIN | TEXT, 1_048_576)] {
        let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
        socket.send_bytes(half).await;
        socket.expect_close(1002).await;
    }
}

/// Sent in steps that together take longer than the idle time: text, ping, pong, bits of a frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_inbound_bytes_count_against_the_idle_time() {
    let idle = Duration::from_secs(2);
    let server = Server::with(Config { idle, ..Config::default() }).await;
    let mut sockets = Vec::new();
    for bytes in [
        frame(FIN | TEXT, HEARTBEAT),
        frame(FIN | PING, b""),
        frame(FIN | PONG, b""),
        head(TEXT, 1000)[..1].to_vec(),
    ] {
        sockets.push((RawWebSocket::open(&server, "vsn=2.0.0").await, bytes));
    }
    // The last one trickles in a single frame, its rest after the loop.
    let trickled = frame(FIN | TEXT, HEARTBEAT);
    for step in 0..4 {
        tokio::time::sleep(idle * 4 / 10).await;
        let (last, whole) = sockets.split_last_mut().unwrap();
        for (socket, bytes) in whole {
            socket.send_bytes(bytes).await;
        }
        last.0.send_bytes(&trickled[step..=step]).await;
    }
    sockets[3].0.send_bytes(&trickled[4..]).await;
    for _ in 0..4 {
        sockets[0].0.expect_text(REPLY).await;
        sockets[1].0.expect_frame(PONG, b"").await;
    }
    sockets[2].0.expect_nothing().await;
    sockets[3].0.expect_text(REPLY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_sends_does_not_count_against_the_idle_time() {
    let idle = Duration::from_secs(1);
    let server = Server::with(Config { idle, ..Config::default() }).await;
    let mut listener = RawWebSocket::member(&server).await;
    let broadcasts = async {
        loop {
            server.broadcast("room:a", "news", "{}").await;
            tokio::time::sleep(idle / 10).await;
        }
    };
    let closed = async {
        while let Some(frame) = listener.frame().await {
            if frame.opcode == CLOSE {
                return frame.payload;
            }
        }
        panic!("no close")
    };
    let code = tokio::select! {
        () = broadcasts => unreachable!(),
        code = soon(closed) => code,
    };
    assert_eq!(code, 1002_u16.to_be_bytes());
}

async fn answered_with_close(bytes: &[u8], code: u16) {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    socket.send_bytes(bytes).await;
    socket.expect_close(code).await;
}

async fn answered_with_text(bytes: &[u8], text: &str) {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    socket.send_bytes(bytes).await;
    socket.expect_text(text).await;
    socket.expect_nothing().await;
}
