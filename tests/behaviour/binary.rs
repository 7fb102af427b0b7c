//! Binary messages of 2.0.0 in both directions; 1.0.0 has none.

use crate::support::binary::{broadcast, client_push, layout, push, reply};
use crate::support::{Client, LongPoll, RawWebSocket, Server, Stage, Transport, Version};

scenarios! {
    v2: [
        a_binary_ping_is_answered_in_binary,
        a_binary_fail_is_answered_with_an_error,
        binary_data_can_be_empty,
        binary_data_can_be_any_bytes,
        a_binary_ack_is_answered_in_text,
        a_binary_push_me_pushes_binary,
        a_binary_new_msg_is_broadcast_in_binary,
        a_binary_stop_reply_is_answered_before_the_close,
        a_join_can_be_binary,
        a_leave_can_be_binary,
        a_heartbeat_can_be_binary,
        an_unmatched_topic_is_answered_in_text,
        an_empty_join_ref_is_stale,
        another_join_ref_is_stale,
        an_empty_ref_is_answered_with_an_empty_ref,
        a_ref_that_is_not_utf8_is_echoed,
        fields_can_have_255_bytes,
        text_events_with_binary_payloads_crash_the_channel,
        a_binary_shout_crashes_every_member,
        a_member_with_version_1_0_0_is_skipped,
        a_kind_other_than_a_push_ends_the_session,
        a_truncated_message_ends_the_session,
        json_in_a_binary_message_ends_the_session,
        a_topic_that_is_not_utf8_ends_the_session,
        a_join_ref_that_a_text_reply_cannot_carry_ends_the_session,
    ]
}

/// Enables binary messages over long poll; ignored over WebSocket.
const WITH_BINARY: &str = "binary=base64";

async fn member(stage: &Stage) -> Client {
    let mut client = stage.client(WITH_BINARY).await;
    client.join("1", "room:a").await;
    client
}

async fn a_binary_ping_is_answered_in_binary(stage: Stage) {
    let mut client = member(&stage).await;
    client.send_binary(&client_push("1", "2", "room:a", "ping", b"\x00\x01\xff")).await;
    client.expect_binary(&reply("1", "2", "room:a", "ok", b"\x00\x01\xff")).await;
}

async fn a_binary_fail_is_answered_with_an_error(stage: Stage) {
    let mut client = member(&stage).await;
    client.send_binary(&client_push("1", "2", "room:a", "fail", b"why")).await;
    client.expect_binary(&reply("1", "2", "room:a", "error", b"why")).await;
}

async fn binary_data_can_be_empty(stage: Stage) {
    let mut client = member(&stage).await;
    client.send_binary(&client_push("1", "2", "room:a", "ping", b"")).await;
    client.expect_binary(&reply("1", "2", "room:a", "ok", b"")).await;
}

async fn binary_data_can_be_any_bytes(stage: Stage) {
    let mut client = member(&stage).await;
    for data in [b"[\"1\"]".to_vec(), b"\r\n\r\n".to_vec(), (0..=255).collect(), vec![0xff; 70_000]]
    {
        client.send_binary(&client_push("1", "2", "room:a", "ping", &data)).await;
        client.expect_binary(&reply("1", "2", "room:a", "ok", &data)).await;
    }
}

