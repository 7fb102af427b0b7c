//! Broadcasts: their recipients, their encoding, and interception.

use crate::support::{Stage, Transport, Version};

scenarios! {
    everywhere: [
        new_msg_reaches_every_subscriber_including_the_sender,
        typing_reaches_every_subscriber_except_the_sender,
        a_broadcast_carries_the_payload_byte_for_byte,
        a_broadcast_can_carry_any_json,
        a_broadcast_reaches_only_its_topic,
        a_broadcast_reaches_every_channel_of_a_socket_once,
        broadcasts_arrive_in_the_order_sent,
        a_broadcast_from_outside_reaches_all_members,
        reserved_events_from_outside_are_ordinary_events,
        shout_is_customized_for_each_subscriber,
        shout_skips_the_user_it_names,
        shout_with_a_null_skip_skips_nobody,
        a_member_that_has_left_receives_no_broadcasts,
        a_broadcast_reaches_all_transports_and_versions,
        a_disconnect_closes_only_the_sockets_with_that_id,
        other_events_on_the_topic_of_a_socket_id_have_no_effect,
    ]
}

async fn new_msg_reaches_every_subscriber_including_the_sender(stage: Stage) {
    let mut members = [stage.member("room:a").await, stage.member("room:a").await];
    members[0].send(r#"["1","2","room:a","new_msg",{"text":"hi"}]"#).await;
    for member in &mut members {
        member.expect(r#"[null,null,"room:a","new_msg",{"text":"hi"}]"#).await;
        member.ping("1", "room:a").await;
    }
}

async fn typing_reaches_every_subscriber_except_the_sender(stage: Stage) {
    let (mut sender, mut other) = (stage.member("room:a").await, stage.member("room:a").await);
    sender.send(r#"["1","2","room:a","typing",{"who":"me"}]"#).await;
    other.expect(r#"[null,null,"room:a","typing",{"who":"me"}]"#).await;
    sender.ping("1", "room:a").await;
}

async fn a_broadcast_carries_the_payload_byte_for_byte(stage: Stage) {
    let (mut sender, mut other) = (stage.member("room:a").await, stage.member("room:a").await);
    let payload = r#"{ "z":1e2, "a":-0.0, "a":[ "\u00e9" ] }"#;
    sender.send(&format!(r#"["1","2","room:a","new_msg",{payload}]"#)).await;
    other.expect(&format!(r#"[null,null,"room:a","new_msg",{payload}]"#)).await;
}

async fn a_broadcast_can_carry_any_json(stage: Stage) {
    let (mut sender, mut other) = (stage.member("room:a").await, stage.member("room:a").await);
    for payload in ["[1]", r#""s""#, "null", "5"] {
        sender.send(&format!(r#"["1","2","room:a","new_msg",{payload}]"#)).await;
        sender.expect(&format!(r#"[null,null,"room:a","new_msg",{payload}]"#)).await;
        other.expect(&format!(r#"[null,null,"room:a","new_msg",{payload}]"#)).await;
    }
}

async fn a_broadcast_reaches_only_its_topic(stage: Stage) {
    let (mut sender, mut other) = (stage.member("room:a").await, stage.member("room:ab").await);
    sender.send(r#"["1","2","room:a","new_msg",{}]"#).await;
    sender.expect(r#"[null,null,"room:a","new_msg",{}]"#).await;
    other.ping("1", "room:ab").await;
}

async fn a_broadcast_reaches_every_channel_of_a_socket_once(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client.join("2", "room:b").await;
    client.send(r#"["2","3","room:b","new_msg",{}]"#).await;
    client.expect(r#"[null,null,"room:b","new_msg",{}]"#).await;
    client.ping("1", "room:a").await;
    client.ping("2", "room:b").await;
}

async fn broadcasts_arrive_in_the_order_sent(stage: Stage) {
    let (mut sender, mut other) = (stage.member("room:a").await, stage.member("room:a").await);
    let messages: Vec<_> =
        (0..50).map(|n| format!(r#"["1","{n}","room:a","typing",{{"n":{n}}}]"#)).collect();
    sender.send_all(&messages.iter().map(String::as_str).collect::<Vec<_>>()).await;
    for n in 0..50 {
        other.expect(&format!(r#"[null,null,"room:a","typing",{{"n":{n}}}]"#)).await;
    }
}

async fn a_broadcast_from_outside_reaches_all_members(stage: Stage) {
    let mut members = [stage.member("room:a").await, stage.member("room:a").await];
    stage.server.broadcast("room:a", "news", r#"{"b":1,"a":[1.0]}"#).await;
    for member in &mut members {
        member.expect(r#"[null,null,"room:a","news",{"b":1,"a":[1.0]}]"#).await;
    }
}

async fn reserved_events_from_outside_are_ordinary_events(stage: Stage) {
    let mut member = stage.member("room:a").await;
    for event in ["disconnect", "phx_drain", "phx_close"] {
        stage.server.broadcast("room:a", event, r#"{"a":1}"#).await;
        member.expect(&format!(r#"[null,null,"room:a","{event}",{{"a":1}}]"#)).await;
        member.ping("1", "room:a").await;
    }
}

async fn shout_is_customized_for_each_subscriber(stage: Stage) {
    let mut first = stage.client("user_id=u1").await;
    first.join("1", "room:a").await;
    let mut second = stage.client("").await;
    second.join("8", "room:a").await;
    first.send(r#"["1","2","room:a","shout",{"text":"hi"}]"#).await;
    first.expect(r#"["1",null,"room:a","shout",{"text":"hi","to":"u1"}]"#).await;
    second.expect(r#"["8",null,"room:a","shout",{"text":"hi","to":null}]"#).await;
    first.ping("1", "room:a").await;
}

async fn shout_skips_the_user_it_names(stage: Stage) {
    let mut first = stage.client("user_id=u1").await;
    first.join("1", "room:a").await;
    let mut second = stage.client("user_id=").await;
    second.join("1", "room:a").await;
    first.send(r#"["1","2","room:a","shout",{"skip":"u1"}]"#).await;
    second.expect(r#"["1",null,"room:a","shout",{"skip":"u1","to":""}]"#).await;
    first.send(r#"["1","2","room:a","shout",{"skip":""}]"#).await;
    first.expect(r#"["1",null,"room:a","shout",{"skip":"","to":"u1"}]"#).await;
    first.ping("1", "room:a").await;
    second.ping("1", "room:a").await;
}

async fn shout_with_a_null_skip_skips_nobody(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client.send(r#"["1","2","room:a","shout",{"skip":null}]"#).await;
    client.expect(r#"["1",null,"room:a","shout",{"skip":null,"to":null}]"#).await;
}

async fn a_member_that_has_left_receives_no_broadcasts(stage: Stage) {
    let (mut sender, mut other) = (stage.member("room:a").await, stage.member("room:a").await);
    other.send(r#"["1","2","room:a","phx_leave",{}]"#).await;
    other.expect(r#"["1","2","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    other.expect(r#"["1","1","room:a","phx_close",{}]"#).await;
    sender.send(r#"["1","2","room:a","new_msg",{}]"#).await;
    sender.expect(r#"[null,null,"room:a","new_msg",{}]"#).await;
    other.heartbeat().await;
}

async fn a_broadcast_reaches_all_transports_and_versions(stage: Stage) {
    let mut sender = stage.member("room:a").await;
    let mut others = Vec::new();
    for transport in [Transport::WebSocket, Transport::LongPoll] {
        for version in [Version::V1, Version::V2] {
            let mut other =
                crate::support::Client::connect(&stage.server, transport, version, "").await;
            other.join("5", "room:a").await;
            others.push(other);
        }
    }
    sender.send(r#"["1","2","room:a","new_msg",{"a":1}]"#).await;
    for other in &mut others {
        other.expect(r#"[null,null,"room:a","new_msg",{"a":1}]"#).await;
    }
}

async fn a_disconnect_closes_only_the_sockets_with_that_id(stage: Stage) {
    let mut named = Vec::new();
    for _ in 0..2 {
        let mut client = stage.client("user_id=u1").await;
        client.join("1", "room:a").await;
        named.push(client);
    }
    let mut other = stage.client("user_id=u2").await;
    other.join("1", "room:a").await;
    let mut anonymous = stage.member("room:a").await;
    stage.server.disconnect("user_socket:nobody").await;
    stage.server.disconnect("user_socket:u1").await;
    for client in named {
        client.expect_disconnect().await;
    }
    other.ping("1", "room:a").await;
    anonymous.ping("1", "room:a").await;
}

async fn other_events_on_the_topic_of_a_socket_id_have_no_effect(stage: Stage) {
    let mut client = stage.client("user_id=u1").await;
    client.join("1", "room:a").await;
    stage.server.broadcast("user_socket:u1", "news", "{}").await;
    client.heartbeat().await;
}
