//! A push whose join_ref differs from that of the join belongs to an earlier join and is dropped.

use crate::support::Stage;

scenarios! {
    everywhere: [
        a_push_with_another_join_ref_is_dropped,
        an_integer_join_ref_differs_from_the_string,
        a_push_with_a_null_join_ref_is_handled,
        a_leave_with_another_join_ref_is_dropped,
        a_join_without_a_join_ref_uses_its_ref,
        a_channel_joined_without_a_join_ref_handles_only_pushes_without_one,
        a_channel_joined_without_a_join_ref_ends_with_null_refs,
        a_channel_joined_without_a_join_ref_crashes_with_null_refs,
    ]
}

async fn a_push_with_another_join_ref_is_dropped(stage: Stage) {
    let mut client = stage.member("room:a").await;
    for event in ["ping", "boom", "stop", "whatever"] {
        client.send(&format!(r#"["2","5","room:a","{event}",{{}}]"#)).await;
    }
    client.ping("1", "room:a").await;
}

async fn an_integer_join_ref_differs_from_the_string(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client.send(r#"[1,"5","room:a","ping",{}]"#).await;
    client.ping("1", "room:a").await;
}

async fn a_push_with_a_null_join_ref_is_handled(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client.send(r#"[null,"5","room:a","ping",{}]"#).await;
    client.expect(r#"["1","5","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
}

async fn a_leave_with_another_join_ref_is_dropped(stage: Stage) {
    let mut client = stage.member("room:a").await;
    client.send(r#"["2","5","room:a","phx_leave",{}]"#).await;
    client.ping("1", "room:a").await;
}

async fn a_join_without_a_join_ref_uses_its_ref(stage: Stage) {
    let mut client = stage.client("").await;
    client.send(r#"[null,"60","room:a","phx_join",{}]"#).await;
    client.expect(r#"[null,"60","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["60",null,"room:a","joined",{"user_id":null}]"#).await;
}

async fn a_channel_joined_without_a_join_ref_handles_only_pushes_without_one(stage: Stage) {
    let mut client = joined_without_a_join_ref(&stage).await;
    client.send(r#"["60","61","room:a","boom",{}]"#).await;
    client.send(r#"["60","61","room:a","ping",{}]"#).await;
    client.send(r#"[null,"62","room:a","ping",{}]"#).await;
    client.expect(r#"["60","62","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
}

async fn a_channel_joined_without_a_join_ref_ends_with_null_refs(stage: Stage) {
    let mut client = joined_without_a_join_ref(&stage).await;
    client.send(r#"[null,"61","room:a","stop",{}]"#).await;
    client.expect(r#"[null,null,"room:a","phx_close",{}]"#).await;
}

async fn a_channel_joined_without_a_join_ref_crashes_with_null_refs(stage: Stage) {
    let mut client = joined_without_a_join_ref(&stage).await;
    client.send(r#"[null,"61","room:a","boom",{}]"#).await;
    client.expect(r#"[null,null,"room:a","phx_error",{"reason":"channel_crash"}]"#).await;
}

async fn joined_without_a_join_ref(stage: &Stage) -> crate::support::Client {
    let mut client = stage.client("").await;
    client.send(r#"[null,"60","room:a","phx_join",{}]"#).await;
    client.expect(r#"[null,"60","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["60",null,"room:a","joined",{"user_id":null}]"#).await;
    client
}