async fn a_binary_ack_is_answered_in_text(stage: Stage) {
    let mut client = member(&stage).await;
    client.send_binary(&client_push("1", "2", "room:a", "ack", b"abc")).await;
    client.expect(r#"["1","2","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
}

async fn a_binary_push_me_pushes_binary(stage: Stage) {
    let mut client = member(&stage).await;
    client.send_binary(&client_push("1", "2", "room:a", "push_me", b"abc")).await;
    client.expect_binary(&push("1", "room:a", "pushed", b"abc")).await;
}

async fn a_binary_new_msg_is_broadcast_in_binary(stage: Stage) {
    let (mut sender, mut other) = (member(&stage).await, member(&stage).await);
    sender.send_binary(&client_push("1", "2", "room:a", "new_msg", b"abc")).await;
    sender.expect_binary(&broadcast("room:a", "new_msg", b"abc")).await;
    other.expect_binary(&broadcast("room:a", "new_msg", b"abc")).await;
}

async fn a_binary_stop_reply_is_answered_before_the_close(stage: Stage) {
    let mut client = member(&stage).await;
    client.send_binary(&client_push("1", "2", "room:a", "stop_reply", b"abc")).await;
    client.expect_binary(&reply("1", "2", "room:a", "ok", b"abc")).await;
    client.expect(r#"["1","1","room:a","phx_close",{}]"#).await;
}

async fn a_join_can_be_binary(stage: Stage) {
    let mut client = stage.client(WITH_BINARY).await;
    client.send_binary(&client_push("1", "2", "room:a", "phx_join", b"abc")).await;
    client.expect(r#"["1","2","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1",null,"room:a","joined",{"user_id":null}]"#).await;
}

async fn a_leave_can_be_binary(stage: Stage) {
    let mut client = member(&stage).await;
    client.send_binary(&client_push("1", "2", "room:a", "phx_leave", b"")).await;
    client.expect(r#"["1","2","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1","1","room:a","phx_close",{}]"#).await;
}

async fn a_heartbeat_can_be_binary(stage: Stage) {
    let mut client = stage.client(WITH_BINARY).await;
    client.send_binary(&client_push("", "2", "phoenix", "heartbeat", b"")).await;
    client.expect(r#"[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]"#).await;
}

async fn an_unmatched_topic_is_answered_in_text(stage: Stage) {
    let mut client = stage.client(WITH_BINARY).await;
    client.send_binary(&client_push("1", "2", "room:none", "ping", b"abc")).await;
    client
        .expect(
            r#"[null,"2","room:none","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
        )
        .await;
}

async fn an_empty_join_ref_is_stale(stage: Stage) {
    let mut client = member(&stage).await;
    client.send_binary(&client_push("", "2", "room:a", "ping", b"abc")).await;
    client.ping("1", "room:a").await;
}

async fn another_join_ref_is_stale(stage: Stage) {
    let mut client = member(&stage).await;
    client.send_binary(&client_push("0", "2", "room:a", "ping", b"abc")).await;
    client.ping("1", "room:a").await;
}

async fn an_empty_ref_is_answered_with_an_empty_ref(stage: Stage) {
    let mut client = member(&stage).await;
    client.send_binary(&client_push("1", "", "room:a", "ping", b"abc")).await;
    client.expect_binary(&reply("1", "", "room:a", "ok", b"abc")).await;
}

async fn a_ref_that_is_not_utf8_is_echoed(stage: Stage) {
    let mut client = member(&stage).await;
    client.send_binary(&layout(0, &[b"1", b"\xff\xfe", b"room:a", b"ping"], b"abc")).await;
    client.expect_binary(&layout(1, &[b"1", b"\xff\xfe", b"room:a", b"ok"], b"abc")).await;
}

async fn fields_can_have_255_bytes(stage: Stage) {
    let mut client = stage.client(WITH_BINARY).await;
    let topic = format!("room:{}", "t".repeat(250));
    let (join_ref, reference) = ("j".repeat(255), "r".repeat(255));
    client.join(&join_ref, &topic).await;
    client.send_binary(&client_push(&join_ref, &reference, &topic, "ping", b"abc")).await;
    client.expect_binary(&reply(&join_ref, &reference, &topic, "ok", b"abc")).await;
}

async fn text_events_with_binary_payloads_crash_the_channel(stage: Stage) {
    for event in ["slow", "assign", "fetch", "boom", "whatever", "\u{0}"] {
        let mut client = member(&stage).await;
        client
            .send_binary(&client_push("1", "2", "room:a", event, br#"{"ms":1,"k":"k","v":1}"#))
            .await;
        client.expect(r#"["1","1","room:a","phx_error",{"reason":"channel_crash"}]"#).await;
        client.heartbeat().await;
    }
}

async fn a_binary_shout_crashes_every_member(stage: Stage) {
    let (mut sender, mut other) = (member(&stage).await, member(&stage).await);
    sender.send_binary(&client_push("1", "2", "room:a", "shout", b"abc")).await;
    for member in [&mut sender, &mut other] {
        member.expect(r#"["1","1","room:a","phx_error",{"reason":"channel_crash"}]"#).await;
        member.heartbeat().await;
    }
}

async fn a_member_with_version_1_0_0_is_skipped(stage: Stage) {
    let mut first = member(&stage).await;
    let mut olds = Vec::new();
    for transport in [Transport::WebSocket, Transport::LongPoll] {
        let mut old = Client::connect(&stage.server, transport, Version::V1, WITH_BINARY).await;
        old.join("1", "room:a").await;
        olds.push(old);
    }
    let mut last = member(&stage).await;
    first.send_binary(&client_push("1", "2", "room:a", "new_msg", b"abc")).await;
    for member in [&mut first, &mut last] {
        member.expect_binary(&broadcast("room:a", "new_msg", b"abc")).await;
        member.ping("1", "room:a").await;
    }
    for old in &mut olds {
        old.ping("1", "room:a").await;
    }
}

async fn a_kind_other_than_a_push_ends_the_session(stage: Stage) {
    for kind in [1, 2, 3, 0x5b, 255] {
        let mut bytes = client_push("1", "2", "room:a", "ping", b"abc");
        bytes[0] = kind;
        member(&stage).await.send_fatal_binary(&bytes).await;
    }
}

async fn a_truncated_message_ends_the_session(stage: Stage) {
    let whole = client_push("1", "2", "room:a", "ping", b"");
    for length in [1, 2, 4, 5, 6, whole.len() - 1] {
        member(&stage).await.send_fatal_binary(&whole[..length]).await;
    }
}

async fn json_in_a_binary_message_ends_the_session(stage: Stage) {
    member(&stage).await.send_fatal_binary(br#"["1","2","room:a","ping",{}]"#).await;
}

async fn a_topic_that_is_not_utf8_ends_the_session(stage: Stage) {
    let bytes = layout(0, &[b"1", b"2", b"room:\xff", b"ping"], b"abc");
    member(&stage).await.send_fatal_binary(&bytes).await;
}

async fn a_join_ref_that_a_text_reply_cannot_carry_ends_the_session(stage: Stage) {
    let bytes = layout(0, &[b"\xff", b"2", b"room:b", b"phx_join"], b"abc");
    member(&stage).await.send_fatal_binary(&bytes).await;
}

#[tokio::test]
async fn an_empty_binary_frame_closes_the_websocket() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=2.0.0").await;
    socket.send_binary(b"").await;
    socket.expect_close(1011).await;
}

#[tokio::test]
async fn a_binary_frame_on_a_1_0_0_socket_is_json_text() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "vsn=1.0.0").await;
    socket.send_binary(br#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"2"}"#).await;
    socket
        .expect_text(
            r#"{"ref":"2","event":"phx_reply","payload":{"status":"ok","response":{}},"topic":"phoenix"}"#,
        )
        .await;
    socket.send_binary(&client_push("1", "2", "room:a", "ping", b"abc")).await;
    socket.expect_close(1011).await;
}

/// Only the binary message is missing; those before and after it arrive.
#[tokio::test]
async fn a_long_poll_without_binary_support_receives_all_other_messages() {
    let server = Server::start().await;
    let mut client = Client::connect(&server, Transport::LongPoll, Version::V2, "").await;
    client.join("1", "room:a").await;
    client.send(r#"["1","2","room:a","new_msg",{"n":1}]"#).await;
    client.send_binary(&client_push("1", "3", "room:a", "new_msg", b"abc")).await;
    client.send(r#"["1","4","room:a","new_msg",{"n":2}]"#).await;
    client.expect(r#"[null,null,"room:a","new_msg",{"n":1}]"#).await;
    client.expect(r#"[null,null,"room:a","new_msg",{"n":2}]"#).await;
}

#[tokio::test]
async fn an_unknown_binary_encoding_does_not_enable_binary() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0&binary=hex").await;
    let messages = [
        r#"["1","1","room:a","phx_join",{}]"#.to_owned(),
        crate::support::base64::encode(&client_push("1", "2", "room:a", "ping", b"abc")),
        r#"["1","3","room:a","ping",{"text":1}]"#.to_owned(),
    ];
    session.post("application/x-ndjson", &messages.join("\n")).await;
    let mut got = Vec::new();
    while got.len() < 3 {
        let response = session.poll().await;
        got.extend(response["messages"].as_array().unwrap().iter().map(|text| text.to_string()));
    }
    assert!(got[2].contains("text"), "{got:?}");
}
