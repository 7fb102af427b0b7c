//! Presence in a lobby: the state that new members receive, and the diffs of joins, changes and
//! leaves.

use std::time::Duration;

use serde_json::{Value, json};

use crate::reference::Config;
use crate::support::lobby::{Member, diff, event, joins, leaves, metas, phx_ref, renamed};
use crate::support::{Client, Server, Stage};

scenarios! {
    everywhere: [
        a_join_is_answered_before_the_state_and_the_diff_of_the_join,
        the_state_carries_the_join_ref_and_a_diff_does_not,
        the_name_can_be_any_json_and_defaults_to_null,
        the_key_is_the_user_id_even_if_it_is_empty,
        other_members_receive_the_diff_of_a_join,
        a_new_member_receives_the_state_of_all_members,
        sockets_of_one_user_are_metas_oldest_first,
        one_of_two_sockets_leaves_and_the_other_stays,
        a_rename_is_answered_before_its_diff,
        each_rename_refers_to_the_previous_meta,
        a_rename_does_not_affect_other_sockets_of_the_user,
        a_renamed_meta_is_last_in_the_next_state,
        leave_presence_is_answered_before_its_diff,
        after_leave_presence_further_changes_are_ok_and_have_no_effect,
        a_member_without_presence_still_receives_diffs,
        the_others_but_not_the_leaver_receive_the_diff_of_a_leave,
        a_member_that_left_can_join_again_with_a_new_meta,
        a_join_of_a_joined_lobby_replaces_the_presence,
        an_unmatched_event_ends_the_channel_and_the_presence,
        a_rename_without_a_name_ends_the_channel_and_the_presence,
        a_disconnect_by_id_ends_the_presence,
        a_lost_connection_ends_the_presence,
        a_lobby_receives_nothing_of_another_one,
        lobbies_on_one_socket_are_left_separately,
        a_reserved_key_is_never_tracked,
    ]
}

/// Joins `lobby:a` as a user without a name.
async fn user(stage: &Stage, id: &str) -> Member {
    let client = stage.client(&format!("user_id={id}")).await;
    Member::join(client, id, "{}").await
}

/// Joins two users; the first has received the diff of the second's join.
async fn two(stage: &Stage) -> (Member, Member) {
    let mut one = user(stage, "one").await;
    let other = user(stage, "other").await;
    assert_eq!(one.diff().await, joins("other", &[&other.meta]));
    (one, other)
}

