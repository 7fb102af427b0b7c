//! Pushes and replies.

use crate::support::Stage;

scenarios! {
    everywhere: [
        a_ping_is_answered_with_its_payload,
        fail_is_answered_with_an_error_and_its_payload,
        ack_is_answered_with_an_empty_response,
        silent_is_not_answered,
        a_payload_is_echoed_byte_for_byte,
        a_payload_can_be_any_json,
        a_null_ref_is_answered_with_a_null_ref,
        push_me_pushes_to_the_sender,
        a_push_can_carry_any_json,
        an_event_of_255_bytes_reaches_the_channel,
        refs_of_255_bytes_are_echoed,
        escaped_strings_equal_their_plain_forms,
        a_slow_reply_does_not_delay_others,
        slow_replies_arrive_in_order_of_completion,
        slow_with_a_zero_duration_is_answered,
        a_channel_keeps_assigned_values,
        channels_of_one_socket_have_separate_state,
        a_push_to_a_topic_that_is_not_joined_is_unmatched,
        whitespace_in_a_message_is_ignored,
        several_pushes_in_one_write_are_answered_in_order,
        a_heartbeat_is_answered,
        a_heartbeat_with_a_null_ref_is_answered_with_a_null_ref,
        other_events_on_phoenix_are_unmatched,
    ]
    v1: [
        unknown_members_are_ignored,
        a_null_join_ref_equals_an_absent_one,
    ]
    v2: [elements_past_the_fifth_are_ignored]
}

