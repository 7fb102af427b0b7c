//! WebSocket frames and close codes.

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
    expect_close_after(&frame(FIN | CLOSE, b""), 1000).await;
}

#[tokio::test]
async fn a_close_with_a_reason_is_answered_with_1000() {
    expect_close_after(&close(1000, "bye ✓".as_bytes()), 1000).await;
    expect_close_after(&close(4000, &[b'x'; 123]), 1000).await;
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
async fn a_close_with_one_byte_is_a_protocol_error() {
    expect_close_after(&frame(FIN | CLOSE, b"\x03"), 1002).await;
}

#[tokio::test]
async fn a_close_whose_reason_is_not_utf8_is_a_protocol_error() {
    expect_close_after(&close(1000, b"\xff\xfe"), 1002).await;
}

#[tokio::test]
async fn messages_after_a_close_are_not_handled() {
    let bytes = [close(1000, b""), frame(FIN | TEXT, HEARTBEAT)].concat();
    expect_close_after(&bytes, 1000).await;
}

#[tokio::test]
async fn messages_before_a_close_are_handled() {
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
async fn an_unsolicited_pong_is_ignored() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    socket.send_bytes(&frame(FIN | PONG, b"abc")).await;
    socket.expect_nothing().await;
}

#[tokio::test]
async fn a_message_can_be_fragmented() {
    let fragments = [
        frame(TEXT, &HEARTBEAT[..5]),
        frame(CONTINUATION, &HEARTBEAT[5..9]),
        frame(FIN | CONTINUATION, &HEARTBEAT[9..]),
    ];
    expect_text_after(&fragments.concat(), REPLY).await;
}

#[tokio::test]
async fn the_first_and_the_last_fragment_can_be_empty() {
    let fragments = [frame(TEXT, b""), frame(FIN | CONTINUATION, HEARTBEAT)];
    expect_text_after(&fragments.concat(), REPLY).await;
    let fragments = [frame(TEXT, HEARTBEAT), frame(FIN | CONTINUATION, b"")];
    expect_text_after(&fragments.concat(), REPLY).await;
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
async fn a_character_can_be_split_across_fragments() {
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
async fn a_message_can_arrive_byte_by_byte() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    for byte in frame(FIN | TEXT, HEARTBEAT) {
        socket.send_bytes(&[byte]).await;
        tokio::task::yield_now().await;
    }
    socket.expect_text(REPLY).await;
}

#[tokio::test]
async fn many_frames_can_arrive_in_one_write() {
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
        expect_close_after(&frame(FIN | TEXT, payload), 1007).await;
    }
}

#[tokio::test]
async fn a_fragmented_text_that_is_not_utf8_closes_with_1007() {
    let fragments = [frame(TEXT, b"abc\xe2"), frame(FIN | CONTINUATION, b"abc")];
    expect_close_after(&fragments.concat(), 1007).await;
}

#[tokio::test]
async fn an_unmasked_frame_closes_with_1002() {
    expect_close_after(&[FIN | TEXT, 2, b'[', b']'], 1002).await;
    expect_close_after(&[FIN | PING, 0], 1002).await;
}

#[tokio::test]
async fn reserved_bits_close_with_1002() {
    for bit in [0x40, 0x20, 0x10] {
        expect_close_after(&frame(FIN | bit | TEXT, HEARTBEAT), 1002).await;
        expect_close_after(&frame(FIN | bit | PING, b""), 1002).await;
    }
}

#[tokio::test]
async fn reserved_opcodes_close_with_1002() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        expect_close_after(&frame(FIN | opcode, b""), 1002).await;
    }
}

#[tokio::test]
async fn a_fragmented_control_frame_closes_with_1002() {
    for opcode in [CLOSE, PING, PONG] {
        expect_close_after(&frame(opcode, b""), 1002).await;
    }
}

#[tokio::test]
async fn a_control_frame_over_125_bytes_closes_with_1002() {
    for opcode in [CLOSE, PING, PONG] {
        expect_close_after(&frame(FIN | opcode, &[b'x'; 126]), 1002).await;
    }
}

#[tokio::test]
async fn a_continuation_without_a_first_frame_closes_with_1002() {
    expect_close_after(&frame(FIN | CONTINUATION, b"abc"), 1002).await;
    expect_close_after(&frame(CONTINUATION, b"abc"), 1002).await;
}

#[tokio::test]
async fn a_new_message_inside_a_fragmented_one_closes_with_1002() {
    for opcode in [TEXT, BINARY] {
        let fragments = [frame(TEXT, b"abc"), frame(FIN | opcode, b"abc")];
        expect_close_after(&fragments.concat(), 1002).await;
    }
}

#[tokio::test]
async fn an_empty_continuation_other_than_the_last_closes_with_1008() {
    let fragments = [frame(TEXT, b"abc"), frame(CONTINUATION, b"")];
    expect_close_after(&fragments.concat(), 1008).await;
}

#[tokio::test]
async fn a_frame_that_announces_too_much_closes_with_1009_before_its_payload() {
    for opcode in [TEXT, BINARY] {
        for length in [1_048_577, 1 << 32, 1 << 62] {
            expect_close_after(&head(FIN | opcode, length), 1009).await;
        }
    }
}

#[tokio::test]
async fn fragments_that_add_up_to_too_much_close_with_1009_before_the_last_payload() {
    let fragments = [frame(TEXT, &[b' '; 600_000]), head(FIN | CONTINUATION, 448_577)];
    expect_close_after(&fragments.concat(), 1009).await;
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
async fn a_client_that_vanishes_does_not_affect_others() {
    let server = Server::start().await;
    let mut other = RawWebSocket::member(&server).await;
    for _ in 0..10 {
        drop(RawWebSocket::member(&server).await);
    }
    other.send_text(r#"["1","2","room:a","new_msg",{}]"#).await;
    other.expect_text(r#"[null,null,"room:a","new_msg",{}]"#).await;
    other.expect_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_websocket_closes_with_1002_after_the_idle_timeout() {
    let idle = Duration::from_millis(400);
    let server = Server::with(Config { idle, ..Config::default() }).await;
    let started = Instant::now();
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    socket.expect_close(1002).await;
    assert!(started.elapsed() >= idle, "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_frame_followed_by_silence_closes_after_the_idle_timeout() {
    let server =
        Server::with(Config { idle: Duration::from_millis(400), ..Config::default() }).await;
    let whole = frame(FIN | TEXT, HEARTBEAT);
    for half in [&whole[..1], &whole[..4], &whole[..20], &head(FIN | TEXT, 1_048_576)] {
        let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
        socket.send_bytes(half).await;
        socket.expect_close(1002).await;
    }
}

/// Texts, pings, pongs and bits of a frame, sent in steps that together take longer than the idle
/// timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_inbound_bytes_reset_the_idle_timeout() {
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
    // The last socket trickles a single frame, whose rest follows the loop.
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
async fn outbound_messages_do_not_reset_the_idle_timeout() {
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

async fn expect_close_after(bytes: &[u8], code: u16) {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    socket.send_bytes(bytes).await;
    socket.expect_close(code).await;
}

async fn expect_text_after(bytes: &[u8], text: &str) {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    socket.send_bytes(bytes).await;
    socket.expect_text(text).await;
    socket.expect_nothing().await;
}