async fn a_join_is_answered_before_the_state_and_the_diff_of_the_join(stage: Stage) {
    let mut anon = Member::join(stage.client("").await, "anon", r#"{"name":"Ann"}"#).await;
    let phx_ref = phx_ref(&anon.meta);
    let expected = json!({ "anon": { "metas": [{ "name": "Ann", "phx_ref": phx_ref }] } });
    assert_eq!(anon.state, expected);
    anon.rename("Bob").await;
    anon.client.heartbeat().await;
}

async fn the_state_carries_the_join_ref_and_a_diff_does_not(stage: Stage) {
    let mut client = stage.client("").await;
    client.send(r#"["115","116","lobby:a","phx_join",{}]"#).await;
    client.expect(r#"["115","116","lobby:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    let mut got = [client.recv().await, client.recv().await];
    got.sort_by_key(|text| event(text).0 == "presence_state");
    let [own, state] = got;
    let (_, presences) = event(&state);
    assert_eq!(diff(&own)["joins"], presences);
    let join_ref = if state.starts_with("[null") { "null" } else { r#""115""# };
    assert_eq!(join_ref == "null", stage.version == crate::support::Version::V1);
    assert!(state.starts_with(&format!("[{join_ref},null,")), "{state}");
}

async fn the_name_can_be_any_json_and_defaults_to_null(stage: Stage) {
    for (payload, name) in [
        ("{}", json!(null)),
        ("[]", json!(null)),
        (r#"{"name":null}"#, json!(null)),
        (r#"{"name":"Zoë \"\u0000"}"#, json!("Zoë \"\u{0}")),
        (r#"{"name":{"phx_ref":"x"},"more":1}"#, json!({ "phx_ref": "x" })),
    ] {
        let stage = Stage::set(stage.transport, stage.version).await;
        let present = Member::join(stage.client("").await, "anon", payload).await;
        let phx_ref = phx_ref(&present.meta);
        assert_eq!(present.meta, json!({ "name": name, "phx_ref": phx_ref }), "{payload}");
    }
}

async fn the_key_is_the_user_id_even_if_it_is_empty(stage: Stage) {
    for (parameters, key) in [
        ("user_id=u1", "u1"),
        ("user_id=", ""),
        ("user_id=a&user_id=%22%C3%A9", "\"é"),
        ("", "anon"),
    ] {
        let stage = Stage::set(stage.transport, stage.version).await;
        let present = Member::join(stage.client(parameters).await, key, "{}").await;
        assert_eq!(present.state, json!({ key: { "metas": [present.meta] } }));
    }
}

async fn other_members_receive_the_diff_of_a_join(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    one.client.heartbeat().await;
    other.client.heartbeat().await;
}

async fn a_new_member_receives_the_state_of_all_members(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    let renamed = renamed(&other.rename("Bob").await, "other", &other.meta, "Bob");
    one.diff().await;
    let last = user(&stage, "last").await;
    let expected = json!({
        "one": { "metas": [one.meta] },
        "other": { "metas": [renamed] },
        "last": { "metas": [last.meta] },
    });
    assert_eq!(last.state, expected);
}

async fn sockets_of_one_user_are_metas_oldest_first(stage: Stage) {
    let mut first = user(&stage, "u").await;
    let mut second = user(&stage, "u").await;
    let third = user(&stage, "u").await;
    assert_eq!(
        metas(&third.state, "u"),
        [&first.meta, &second.meta, &third.meta].map(Value::clone)
    );
    assert_eq!(first.diff().await, joins("u", &[&second.meta]));
    assert_eq!(first.diff().await, joins("u", &[&third.meta]));
    assert_eq!(second.diff().await, joins("u", &[&third.meta]));
}

async fn one_of_two_sockets_leaves_and_the_other_stays(stage: Stage) {
    let mut first = user(&stage, "u").await;
    let mut second = user(&stage, "u").await;
    first.diff().await;
    leave(&mut first).await;
    assert_eq!(second.diff().await, leaves("u", &[&first.meta]));
    let third = user(&stage, "u").await;
    assert_eq!(metas(&third.state, "u"), [&second.meta, &third.meta].map(Value::clone));
}

async fn a_rename_is_answered_before_its_diff(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    let diff = one.rename("Ann").await;
    renamed(&diff, "one", &one.meta, "Ann");
    assert_eq!(other.diff().await, diff);
    one.client.heartbeat().await;
}

async fn each_rename_refers_to_the_previous_meta(stage: Stage) {
    let mut one = user(&stage, "one").await;
    let first = renamed(&one.rename("Ann").await, "one", &one.meta, "Ann");
    assert_eq!(phx_ref(&one.meta), first["phx_ref_prev"]);
    let second = renamed(&one.rename("Bob").await, "one", &first, "Bob");
    assert_eq!(phx_ref(&first), second["phx_ref_prev"]);
}

async fn a_rename_does_not_affect_other_sockets_of_the_user(stage: Stage) {
    let mut first = user(&stage, "u").await;
    let mut second = user(&stage, "u").await;
    first.diff().await;
    let diff = second.rename("Bob").await;
    let renamed = renamed(&diff, "u", &second.meta, "Bob");
    assert_eq!(first.diff().await, diff);
    let third = user(&stage, "u").await;
    assert_eq!(metas(&third.state, "u"), [&first.meta, &renamed, &third.meta].map(Value::clone));
}

async fn a_renamed_meta_is_last_in_the_next_state(stage: Stage) {
    let mut first = user(&stage, "u").await;
    let second = user(&stage, "u").await;
    first.diff().await;
    let renamed = renamed(&first.rename("Ann").await, "u", &first.meta, "Ann");
    let third = user(&stage, "u").await;
    assert_eq!(metas(&third.state, "u"), [&second.meta, &renamed, &third.meta].map(Value::clone));
}

async fn leave_presence_is_answered_before_its_diff(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    one.client.send(r#"["1","2","lobby:a","leave_presence",{}]"#).await;
    one.expect_ok("2").await;
    assert_eq!(one.diff().await, leaves("one", &[&one.meta]));
    assert_eq!(other.diff().await, leaves("one", &[&one.meta]));
}

async fn after_leave_presence_further_changes_are_ok_and_have_no_effect(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    one.client.send(r#"["1","2","lobby:a","leave_presence",{}]"#).await;
    one.expect_ok("2").await;
    one.diff().await;
    other.diff().await;
    one.client.send(r#"["1","3","lobby:a","rename",{"name":"Ann"}]"#).await;
    one.expect_ok("3").await;
    one.client.send(r#"["1","4","lobby:a","leave_presence",{}]"#).await;
    one.expect_ok("4").await;
    renamed(&other.rename("Bob").await, "other", &other.meta, "Bob");
    let last = user(&stage, "last").await;
    let keys: Vec<_> = last.state.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["last", "other"]);
}

async fn a_member_without_presence_still_receives_diffs(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    one.client.send(r#"["1","2","lobby:a","leave_presence",{}]"#).await;
    one.expect_ok("2").await;
    one.diff().await;
    other.diff().await;
    let diff = other.rename("Bob").await;
    assert_eq!(one.diff().await, diff);
}

/// Leaves, and expects nothing but the reply and the close.
async fn leave(present: &mut Member) {
    let client = &mut present.client;
    client.send(r#"["1","9","lobby:a","phx_leave",{}]"#).await;
    client.expect(r#"["1","9","lobby:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1","1","lobby:a","phx_close",{}]"#).await;
}

async fn the_others_but_not_the_leaver_receive_the_diff_of_a_leave(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    leave(&mut one).await;
    assert_eq!(other.diff().await, leaves("one", &[&one.meta]));
    // Any announcement of the leave has been sent by now.
    one.client.heartbeat().await;
    renamed(&other.rename("Bob").await, "other", &other.meta, "Bob");
    one.client.heartbeat().await;
}

async fn a_member_that_left_can_join_again_with_a_new_meta(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    leave(&mut one).await;
    assert_eq!(other.diff().await, leaves("one", &[&one.meta]));
    let again = Member::join(one.client, "one", "{}").await;
    assert_ne!(phx_ref(&again.meta), phx_ref(&one.meta));
    assert_eq!(other.diff().await, joins("one", &[&again.meta]));
}

async fn a_join_of_a_joined_lobby_replaces_the_presence(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    one.client.send(r#"["5","5","lobby:a","phx_join",{"name":"Ann"}]"#).await;
    one.client.expect(r#"["5","5","lobby:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    one.client.expect(r#"["1","1","lobby:a","phx_close",{}]"#).await;
    // The leave of the old meta and the join of the new one can come in one diff or two.
    let (mut left, mut joined) = (Vec::new(), Vec::new());
    while left.is_empty() || joined.is_empty() {
        let diff = other.diff().await;
        left.extend(diff["leaves"]["one"]["metas"].as_array().cloned().unwrap_or_default());
        joined.extend(diff["joins"]["one"]["metas"].as_array().cloned().unwrap_or_default());
    }
    assert_eq!(left, [one.meta]);
    assert_eq!(joined, [json!({ "name": "Ann", "phx_ref": phx_ref(&joined[0]) })]);
    let last = user(&stage, "last").await;
    assert_eq!(metas(&last.state, "one"), joined);
}

async fn an_unmatched_event_ends_the_channel_and_the_presence(stage: Stage) {
    for (number, event) in ["new_msg", "presence_diff", "ping"].into_iter().enumerate() {
        let stage = Stage::set(stage.transport, stage.version).await;
        let (mut one, mut other) = two(&stage).await;
        one.client.send(&format!(r#"["1","{number}","lobby:a","{event}",{{}}]"#)).await;
        crashed(&mut one).await;
        assert_eq!(other.diff().await, leaves("one", &[&one.meta]));
    }
}

async fn a_rename_without_a_name_ends_the_channel_and_the_presence(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    one.client.send(r#"["1","2","lobby:a","rename",{"nom":"Ann"}]"#).await;
    crashed(&mut one).await;
    assert_eq!(other.diff().await, leaves("one", &[&one.meta]));
    let again = Member::join(one.client, "one", "{}").await;
    assert_eq!(other.diff().await, joins("one", &[&again.meta]));
}

async fn crashed(present: &mut Member) {
    let client = &mut present.client;
    client.expect(r#"["1","1","lobby:a","phx_error",{"reason":"channel_crash"}]"#).await;
}

async fn a_disconnect_by_id_ends_the_presence(stage: Stage) {
    let (one, mut other) = two(&stage).await;
    stage.server.disconnect("user_socket:one").await;
    one.client.expect_disconnect().await;
    assert_eq!(other.diff().await, leaves("one", &[&one.meta]));
}

async fn a_lost_connection_ends_the_presence(stage: Stage) {
    // A long-poll session ends when it has not polled for one and a half poll timeouts.
    let poll_timeout = Duration::from_millis(200);
    let server = Server::with(Config { poll_timeout, ..Config::default() }).await;
    let transport = crate::support::Transport::WebSocket;
    let watcher = Client::connect(&server, transport, stage.version, "user_id=watcher").await;
    let mut watcher = Member::join(watcher, "watcher", "{}").await;
    let stage = Stage { server, ..stage };
    let one = user(&stage, "one").await;
    assert_eq!(watcher.diff().await, joins("one", &[&one.meta]));
    drop(one.client);
    assert_eq!(watcher.diff().await, leaves("one", &[&one.meta]));
}

async fn a_lobby_receives_nothing_of_another_one(stage: Stage) {
    let mut one = user(&stage, "one").await;
    let mut client = stage.client("user_id=two").await;
    for topic in ["lobby:b", "lobby:", "lobby:a:b"] {
        client.send(&format!(r#"["2","2","{topic}","phx_join",{{}}]"#)).await;
        for _ in 0..3 {
            let got = client.recv().await;
            assert!(!got.contains("\"one\""), "{got}");
        }
    }
    renamed(&one.rename("Ann").await, "one", &one.meta, "Ann");
    client.heartbeat().await;
}

async fn lobbies_on_one_socket_are_left_separately(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    one.client.send(r#"["2","2","lobby:b","phx_join",{}]"#).await;
    for _ in 0..3 {
        one.client.recv().await;
    }
    one.client.send(r#"["2","3","lobby:b","phx_leave",{}]"#).await;
    one.client.expect(r#"["2","3","lobby:b","phx_reply",{"status":"ok","response":{}}]"#).await;
    one.client.expect(r#"["2","2","lobby:b","phx_close",{}]"#).await;
    renamed(&other.rename("Bob").await, "other", &other.meta, "Bob");
    one.diff().await;
    leave(&mut one).await;
    assert_eq!(other.diff().await, leaves("one", &[&one.meta]));
}

async fn a_reserved_key_is_never_tracked(stage: Stage) {
    let mut one = user(&stage, "one").await;
    for key in ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty"] {
        let mut client = stage.client(&format!("user_id={key}")).await;
        client.send(r#"["1","1","lobby:a","phx_join",{}]"#).await;
        client.expect(r#"["1","1","lobby:a","phx_reply",{"status":"ok","response":{}}]"#).await;
        client.expect(r#"["1","1","lobby:a","phx_error",{"reason":"channel_crash"}]"#).await;
        client.heartbeat().await;
    }
    renamed(&one.rename("Ann").await, "one", &one.meta, "Ann");
    let last = user(&stage, "last").await;
    assert_eq!(last.state.as_object().map(serde_json::Map::len), Some(2), "{}", last.state);
}
