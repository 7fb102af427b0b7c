//! Joining a topic twice on one socket: the new channel replaces the old one.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::Stage;

scenarios! {
    everywhere: [
        a_second_join_replaces_the_channel,
        the_new_channel_has_fresh_state,
        pushes_to_the_old_channel_are_dropped,
        a_broadcast_is_received_once,
        a_late_reply_of_the_old_channel_is_dropped,
        a_second_join_that_crashes_ends_the_old_channel_too,
        a_second_join_with_the_same_join_ref_replaces_the_channel,
        the_same_topic_on_two_sockets_is_not_a_duplicate,
        each_of_many_joins_at_once_is_answered_or_closed,
    ]
}

async fn a_second_join_replaces_the_channel(stage: Stage) {
    let mut client = stage.client("").await;
    client.join("80", "room:d").await;
    client.send(r#"["81","81","room:d","phx_join",{}]"#).await;
    client.expect(r#"["81","81","room:d","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["80","80","room:d","phx_close",{}]"#).await;
    client.expect(r#"["81",null,"room:d","joined",{"user_id":null}]"#).await;
    client.ping("81", "room:d").await;
}

async fn the_new_channel_has_fresh_state(stage: Stage) {
    let mut client = stage.client("").await;
    client.join("80", "room:d").await;
    client.send(r#"["80","1","room:d","assign",{"k":"k","v":1}]"#).await;
    client.expect(r#"["80","1","room:d","phx_reply",{"status":"ok","response":{}}]"#).await;
    rejoin(&mut client).await;
    client.send(r#"["81","2","room:d","fetch",{"k":"k"}]"#).await;
    client.expect(r#"["81","2","room:d","phx_reply",{"status":"ok","response":{"v":null}}]"#).await;
}

async fn pushes_to_the_old_channel_are_dropped(stage: Stage) {
    let mut client = stage.client("").await;
    client.join("80", "room:d").await;
    rejoin(&mut client).await;
    client.send(r#"["80","1","room:d","boom",{}]"#).await;
    client.send(r#"["80","2","room:d","phx_leave",{}]"#).await;
    client.ping("81", "room:d").await;
}

async fn a_broadcast_is_received_once(stage: Stage) {
    let mut client = stage.client("").await;
    client.join("80", "room:d").await;
    rejoin(&mut client).await;
    client.send(r#"["81","1","room:d","new_msg",{}]"#).await;
    client.expect(r#"[null,null,"room:d","new_msg",{}]"#).await;
    client.ping("81", "room:d").await;
}

async fn a_late_reply_of_the_old_channel_is_dropped(stage: Stage) {
    let mut client = stage.client("").await;
    client.join("80", "room:d").await;
    client.send(r#"["80","1","room:d","slow",{"ms":150}]"#).await;
    rejoin(&mut client).await;
    client.send(r#"["81","2","room:d","slow",{"ms":300}]"#).await;
    client.expect(r#"["81","2","room:d","phx_reply",{"status":"ok","response":{"ms":300}}]"#).await;
}

async fn a_second_join_that_crashes_ends_the_old_channel_too(stage: Stage) {
    let mut client = stage.client("").await;
    client.join("80", "room:d").await;
    client.send(r#"["81","81","room:d","phx_join",{"crash":true}]"#).await;
    client
        .expect(
            r#"["81","81","room:d","phx_reply",{"status":"error","response":{"reason":"join crashed"}}]"#,
        )
        .await;
    client.expect(r#"["80","80","room:d","phx_close",{}]"#).await;
    client.send(r#"["80","1","room:d","ping",{}]"#).await;
    client
        .expect(
            r#"[null,"1","room:d","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
        )
        .await;
}

async fn a_second_join_with_the_same_join_ref_replaces_the_channel(stage: Stage) {
    let mut client = stage.client("").await;
    client.join("80", "room:d").await;
    client.send(r#"["80","81","room:d","phx_join",{}]"#).await;
    client.expect(r#"["80","81","room:d","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["80","80","room:d","phx_close",{}]"#).await;
    client.expect(r#"["80",null,"room:d","joined",{"user_id":null}]"#).await;
    client.ping("80", "room:d").await;
}

async fn the_same_topic_on_two_sockets_is_not_a_duplicate(stage: Stage) {
    let mut first = stage.member("room:d").await;
    let mut second = stage.member("room:d").await;
    second.ping("1", "room:d").await;
    first.ping("1", "room:d").await;
}

async fn each_of_many_joins_at_once_is_answered_or_closed(stage: Stage) {
    let mut client = stage.client("").await;
    let joins: Vec<_> =
        (0..300).map(|n| format!(r#"["{n}","{n}","room:d","phx_join",{{}}]"#)).collect();
    client.send_all(&joins.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut open: BTreeSet<_> = (0..300).map(|n| n.to_string()).collect();
    while !open.is_empty() {
        let message: Vec<Value> = serde_json::from_str(&client.recv().await).expect("an array");
        if matches!(message[3].as_str(), Some("phx_reply" | "phx_close")) {
            open.remove(message[1].as_str().expect("a ref"));
        }
    }
    client.send(r#"["299","x","room:d","ping",{}]"#).await;
    loop {
        let message: Vec<Value> = serde_json::from_str(&client.recv().await).expect("an array");
        match (message[1].as_str(), message[3].as_str()) {
            (Some("x"), event) => return assert_eq!(event, Some("phx_reply")),
            (Some("299"), event) => assert_ne!(event, Some("phx_close"), "the last join stays"),
            _ => {}
        }
    }
}

async fn rejoin(client: &mut crate::support::Client) {
    client.send(r#"["81","81","room:d","phx_join",{}]"#).await;
    client.expect(r#"["81","81","room:d","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["80","80","room:d","phx_close",{}]"#).await;
    client.expect(r#"["81",null,"room:d","joined",{"user_id":null}]"#).await;
}
