//! Malformed messages: a WebSocket closes with 1011; a POST is answered with status 500, and the
//! session is gone at the next poll. A message whose payload alone is at fault gets an error reply.

use crate::support::{Stage, Version};

scenarios! {
    everywhere: [
        an_empty_message_ends_the_session,
        invalid_json_ends_the_session,
        json_of_another_shape_ends_the_session,
        two_messages_in_one_text_end_the_session,
        a_ref_of_another_type_ends_the_session,
        a_join_ref_of_another_type_ends_the_session,
        an_unacceptable_payload_is_an_error_of_its_push_alone,
        an_unacceptable_payload_neither_joins_nor_leaves,
        an_unacceptable_payload_of_a_heartbeat_is_an_error,
        an_unacceptable_envelope_ends_the_session,
        unfinished_nesting_ends_the_session,
        nesting_below_the_limit_is_accepted,
        a_topic_of_256_bytes_ends_the_session,
        an_event_of_256_bytes_ends_the_session,
        a_ref_of_256_bytes_ends_the_session,
        a_join_ref_of_256_bytes_ends_the_session,
        a_malformed_message_ends_only_the_channels_of_its_socket,
        messages_before_a_malformed_one_are_handled,
    ]
    v1: [
        an_array_ends_a_session_of_1_0_0,
        a_missing_member_ends_a_session_of_1_0_0,
    ]
    v2: [
        an_object_ends_a_session_of_2_0_0,
        fewer_than_five_elements_end_a_session_of_2_0_0,
    ]
}

async fn an_empty_message_ends_the_session(stage: Stage) {
    stage.client("").await.send_fatal("").await;
    stage.client("").await.send_fatal("  \r\n ").await;
}