async fn a_ping_is_answered_with_its_payload(stage: Stage) {
    let mut client = stage.member("room:lobby").await;
    client.send(r#"["1","4","room:lobby","ping",{"a":1}]"#).await;
    client.expect(r#"["1","4","room:lobby","phx_reply",{"status":"ok","response":{"a":1}}]"#).await;
}

async fn fail_is_answered_with_an_error_and_its_payload(stage: Stage) {
    let mut client = stage.member("room:lobby").await;
    client.send(r#"["1","4","room:lobby","fail",{"a":1}]"#).await;
    client
        .expect(r#"["1","4","room:lobby","phx_reply",{"status":"error","response":{"a":1}}]"#)
        .await;
}

async fn ack_is_answered_with_an_empty_response(stage: Stage) {
    let mut client = stage.member("room:lobby").await;
    client.send(r#"["1","4","room:lobby","ack",{"a":1}]"#).await;
    client.expect(r#"["1","4","room:lobby","phx_reply",{"status":"ok","response":{}}]"#).await;
}

async fn silent_is_not_answered(stage: Stage) {
    let mut client = stage.member("room:lobby").await;
    client.send(r#"["1","4","room:lobby","silent",{"a":1}]"#).await;
    client.ping("1", "room:lobby").await;
}

async fn a_payload_is_echoed_byte_for_byte(stage: Stage) {
    let mut client = stage.member("room:a").await;
    let many_keys = (0..40).map(|key| format!(r#""{}":{key}"#, 99 - key)).collect::<Vec<_>>();
    for payload in [
        r#"{"z":1,"a":2,"m":{"y":[],"b":{}}}"#,
        r#"{"a":1,"a":2}"#,
        r#"[1e2,1E5,1e-7,1.0,-0.0,0.10,1.5E+3,123456789012345678901234567890,-5]"#,
        r#"{"spaces" : [ 1 ,  2 ] }"#,
        "[\"\u{e9}\u{1f600}\u{2028}\u{7f}\"]",
        r#"["\u00e9\ud83d\ude00\u2028\u0000\/\"\\\b\f\n\r\t"]"#,
        r#"[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]"#,
        r#"{"":""}"#,
        &format!("{{{}}}", many_keys.join(",")),
    ] {
        client.send(&format!(r#"["1","2","room:a","ping",{payload}]"#)).await;
        client
            .expect(&format!(
                r#"["1","2","room:a","phx_reply",{{"status":"ok","response":{payload}}}]"#
            ))
            .await;
    }
}

async fn a_payload_can_be_any_json(stage: Stage) {
    let mut client = stage.member("room:a").await;
    for payload in ["[1]", r#""s""#, "null", "5", "true", "false", r#""""#, "[]"] {
        client.send(&format!(r#"["1","2","room:a","ping",{payload}]"#)).await;
        client
            .expect(&format!(
                r#"["1","2","room:a","phx_reply",{{"status":"ok","response":{payload}}}]"#
            ))
            .await;
    }
}

async fn a_null_ref_is_answered_with_a_null_ref(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client.send(r#"["1",null,"room:a","ping",{}]"#).await;
    client.expect(r#"["1",null,"room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
}

async fn push_me_pushes_to_the_sender(stage: Stage) {
    let mut other = stage.member("room:lobby").await;
    let mut client = stage.member("room:lobby").await;
    client.send(r#"["1","4","room:lobby","push_me",{"b":1, "a":2}]"#).await;
    client.expect(r#"["1",null,"room:lobby","pushed",{"b":1, "a":2}]"#).await;
    client.ping("1", "room:lobby").await;
    other.ping("1", "room:lobby").await;
}

async fn a_push_can_carry_any_json(stage: Stage) {
    let mut client = stage.member("room:a").await;
    for payload in ["[1]", r#""s""#, "null", "5"] {
        client.send(&format!(r#"["1","2","room:a","push_me",{payload}]"#)).await;
        client.expect(&format!(r#"["1",null,"room:a","pushed",{payload}]"#)).await;
    }
}

/// The event is unmatched, so the channel crashes.
async fn an_event_of_255_bytes_reaches_the_channel(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client.send(&format!(r#"["1","2","room:a","{}",{{}}]"#, "e".repeat(255))).await;
    client.expect(r#"["1","1","room:a","phx_error",{"reason":"channel_crash"}]"#).await;
}

async fn refs_of_255_bytes_are_echoed(stage: Stage) {
    let mut client = stage.client("").await;
    let (join_ref, reference) = ("j".repeat(255), "r".repeat(255));
    client.join(&join_ref, "room:a").await;
    client.send(&format!(r#"["{join_ref}","{reference}","room:a","ping",{{}}]"#)).await;
    client
        .expect(&format!(
            r#"["{join_ref}","{reference}","room:a","phx_reply",{{"status":"ok","response":{{}}}}]"#
        ))
        .await;
}

/// `"room:\u0061"` is room:a and `"p\u0069ng"` is ping.
async fn escaped_strings_equal_their_plain_forms(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client.send(r#"["\u0031","2","room:\u0061","p\u0069ng",{}]"#).await;
    client.expect(r#"["1","2","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    // Characters that need an escape are escaped in the reply.
    client.send(r#"["9","9","no\"pe\\\n","phx_join",{}]"#).await;
    client
        .expect(
            r#"[null,"9","no\"pe\\\n","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
        )
        .await;
}

async fn a_slow_reply_does_not_delay_others(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client.send(r#"["1","2","room:a","slow",{"ms":700}]"#).await;
    client.ping("1", "room:a").await;
    client.heartbeat().await;
    client.expect(r#"["1","2","room:a","phx_reply",{"status":"ok","response":{"ms":700}}]"#).await;
}

async fn slow_replies_arrive_in_order_of_completion(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client
        .send_all(&[
            r#"["1","2","room:a","slow",{"ms":900}]"#,
            r#"["1","3","room:a","slow",{"ms":100}]"#,
        ])
        .await;
    client.expect(r#"["1","3","room:a","phx_reply",{"status":"ok","response":{"ms":100}}]"#).await;
    client.expect(r#"["1","2","room:a","phx_reply",{"status":"ok","response":{"ms":900}}]"#).await;
}

async fn slow_with_a_zero_duration_is_answered(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client.send(r#"["1","2","room:a","slow",{"ms":0}]"#).await;
    client.expect(r#"["1","2","room:a","phx_reply",{"status":"ok","response":{"ms":0}}]"#).await;
}

async fn a_channel_keeps_assigned_values(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client.send(r#"["1","2","room:a","assign",{"k":"colour","v":["red",1]}]"#).await;
    client.expect(r#"["1","2","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.send(r#"["1","3","room:a","fetch",{"k":"colour"}]"#).await;
    client
        .expect(r#"["1","3","room:a","phx_reply",{"status":"ok","response":{"v":["red",1]}}]"#)
        .await;
    client.send(r#"["1","4","room:a","fetch",{"k":"shape"}]"#).await;
    client.expect(r#"["1","4","room:a","phx_reply",{"status":"ok","response":{"v":null}}]"#).await;
}

async fn channels_of_one_socket_have_separate_state(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client.join("2", "room:b").await;
    client.send(r#"["1","3","room:a","assign",{"k":"k","v":1}]"#).await;
    client.expect(r#"["1","3","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.send(r#"["2","4","room:b","fetch",{"k":"k"}]"#).await;
    client.expect(r#"["2","4","room:b","phx_reply",{"status":"ok","response":{"v":null}}]"#).await;
}

async fn a_push_to_a_topic_that_is_not_joined_is_unmatched(stage: Stage) {
    let mut client = stage.client("").await;
    for (join_ref, topic) in
        [("null", r#""room:none""#), (r#""69""#, r#""room:none""#), (r#""69""#, "5")]
    {
        client.send(&format!(r#"[{join_ref},"70",{topic},"ping",{{}}]"#)).await;
        client
            .expect(&format!(
                r#"[null,"70",{topic},"phx_reply",{{"status":"error","response":{{"reason":"unmatched topic"}}}}]"#
            ))
            .await;
    }
}

async fn whitespace_in_a_message_is_ignored(stage: Stage) {
    let mut client = stage.client("").await;
    let text = match stage.version {
        crate::support::Version::V1 => {
            " \r\n{ \"topic\" : \"phoenix\",\t\"event\":\"heartbeat\",\"payload\":{},\n\"ref\":\"2\" } \n"
        }
        crate::support::Version::V2 => " \r\n[ null ,\t\"2\",\n\"phoenix\",\"heartbeat\", { } ] \n",
    };
    client.send_text(text).await;
    client.expect(r#"[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]"#).await;
}

async fn several_pushes_in_one_write_are_answered_in_order(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client
        .send_all(&[
            r#"["1","2","room:a","ping",[2]]"#,
            r#"["1","3","room:a","push_me",[3]]"#,
            r#"["1","4","room:a","new_msg",[4]]"#,
            r#"["1","5","room:a","fail",[5]]"#,
        ])
        .await;
    client.expect(r#"["1","2","room:a","phx_reply",{"status":"ok","response":[2]}]"#).await;
    client.expect(r#"["1",null,"room:a","pushed",[3]]"#).await;
    client.expect(r#"[null,null,"room:a","new_msg",[4]]"#).await;
    client.expect(r#"["1","5","room:a","phx_reply",{"status":"error","response":[5]}]"#).await;
}

async fn a_heartbeat_is_answered(stage: Stage) {
    let mut client = stage.client("").await;
    for (join_ref, payload) in [("null", "{}"), (r#""7""#, "null"), ("null", r#"{"a":[1]}"#)] {
        client.send(&format!(r#"[{join_ref},"2","phoenix","heartbeat",{payload}]"#)).await;
        client.expect(r#"[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]"#).await;
    }
}

async fn a_heartbeat_with_a_null_ref_is_answered_with_a_null_ref(stage: Stage) {
    let mut client = stage.client("").await;
    client.send(r#"[null,null,"phoenix","heartbeat",{}]"#).await;
    client.expect(r#"[null,null,"phoenix","phx_reply",{"status":"ok","response":{}}]"#).await;
}

async fn other_events_on_phoenix_are_unmatched(stage: Stage) {
    let mut client = stage.client("").await;
    for event in ["ping", "phx_join"] {
        client.send(&format!(r#"["3","3","phoenix","{event}",{{}}]"#)).await;
        client
            .expect(
                r#"[null,"3","phoenix","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
            )
            .await;
    }
}

async fn unknown_members_are_ignored(stage: Stage) {
    let mut client = stage.client("").await;
    client
        .send_text(
            r#"{"a":[{}],"topic":"phoenix","event":"heartbeat","payload":{},"ref":"2","z":null}"#,
        )
        .await;
    client.expect(r#"[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]"#).await;
}

async fn a_null_join_ref_equals_an_absent_one(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client
        .send_text(r#"{"topic":"room:a","event":"ping","payload":{},"ref":"2","join_ref":null}"#)
        .await;
    client.expect(r#"["1","2","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
}

async fn elements_past_the_fifth_are_ignored(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client.send_text(r#"["1","2","room:a","ping",{"a":1},"six",[7],{"eight":8}]"#).await;
    client.expect(r#"["1","2","room:a","phx_reply",{"status":"ok","response":{"a":1}}]"#).await;
}
