//! Joins: replies, first pushes and rejections.

use crate::support::{Http, LongPoll, Stage, Transport, UPGRADE};

scenarios! {
    everywhere: [
        a_join_is_answered_before_the_channel_pushes,
        a_join_without_a_user_id_pushes_null,
        an_empty_user_id_is_valid,
        the_last_of_repeated_parameters_counts,
        a_join_reply_carries_the_response_of_the_channel,
        a_rejected_join_is_an_error_and_the_topic_is_not_joined,
        a_join_that_crashes_is_an_error_and_nothing_else,
        a_topic_without_a_channel_is_unmatched,
        a_topic_that_is_not_a_string_is_unmatched_and_echoed,
        a_join_payload_can_be_any_json,
        integer_refs_from_zero_are_echoed_as_integers,
        the_hundred_and_first_channel_is_rejected,
        an_unmatched_topic_is_reported_before_the_channel_limit,
        one_of_a_hundred_channels_can_be_rejoined,
        leaving_a_channel_makes_room_for_another,
        a_topic_of_255_bytes_can_be_joined,
        several_topics_can_be_joined_in_one_write,
        a_rejected_connect_is_a_403,
    ]
}

async fn a_join_is_answered_before_the_channel_pushes(stage: Stage) {
    let mut client = stage.client("user_id=u1").await;
    client.send(r#"["1","1","room:lobby","phx_join",{}]"#).await;
    client.expect(r#"["1","1","room:lobby","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1",null,"room:lobby","joined",{"user_id":"u1"}]"#).await;
}

async fn a_join_without_a_user_id_pushes_null(stage: Stage) {
    let mut client = stage.client("").await;
    client.send(r#"["1","1","room:lobby","phx_join",{}]"#).await;
    client.expect(r#"["1","1","room:lobby","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1",null,"room:lobby","joined",{"user_id":null}]"#).await;
}

async fn an_empty_user_id_is_valid(stage: Stage) {
    let mut client = stage.client("user_id=").await;
    client.send(r#"["1","1","room:lobby","phx_join",{}]"#).await;
    client.expect(r#"["1","1","room:lobby","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1",null,"room:lobby","joined",{"user_id":""}]"#).await;
}

async fn the_last_of_repeated_parameters_counts(stage: Stage) {
    let mut client = stage.client("user_id=first&reject=true&user_id=last&reject=false").await;
    client.send(r#"["1","1","room:lobby","phx_join",{}]"#).await;
    client.expect(r#"["1","1","room:lobby","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1",null,"room:lobby","joined",{"user_id":"last"}]"#).await;
}

async fn a_join_reply_carries_the_response_of_the_channel(stage: Stage) {
    let mut client = stage.client("").await;
    client.send(r#"["1","2","room:a","phx_join",{"echo":{"b":[1,2.50],"a":"é"}}]"#).await;
    client
        .expect(
            r#"["1","2","room:a","phx_reply",{"status":"ok","response":{"echo":{"b":[1,2.50],"a":"é"}}}]"#,
        )
        .await;
    client.expect(r#"["1",null,"room:a","joined",{"user_id":null}]"#).await;
}

async fn a_rejected_join_is_an_error_and_the_topic_is_not_joined(stage: Stage) {
    let mut client = stage.client("").await;
    for topic in ["room:closed", "room:closed:2"] {
        client.send(&format!(r#"["51","51","{topic}","phx_join",{{}}]"#)).await;
        client
            .expect(&format!(
                r#"["51","51","{topic}","phx_reply",{{"status":"error","response":{{"reason":"unauthorized"}}}}]"#
            ))
            .await;
        client.send(&format!(r#"["51","52","{topic}","ping",{{}}]"#)).await;
        client
            .expect(&format!(
                r#"[null,"52","{topic}","phx_reply",{{"status":"error","response":{{"reason":"unmatched topic"}}}}]"#
            ))
            .await;
    }
}

async fn a_join_that_crashes_is_an_error_and_nothing_else(stage: Stage) {
    let mut client = stage.client("").await;
    client.send(r#"["53","53","room:crash","phx_join",{"crash":true}]"#).await;
    client
        .expect(
            r#"["53","53","room:crash","phx_reply",{"status":"error","response":{"reason":"join crashed"}}]"#,
        )
        .await;
    client.send(r#"["53","54","room:crash","ping",{}]"#).await;
    client
        .expect(
            r#"[null,"54","room:crash","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
        )
        .await;
}

async fn a_topic_without_a_channel_is_unmatched(stage: Stage) {
    let mut client = stage.client("").await;
    for topic in ["nope", "room", "rooms:a", "", "a\u{e9}:b"] {
        client.send(&format!(r#"["52","52","{topic}","phx_join",{{}}]"#)).await;
        client
            .expect(&format!(
                r#"[null,"52","{topic}","phx_reply",{{"status":"error","response":{{"reason":"unmatched topic"}}}}]"#
            ))
            .await;
    }
}

async fn a_topic_that_is_not_a_string_is_unmatched_and_echoed(stage: Stage) {
    let mut client = stage.client("").await;
    for topic in ["5", "null"] {
        client.send(&format!(r#"["1","1",{topic},"phx_join",{{}}]"#)).await;
        client
            .expect(&format!(
                r#"[null,"1",{topic},"phx_reply",{{"status":"error","response":{{"reason":"unmatched topic"}}}}]"#
            ))
            .await;
    }
}

async fn a_join_payload_can_be_any_json(stage: Stage) {
    let mut client = stage.client("").await;
    for payload in ["null", "[1]", r#""s""#, "5", "true"] {
        client.send(&format!(r#"["1","1","room:a","phx_join",{payload}]"#)).await;
        client.expect(r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
        client.expect(r#"["1",null,"room:a","joined",{"user_id":null}]"#).await;
        client.send(r#"["1","2","room:a","phx_leave",{}]"#).await;
        client.expect(r#"["1","2","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
        client.expect(r#"["1","1","room:a","phx_close",{}]"#).await;
    }
}

async fn integer_refs_from_zero_are_echoed_as_integers(stage: Stage) {
    let mut client = stage.client("").await;
    client.send(r#"[0,0,"room:a","phx_join",null]"#).await;
    client.expect(r#"[0,0,"room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"[0,null,"room:a","joined",{"user_id":null}]"#).await;
    client.send(r#"[0,1,"room:a","ping",null]"#).await;
    client.expect(r#"[0,1,"room:a","phx_reply",{"status":"ok","response":null}]"#).await;
    client.send(r#"[0,18446744073709551616,"room:a","ping",-0.0]"#).await;
    client
        .expect(r#"[0,18446744073709551616,"room:a","phx_reply",{"status":"ok","response":-0.0}]"#)
        .await;
    client.send(r#"[0,-7,"room:a","stop",{}]"#).await;
    client.expect(r#"[0,0,"room:a","phx_close",{}]"#).await;
}

async fn the_hundred_and_first_channel_is_rejected(stage: Stage) {
    let mut client = a_hundred_channels(&stage).await;
    client.send(r#"["100","100","room:100","phx_join",{}]"#).await;
    client
        .expect(
            r#"["100","100","room:100","phx_reply",{"status":"error","response":{"reason":"too many channels joined"}}]"#,
        )
        .await;
    client.ping("99", "room:99").await;
}

async fn an_unmatched_topic_is_reported_before_the_channel_limit(stage: Stage) {
    let mut client = a_hundred_channels(&stage).await;
    client.send(r#"["100","100","nope","phx_join",{}]"#).await;
    client
        .expect(
            r#"[null,"100","nope","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
        )
        .await;
}

async fn one_of_a_hundred_channels_can_be_rejoined(stage: Stage) {
    let mut client = a_hundred_channels(&stage).await;
    client.send(r#"["100","100","room:0","phx_join",{}]"#).await;
    client.expect(r#"["100","100","room:0","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["0","0","room:0","phx_close",{}]"#).await;
    client.expect(r#"["100",null,"room:0","joined",{"user_id":null}]"#).await;
}

async fn leaving_a_channel_makes_room_for_another(stage: Stage) {
    let mut client = a_hundred_channels(&stage).await;
    client.send(r#"["7","100","room:7","phx_leave",{}]"#).await;
    client.expect(r#"["7","100","room:7","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["7","7","room:7","phx_close",{}]"#).await;
    client.join("101", "room:101").await;
}

async fn a_topic_of_255_bytes_can_be_joined(stage: Stage) {
    let mut client = stage.client("").await;
    let topic = format!("room:{}", "é".repeat(125));
    assert_eq!(topic.len(), 255);
    client.join("1", &topic).await;
    client.ping("1", &topic).await;
}

async fn several_topics_can_be_joined_in_one_write(stage: Stage) {
    let mut client = stage.client("").await;
    client
        .send_all(&[r#"["1","1","room:a","phx_join",{}]"#, r#"["2","2","room:b","phx_join",{}]"#])
        .await;
    client
        .expect_all(&[
            r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#,
            r#"["1",null,"room:a","joined",{"user_id":null}]"#,
            r#"["2","2","room:b","phx_reply",{"status":"ok","response":{}}]"#,
            r#"["2",null,"room:b","joined",{"user_id":null}]"#,
        ])
        .await;
}

async fn a_rejected_connect_is_a_403(stage: Stage) {
    let parameters = format!("{}&reject=true", stage.version.parameter());
    let mut http = Http::connect(&stage.server).await;
    match stage.transport {
        Transport::WebSocket => {
            let target = format!("/socket/websocket?{parameters}");
            assert_eq!(http.request("GET", &target, &UPGRADE, b"").await.status, 403);
        }
        Transport::LongPoll => {
            let response = http.get(&format!("/socket/longpoll?{parameters}")).await;
            assert_eq!((response.status, &*response.body), (200, r#"{"status":403}"#));
            // A later connect can be accepted.
            let accepted = stage.version.parameter();
            LongPoll::open(&stage.server, accepted).await;
        }
    }
}

async fn a_hundred_channels(stage: &Stage) -> crate::support::Client {
    let mut client = stage.client("").await;
    for channel in 0..100 {
        client.join(&channel.to_string(), &format!("room:{channel}")).await;
    }
    client
}