async fn invalid_json_ends_the_session(stage: Stage) {
    let whole = message(&stage, r#"[null,"2","phoenix","heartbeat",{}]"#);
    for text in [
        "not json",
        "[",
        "{",
        "[,,,,]",
        "\u{feff}[]",
        "\u{0}",
        &whole[..whole.len() - 1],
        &whole.replace("heartbeat", "heart\nbeat"),
        &whole.replace("heartbeat", r"heart\xbeat"),
        &whole.replace("{}", "{a:1}"),
        &whole.replace("{}", "{'a':1}"),
        &whole.replace("{}", r#"{"a"}"#),
        &whole.replace("{}", "[1,]"),
        &whole.replace("{}", "01"),
        &whole.replace("{}", "1."),
        &whole.replace("{}", ".5"),
        &whole.replace("{}", "+1"),
        &whole.replace("{}", "NaN"),
        &whole.replace("{}", "tru"),
        &whole.replace("{}", ""),
    ] {
        stage.client("").await.send_fatal(text).await;
    }
}

async fn json_of_another_shape_ends_the_session(stage: Stage) {
    for text in ["null", "5", "true", r#""text""#, "[]", "{}", "[[],[],[]]"] {
        stage.client("").await.send_fatal(text).await;
    }
}

async fn two_messages_in_one_text_end_the_session(stage: Stage) {
    let whole = message(&stage, r#"[null,"2","phoenix","heartbeat",{}]"#);
    for between in ["", " ", "\n", ","] {
        stage.client("").await.send_fatal(&format!("{whole}{between}{whole}")).await;
    }
}

async fn a_ref_of_another_type_ends_the_session(stage: Stage) {
    for reference in ["{}", "[1]", "true", "1.5", "1e2", "2.0"] {
        let text = message(&stage, &format!(r#"[null,{reference},"phoenix","heartbeat",{{}}]"#));
        stage.client("").await.send_fatal(&text).await;
    }
}

async fn a_join_ref_of_another_type_ends_the_session(stage: Stage) {
    for join_ref in ["{}", "[1]", "false", "1.5"] {
        let text = message(&stage, &format!(r#"[{join_ref},"2","room:a","phx_join",{{}}]"#));
        stage.client("").await.send_fatal(&text).await;
    }
}

/// Payloads that are JSON by its grammar, but that not every parser can read.
fn unacceptable_payloads() -> Vec<String> {
    let nested =
        |depth, open: &str, close: &str| format!("{}1{}", open.repeat(depth), close.repeat(depth));
    let mut payloads: Vec<_> = [
        "1e400",
        "-1e400",
        r#"{"a":[1e400]}"#,
        r#""\ud83d""#,
        r#""\ude00""#,
        r#""\ud83d\ud83d""#,
        r#"{"\ud83dx":1}"#,
    ]
    .map(str::to_owned)
    .into();
    payloads.extend([310, 5000].map(|digits| format!("[{}]", "7".repeat(digits))));
    payloads.extend([129, 1000, 100_000].map(|depth| nested(depth, "[", "]")));
    payloads.extend([129, 1000].map(|depth| nested(depth, r#"{"a":"#, "}")));
    payloads
}

const INVALID_PAYLOAD: &str = r#"{"status":"error","response":{"reason":"invalid payload"}}"#;

async fn an_unacceptable_payload_is_an_error_of_its_push_alone(stage: Stage) {
    let mut client = stage.member("room:a").await;
    for payload in unacceptable_payloads() {
        client.send(&format!(r#"["1","2","room:a","ping",{payload}]"#)).await;
        client.expect(&format!(r#"["1","2","room:a","phx_reply",{INVALID_PAYLOAD}]"#)).await;
        client.ping("1", "room:a").await;
    }
}

async fn an_unacceptable_payload_neither_joins_nor_leaves(stage: Stage) {
    let mut client = stage.member("room:a").await;
    for (topic, event) in [("room:a", "phx_leave"), ("room:a", "phx_join"), ("room:b", "phx_join")]
    {
        client.send(&format!(r#"["1","5","{topic}","{event}",1e400]"#)).await;
        client.expect(&format!(r#"["1","5","{topic}","phx_reply",{INVALID_PAYLOAD}]"#)).await;
    }
    client.ping("1", "room:a").await;
    client.send(r#"[null,"6","room:b","ping",{}]"#).await;
    client
        .expect(
            r#"[null,"6","room:b","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
        )
        .await;
}

async fn an_unacceptable_payload_of_a_heartbeat_is_an_error(stage: Stage) {
    let mut client = stage.client("").await;
    client.send(r#"[null,"7","phoenix","heartbeat","\ud83d"]"#).await;
    client.expect(&format!(r#"[null,"7","phoenix","phx_reply",{INVALID_PAYLOAD}]"#)).await;
}

async fn an_unacceptable_envelope_ends_the_session(stage: Stage) {
    for text in [
        r#"[null,"2","room:\ud83d","ping",{}]"#,
        r#"[null,"2","room:\ud83d","ping","\ud83d"]"#,
        r#"[null,"2","room:a","\ude00",{}]"#,
        r#"[null,"2",[1e400],"ping",{}]"#,
    ] {
        stage.client("").await.send_fatal(&message(&stage, text)).await;
    }
}

async fn unfinished_nesting_ends_the_session(stage: Stage) {
    stage.client("").await.send_fatal(&"[".repeat(500_000)).await;
}

async fn nesting_below_the_limit_is_accepted(stage: Stage) {
    let mut client = stage.member("room:a").await;
    let payload = format!("{}{}", "[".repeat(120), "]".repeat(120));
    client.send(&format!(r#"["1","2","room:a","ping",{payload}]"#)).await;
    client
        .expect(&format!(
            r#"["1","2","room:a","phx_reply",{{"status":"ok","response":{payload}}}]"#
        ))
        .await;
}

async fn a_topic_of_256_bytes_ends_the_session(stage: Stage) {
    let topic = format!("room:{}", "t".repeat(251));
    let text = message(&stage, &format!(r#"["1","1","{topic}","phx_join",{{}}]"#));
    stage.client("").await.send_fatal(&text).await;
}

async fn an_event_of_256_bytes_ends_the_session(stage: Stage) {
    let text = message(&stage, &format!(r#"["1","1","room:a","{}",{{}}]"#, "e".repeat(256)));
    stage.client("").await.send_fatal(&text).await;
}

async fn a_ref_of_256_bytes_ends_the_session(stage: Stage) {
    let text =
        message(&stage, &format!(r#"[null,"{}","phoenix","heartbeat",{{}}]"#, "r".repeat(256)));
    stage.client("").await.send_fatal(&text).await;
}

async fn a_join_ref_of_256_bytes_ends_the_session(stage: Stage) {
    let text = message(&stage, &format!(r#"["{}","1","room:a","phx_join",{{}}]"#, "j".repeat(256)));
    stage.client("").await.send_fatal(&text).await;
}

async fn a_malformed_message_ends_only_the_channels_of_its_socket(stage: Stage) {
    let mut other = stage.member("room:a").await;
    let mut client = stage.member("room:a").await;
    client.join("2", "room:b").await;
    client.send_fatal("not json").await;
    other.ping("1", "room:a").await;
    other.send(r#"["1","2","room:a","new_msg",{}]"#).await;
    other.expect(r#"[null,null,"room:a","new_msg",{}]"#).await;
}

async fn messages_before_a_malformed_one_are_handled(stage: Stage) {
    let mut other = stage.member("room:a").await;
    let mut client = stage.member("room:a").await;
    client.send(r#"["1","2","room:a","typing",{"last":1}]"#).await;
    other.expect(r#"[null,null,"room:a","typing",{"last":1}]"#).await;
    client.send_fatal("not json").await;
}

async fn an_array_ends_a_session_of_1_0_0(stage: Stage) {
    stage.client("").await.send_fatal(r#"[null,"2","phoenix","heartbeat",{}]"#).await;
}

async fn a_missing_member_ends_a_session_of_1_0_0(stage: Stage) {
    for text in [
        r#"{"event":"heartbeat","payload":{},"ref":"2"}"#,
        r#"{"topic":"phoenix","payload":{},"ref":"2"}"#,
        r#"{"topic":"phoenix","event":"heartbeat","ref":"2"}"#,
        r#"{"topic":"phoenix","event":"heartbeat","payload":{}}"#,
    ] {
        stage.client("").await.send_fatal(text).await;
    }
}

async fn an_object_ends_a_session_of_2_0_0(stage: Stage) {
    stage
        .client("")
        .await
        .send_fatal(r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"2"}"#)
        .await;
}

async fn fewer_than_five_elements_end_a_session_of_2_0_0(stage: Stage) {
    for text in ["[]", "[null]", r#"[null,"2","phoenix","heartbeat"]"#] {
        stage.client("").await.send_fatal(text).await;
    }
}

/// Encodes a message, valid or not, in the version of the stage.
fn message(stage: &Stage, notation: &str) -> String {
    let inner = &notation[1..notation.len() - 1];
    match stage.version {
        Version::V2 => notation.to_owned(),
        Version::V1 => {
            let mut parts = inner.splitn(5, ',');
            let mut next = || parts.next().expect("five elements");
            let (join_ref, reference, topic, event, payload) =
                (next(), next(), next(), next(), next());
            format!(
                r#"{{"topic":{topic},"event":{event},"payload":{payload},"ref":{reference},"join_ref":{join_ref}}}"#
            )
        }
    }
}
