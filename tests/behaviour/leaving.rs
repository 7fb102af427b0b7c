//! Regular ends of a channel: the client leaves, or the channel stops.

use crate::support::Stage;

scenarios! {
    everywhere: [
        a_leave_is_answered_before_the_channel_closes,
        a_topic_that_was_left_is_no_longer_joined,
        a_leave_with_a_null_join_ref_leaves,
        a_leave_of_a_topic_that_is_not_joined_is_ok,
        phoenix_can_be_left,
        stop_closes_the_channel,
        stop_reply_replies_before_the_channel_closes,
        a_stopped_channel_is_no_longer_joined,
        a_late_reply_of_a_channel_that_was_left_is_dropped,
        a_late_reply_of_a_stopped_channel_is_dropped,
        a_topic_can_be_left_and_joined_in_one_write,
        pushes_after_a_stop_are_dropped_or_unmatched,
    ]
}

async fn a_leave_is_answered_before_the_channel_closes(stage: Stage) {
    let mut client = stage.client("").await;
    client.join("115", "room:s").await;
    client.send(r#"["115","116","room:s","phx_leave",{}]"#).await;
    client.expect(r#"["115","116","room:s","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["115","115","room:s","phx_close",{}]"#).await;
    client.heartbeat().await;
}

async fn a_topic_that_was_left_is_no_longer_joined(stage: Stage) {
    let mut client = stage.member("room:s").await;
    client.send(r#"["1","2","room:s","phx_leave",{}]"#).await;
    client.expect(r#"["1","2","room:s","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1","1","room:s","phx_close",{}]"#).await;
    client.send(r#"["1","3","room:s","ping",{}]"#).await;
    client.expect(UNMATCHED_3).await;
    client.join("4", "room:s").await;
    client.ping("4", "room:s").await;
}

async fn a_leave_with_a_null_join_ref_leaves(stage: Stage) {
    let mut client = stage.member("room:s").await;
    client.send(r#"[null,"2","room:s","phx_leave",{}]"#).await;
    let reply = client.recv().await;
    assert!(
        reply.ends_with(r#""2","room:s","phx_reply",{"status":"ok","response":{}}]"#),
        "{reply}"
    );
    client.expect(r#"["1","1","room:s","phx_close",{}]"#).await;
}

async fn a_leave_of_a_topic_that_is_not_joined_is_ok(stage: Stage) {
    let mut client = stage.client("").await;
    for (join_ref, topic) in [(r#""70""#, "room:none"), ("null", "room:none"), (r#""70""#, "nope")]
    {
        client.send(&format!(r#"[{join_ref},"71","{topic}","phx_leave",{{}}]"#)).await;
        client
            .expect(&format!(
                r#"[{join_ref},"71","{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#
            ))
            .await;
    }
    client.heartbeat().await;
}

async fn phoenix_can_be_left(stage: Stage) {
    let mut client = stage.client("").await;
    client.send(r#"[null,"2","phoenix","phx_leave",{}]"#).await;
    client.expect(r#"[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.heartbeat().await;
}

async fn stop_closes_the_channel(stage: Stage) {
    let mut client = stage.client("").await;
    client.join("110", "room:s").await;
    client.send(r#"["110","111","room:s","stop",{}]"#).await;
    client.expect(r#"["110","110","room:s","phx_close",{}]"#).await;
    client.heartbeat().await;
}

async fn stop_reply_replies_before_the_channel_closes(stage: Stage) {
    let mut client = stage.client("").await;
    client.join("113", "room:s").await;
    client.send(r#"["113","114","room:s","stop_reply",{"bye":1}]"#).await;
    client
        .expect(r#"["113","114","room:s","phx_reply",{"status":"ok","response":{"bye":1}}]"#)
        .await;
    client.expect(r#"["113","113","room:s","phx_close",{}]"#).await;
    client.heartbeat().await;
}

async fn a_stopped_channel_is_no_longer_joined(stage: Stage) {
    let mut client = stage.member("room:s").await;
    client.send(r#"["1","2","room:s","stop",{}]"#).await;
    client.expect(r#"["1","1","room:s","phx_close",{}]"#).await;
    client.send(r#"["1","3","room:s","ping",{}]"#).await;
    client.expect(UNMATCHED_3).await;
}

async fn a_late_reply_of_a_channel_that_was_left_is_dropped(stage: Stage) {
    let mut client = stage.member("room:s").await;
    client.join("2", "room:later").await;
    client.send(r#"["1","3","room:s","slow",{"ms":150}]"#).await;
    client.send(r#"["1","4","room:s","phx_leave",{}]"#).await;
    client.expect(r#"["1","4","room:s","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1","1","room:s","phx_close",{}]"#).await;
    client.send(r#"["2","5","room:later","slow",{"ms":300}]"#).await;
    client
        .expect(r#"["2","5","room:later","phx_reply",{"status":"ok","response":{"ms":300}}]"#)
        .await;
}

async fn a_late_reply_of_a_stopped_channel_is_dropped(stage: Stage) {
    let mut client = stage.member("room:s").await;
    client.join("2", "room:later").await;
    client.send(r#"["1","3","room:s","slow",{"ms":150}]"#).await;
    client.send(r#"["1","4","room:s","stop",{}]"#).await;
    client.expect(r#"["1","1","room:s","phx_close",{}]"#).await;
    client.send(r#"["2","5","room:later","slow",{"ms":300}]"#).await;
    client
        .expect(r#"["2","5","room:later","phx_reply",{"status":"ok","response":{"ms":300}}]"#)
        .await;
}

/// The reply to the leave may be missing; the second channel is alive in any case.
async fn a_topic_can_be_left_and_joined_in_one_write(stage: Stage) {
    let mut client = stage.member("room:s").await;
    client
        .send_all(&[
            r#"["1","2","room:s","phx_leave",{}]"#,
            r#"["3","3","room:s","phx_join",{}]"#,
            r#"["3","4","room:s","ping",{}]"#,
        ])
        .await;
    let mut closes = 0;
    loop {
        let message = client.recv().await;
        closes += usize::from(message.contains(r#""phx_close""#));
        if message.contains(r#""4","room:s","phx_reply",{"status":"ok""#) {
            break;
        }
    }
    assert!(closes <= 1, "{closes} closes of one channel");
    client.ping("3", "room:s").await;
}

async fn pushes_after_a_stop_are_dropped_or_unmatched(stage: Stage) {
    let mut client = stage.member("room:s").await;
    client
        .send_all(&[
            r#"["1","2","room:s","stop",{}]"#,
            r#"["1","3","room:s","ping",{}]"#,
            r#"[null,"4","phoenix","heartbeat",{}]"#,
        ])
        .await;
    let (mut closed, mut beat) = (false, false);
    while !(closed && beat) {
        let message = client.recv().await;
        if message.ends_with(r#""room:s","phx_close",{}]"#) {
            closed = true;
        } else if message == r#"[null,"4","phoenix","phx_reply",{"status":"ok","response":{}}]"# {
            beat = true;
        } else {
            assert_eq!(message, UNMATCHED_3);
        }
    }
    client.join("5", "room:s").await;
}

const UNMATCHED_3: &str =
    r#"[null,"3","room:s","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#;
