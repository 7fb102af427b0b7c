//! A crash ends only its own channel, with `phx_error`.

use crate::support::{Stage, soon};

scenarios! {
    everywhere: [
        a_panic_ends_the_channel_with_phx_error,
        an_unmatched_event_ends_the_channel_with_phx_error,
        reserved_events_are_unmatched_events,
        an_event_that_is_not_a_string_ends_the_channel,
        an_event_that_is_not_a_string_on_an_unjoined_topic_is_unmatched,
        slow_with_an_invalid_duration_ends_the_channel,
        assign_and_fetch_without_their_keys_end_the_channel,
        a_crashed_topic_is_no_longer_joined,
        a_crashed_topic_can_be_joined_again_with_fresh_state,
        a_crash_does_not_affect_other_channels_of_the_socket,
        a_crash_does_not_affect_other_members_of_the_topic,
        a_late_reply_of_a_crashed_channel_is_dropped,
        a_join_after_a_crash_in_the_same_write_succeeds,
        a_hundred_crashes_leave_the_socket_alive,
        delayed_replies_end_with_their_client,
    ]
}

async fn a_panic_ends_the_channel_with_phx_error(stage: Stage) {
    let mut client = stage.client("").await;
    client.join("90", "room:b").await;
    client.send(r#"["90","91","room:b","boom",{}]"#).await;
    client.expect(r#"["90","90","room:b","phx_error",{"reason":"channel_crash"}]"#).await;
    client.heartbeat().await;
}

async fn an_unmatched_event_ends_the_channel_with_phx_error(stage: Stage) {
    let mut client = stage.client("").await;
    for event in ["whatever", "", "PING", "phx_", "joined"] {
        crashes(&mut client, &format!("\"{event}\""), "{}").await;
    }
}

async fn reserved_events_are_unmatched_events(stage: Stage) {
    let mut client = stage.client("").await;
    for event in ["phx_reply", "phx_error", "phx_close", "phx_drain", "heartbeat"] {
        crashes(&mut client, &format!("\"{event}\""), "{}").await;
    }
}

async fn an_event_that_is_not_a_string_ends_the_channel(stage: Stage) {
    let mut client = stage.client("").await;
    for event in ["5", "null", "{}", r#"["ping"]"#, "true"] {
        crashes(&mut client, event, "{}").await;
    }
}

async fn an_event_that_is_not_a_string_on_an_unjoined_topic_is_unmatched(stage: Stage) {
    let mut client = stage.client("").await;
    client.send(r#"[null,"2","room:b",5,{}]"#).await;
    client
        .expect(
            r#"[null,"2","room:b","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
        )
        .await;
}

async fn slow_with_an_invalid_duration_ends_the_channel(stage: Stage) {
    let mut client = stage.client("").await;
    for payload in ["{}", r#"{"ms":-1}"#, r#"{"ms":1.5}"#, r#"{"ms":"1"}"#, "null", "[1]"] {
        crashes(&mut client, r#""slow""#, payload).await;
    }
}

async fn assign_and_fetch_without_their_keys_end_the_channel(stage: Stage) {
    let mut client = stage.client("").await;
    for payload in ["{}", r#"{"v":1}"#, r#"{"k":"k"}"#, "null", "[1]"] {
        crashes(&mut client, r#""assign""#, payload).await;
    }
    for payload in ["{}", r#"{"v":1}"#, "null", "[1]"] {
        crashes(&mut client, r#""fetch""#, payload).await;
    }
}

async fn a_crashed_topic_is_no_longer_joined(stage: Stage) {
    let mut client = stage.client("").await;
    crashes(&mut client, r#""boom""#, "{}").await;
    client.send(r#"["1","3","room:b","ping",{}]"#).await;
    client
        .expect(
            r#"[null,"3","room:b","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
        )
        .await;
}

async fn a_crashed_topic_can_be_joined_again_with_fresh_state(stage: Stage) {
    let mut client = stage.member("room:b").await;
    client.send(r#"["1","2","room:b","assign",{"k":"k","v":1}]"#).await;
    client.expect(r#"["1","2","room:b","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.send(r#"["1","3","room:b","boom",{}]"#).await;
    client.expect(r#"["1","1","room:b","phx_error",{"reason":"channel_crash"}]"#).await;
    client.join("4", "room:b").await;
    client.send(r#"["4","5","room:b","fetch",{"k":"k"}]"#).await;
    client.expect(r#"["4","5","room:b","phx_reply",{"status":"ok","response":{"v":null}}]"#).await;
}

async fn a_crash_does_not_affect_other_channels_of_the_socket(stage: Stage) {
    let mut client = stage.client("").await;
    client.join("7", "room:other").await;
    crashes(&mut client, r#""boom""#, "{}").await;
    client.ping("7", "room:other").await;
}

async fn a_crash_does_not_affect_other_members_of_the_topic(stage: Stage) {
    let mut other = stage.member("room:b").await;
    let mut client = stage.client("").await;
    crashes(&mut client, r#""boom""#, "{}").await;
    other.ping("1", "room:b").await;
    other.send(r#"["1","2","room:b","new_msg",{}]"#).await;
    other.expect(r#"[null,null,"room:b","new_msg",{}]"#).await;
    client.heartbeat().await;
}

async fn a_late_reply_of_a_crashed_channel_is_dropped(stage: Stage) {
    let mut client = stage.member("room:b").await;
    client.join("2", "room:later").await;
    client
        .send_all(&[r#"["1","3","room:b","slow",{"ms":1000}]"#, r#"["1","4","room:b","boom",{}]"#])
        .await;
    client.expect(r#"["1","1","room:b","phx_error",{"reason":"channel_crash"}]"#).await;
    client.send(r#"["2","5","room:later","slow",{"ms":1500}]"#).await;
    client
        .expect(r#"["2","5","room:later","phx_reply",{"status":"ok","response":{"ms":1500}}]"#)
        .await;
}

/// The old channel ends with phx_error or phx_close, depending on a race, but at most once.
async fn a_join_after_a_crash_in_the_same_write_succeeds(stage: Stage) {
    let mut client = stage.member("room:b").await;
    client
        .send_all(&[
            r#"["1","2","room:b","boom",{}]"#,
            r#"["3","3","room:b","phx_join",{}]"#,
            r#"["3","4","room:b","ping",{}]"#,
        ])
        .await;
    let mut ends = 0;
    loop {
        let message = client.recv().await;
        ends +=
            usize::from(message.contains(r#""phx_close""#) || message.contains(r#""phx_error""#));
        if message.contains(r#""4","room:b","phx_reply",{"status":"ok""#) {
            break;
        }
    }
    assert!(ends <= 1, "{ends} ends of one channel");
    client.ping("3", "room:b").await;
}

async fn a_hundred_crashes_leave_the_socket_alive(stage: Stage) {
    let mut client = stage.client("").await;
    for _ in 0..100 {
        crashes(&mut client, r#""boom""#, "{}").await;
    }
    client.heartbeat().await;
}

/// Joins `room:b`, sends the event, and expects that the channel crashes without replying to the
/// push.
async fn crashes(client: &mut crate::support::Client, event: &str, payload: &str) {
    client.join("1", "room:b").await;
    client.send(&format!(r#"["1","2","room:b",{event},{payload}]"#)).await;
    client.expect(r#"["1","1","room:b","phx_error",{"reason":"channel_crash"}]"#).await;
}

async fn delayed_replies_end_with_their_client(stage: Stage) {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut client = stage.client("").await;
    client.join("1", "room:a").await;
    let before = tasks();
    for reference in 2..50 {
        client.send(&format!(r#"["1","{reference}","room:a","slow",{{"ms":3600000}}]"#)).await;
    }
    client.send(r#"["1","50","room:a","ack",{}]"#).await;
    client.expect(r#"["1","50","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    assert!(tasks() >= before + 48);
    client.send(r#"["1","51","room:a","phx_leave",{}]"#).await;
    let ended = async {
        while tasks() > before + 4 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon(ended).await;
}
