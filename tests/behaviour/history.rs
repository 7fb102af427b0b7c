//! Topics with a history: positions, and clients that return after their sessions have ended.

use crate::support::{Client, Stage};

scenarios! {
    everywhere: [
        a_client_that_does_not_ask_is_told_no_positions,
        a_client_that_asks_is_told_where_each_message_stands,
        what_was_missed_follows_the_reply_and_then_comes_what_is_new,
        a_client_that_has_missed_nothing_receives_nothing,
        a_client_that_was_away_for_the_first_message_receives_it,
        more_than_is_kept_is_a_gap_after_which_nothing_old_follows,
        a_position_of_another_epoch_is_a_gap,
        what_is_not_a_position_counts_as_none,
        an_unmodified_client_names_its_position_in_the_payload,
        what_is_intercepted_is_replayed_through_the_channel,
        what_a_client_has_sent_to_all_others_is_part_of_the_history,
        a_refused_join_replays_nothing,
        a_second_join_recovers_once,
        a_client_that_leaves_and_joins_anew_recovers_what_it_names,
        a_published_message_is_answered_and_kept,
        a_topic_without_a_history_knows_no_positions,
    ]
    v2: [
        a_binary_message_is_a_push_that_carries_its_position,
        a_client_of_refs_is_told_the_position_of_a_binary_message_behind_it,
    ]
}

/// A message that stands somewhere.
#[derive(Debug, PartialEq, Eq)]
struct Positioned {
    event: String,
    payload: String,
    /// Epoch and number.
    position: (String, u64),
}

fn read(message: &str) -> Positioned {
    let (_, reference, topic, event, payload): (
        serde_json::Value,
        String,
        String,
        String,
        Box<serde_json::value::RawValue>,
    ) = serde_json::from_str(message).unwrap_or_else(|error| panic!("{error}: {message}"));
    assert_eq!(topic, "log:a");
    let position = reference.strip_prefix("p:").unwrap_or_else(|| panic!("no position: {message}"));
    let (epoch, number) = position.split_once('.').expect("an epoch and a number");
    let position = (epoch.to_owned(), number.parse().expect("a number"));
    Positioned { event, payload: payload.get().to_owned(), position }
}

impl Positioned {
    fn after(&self) -> String {
        format!(r#"{{"after":"{}.{}"}}"#, self.position.0, self.position.1)
    }
}

impl Client {
    async fn positioned(&mut self) -> Positioned {
        read(&self.recv().await)
    }

    /// Joins `log:a`, naming a position in a sixth element if there is one. The reply comes first.
    async fn join_log(&mut self, join_ref: &str, after: Option<&str>, arrival: &str) {
        self.join_log_with(join_ref, "{}", after, arrival).await;
    }

    async fn join_log_with(
        &mut self,
        join_ref: &str,
        payload: &str,
        after: Option<&str>,
        arrival: &str,
    ) {
        let named = after.map_or_else(String::new, |after| format!(",{after}"));
        self.send(&format!(r#"["{join_ref}","{join_ref}","log:a","phx_join",{payload}{named}]"#))
            .await;
        self.expect(&format!(
            r#"["{join_ref}","{join_ref}","log:a","phx_reply",{{"status":"ok","response":{{"arrival":"{arrival}"}}}}]"#
        ))
        .await;
    }

    /// Expects what a channel pushes after each join.
    async fn joined(&mut self, join_ref: &str) {
        let joined = format!(r#"["{join_ref}",null,"log:a","joined",{{"user_id":null}}]"#);
        self.expect(&joined).await;
    }

    /// Expects these messages next, each standing behind the one before. Returns the last.
    async fn messages(&mut self, expected: impl IntoIterator<Item = u32>) -> Option<Positioned> {
        let mut last = None::<Positioned>;
        for n in expected {
            let next = self.positioned().await;
            assert_eq!((&*next.event, &*next.payload), ("new_msg", &*format!(r#"{{"n":{n}}}"#)));
            if let Some(last) = last {
                assert_eq!(last.position.0, next.position.0);
                assert!(last.position.1 < next.position.1);
            }
            last = Some(next);
        }
        last
    }

    /// A client of `log:a` that is told positions, and its own.
    async fn member(stage: &Stage) -> (Self, Positioned) {
        let mut client = stage.client("positions=all").await;
        client.join_log("1", None, "new").await;
        let first = client.positioned().await;
        assert_eq!((&*first.event, &*first.payload), ("phx_position", "{}"));
        client.joined("1").await;
        (client, first)
    }
}

async fn say(stage: &Stage, numbers: impl IntoIterator<Item = u32>) {
    for n in numbers {
        stage.server.broadcast("log:a", "new_msg", &format!(r#"{{"n":{n}}}"#)).await;
    }
}

async fn a_client_that_does_not_ask_is_told_no_positions(stage: Stage) {
    let mut client = stage.client("").await;
    client.join_log("1", None, "new").await;
    client.joined("1").await;
    say(&stage, 1..=1).await;
    client.expect(r#"[null,null,"log:a","new_msg",{"n":1}]"#).await;
    client.ping("1", "log:a").await;
}

async fn a_client_that_asks_is_told_where_each_message_stands(stage: Stage) {
    let (mut client, first) = Client::member(&stage).await;
    say(&stage, 1..=2).await;
    let last = client.messages(1..=2).await.expect("two");
    assert_eq!(last.position.0, first.position.0);
    assert!(last.position.1 > first.position.1);
    client.ping("1", "log:a").await;
}

async fn what_was_missed_follows_the_reply_and_then_comes_what_is_new(stage: Stage) {
    let (mut client, _) = Client::member(&stage).await;
    say(&stage, 1..=1).await;
    let last = client.messages(1..=1).await.expect("one");
    drop(client);
    say(&stage, 2..=50).await;
    let mut client = stage.client("positions=all").await;
    client.join_log("1", Some(&last.after()), "recovered").await;
    client.messages(2..=50).await;
    client.joined("1").await;
    say(&stage, 51..=52).await;
    client.messages(51..=52).await;
    client.ping("1", "log:a").await;
}

async fn a_client_that_has_missed_nothing_receives_nothing(stage: Stage) {
    let (mut client, _) = Client::member(&stage).await;
    say(&stage, 1..=1).await;
    let last = client.messages(1..=1).await.expect("one");
    drop(client);
    let mut client = stage.client("positions=all").await;
    client.join_log("1", Some(&last.after()), "recovered").await;
    let position = client.positioned().await;
    assert_eq!((&*position.event, &position.position), ("phx_position", &last.position));
    client.joined("1").await;
    client.ping("1", "log:a").await;
}

async fn a_client_that_was_away_for_the_first_message_receives_it(stage: Stage) {
    let (client, first) = Client::member(&stage).await;
    drop(client);
    say(&stage, 1..=1).await;
    let mut client = stage.client("positions=all").await;
    client.join_log("1", Some(&first.after()), "recovered").await;
    client.messages(1..=1).await;
    client.joined("1").await;
    client.ping("1", "log:a").await;
}

async fn more_than_is_kept_is_a_gap_after_which_nothing_old_follows(stage: Stage) {
    let (client, first) = Client::member(&stage).await;
    drop(client);
    let mut writer = stage.client("").await;
    writer.join_log("1", None, "new").await;
    writer.joined("1").await;
    let typing = |n| format!(r#"["1","{n}","log:a","typing",{{}}]"#);
    let messages: Vec<_> = (0..1010).map(typing).collect();
    for batch in messages.chunks(100) {
        writer.send_all(&batch.iter().map(String::as_str).collect::<Vec<_>>()).await;
        writer.ping("1", "log:a").await;
    }
    let mut client = stage.client("positions=all").await;
    client.join_log("1", Some(&first.after()), "gap").await;
    let position = client.positioned().await;
    assert_eq!(position.event, "phx_position");
    client.joined("1").await;
    say(&stage, 1..=1).await;
    let next = client.messages(1..=1).await.expect("one");
    assert!(position.position.1 < next.position.1);
    client.ping("1", "log:a").await;
}

async fn a_position_of_another_epoch_is_a_gap(stage: Stage) {
    let (client, first) = Client::member(&stage).await;
    drop(client);
    say(&stage, 1..=1).await;
    let mut client = stage.client("positions=all").await;
    let after = format!(r#"{{"after":"AAAAAAAAAAA.{}"}}"#, first.position.1);
    client.join_log("1", Some(&after), "gap").await;
    let position = client.positioned().await;
    assert_eq!((&*position.event, &position.position.0), ("phx_position", &first.position.0));
    assert!(position.position.1 > first.position.1);
    client.joined("1").await;
    client.ping("1", "log:a").await;
}

async fn what_is_not_a_position_counts_as_none(stage: Stage) {
    let (client, first) = Client::member(&stage).await;
    drop(client);
    say(&stage, 1..=1).await;
    let mut client = stage.client("positions=all").await;
    for (at, after) in
        ["17", "null", r#""""#, r#""AAAAAAAAAAE""#, r#"{"after":1}"#].iter().enumerate()
    {
        let (join_ref, after) = (at.to_string(), format!(r#"{{"after":{after}}}"#));
        client.join_log(&join_ref, Some(&after), "new").await;
        assert_eq!(client.positioned().await.event, "phx_position");
        client.joined(&join_ref).await;
        client.send(&format!(r#"["{join_ref}","l","log:a","phx_leave",{{}}]"#)).await;
        let ok = r#""log:a","phx_reply",{"status":"ok","response":{}}]"#;
        client.expect(&format!(r#"["{join_ref}","l",{ok}"#)).await;
        client.expect(&format!(r#"["{join_ref}","{join_ref}","log:a","phx_close",{{}}]"#)).await;
    }
    // Nor does the payload of a client that has not asked for it there.
    let payload = first.after();
    client.join_log_with("9", &payload, None, "new").await;
}

async fn an_unmodified_client_names_its_position_in_the_payload(stage: Stage) {
    let (client, first) = Client::member(&stage).await;
    drop(client);
    say(&stage, 1..=1).await;
    let mut client = stage.client("positions=refs").await;
    client.join_log_with("1", &first.after(), None, "recovered").await;
    client.messages(1..=1).await;
    client.joined("1").await;
    client.ping("1", "log:a").await;
}

async fn what_is_intercepted_is_replayed_through_the_channel(stage: Stage) {
    let (client, first) = Client::member(&stage).await;
    drop(client);
    stage.server.broadcast("log:a", "shout", r#"{"n":1}"#).await;
    stage.server.broadcast("log:a", "shout", r#"{"n":2,"skip":"ann"}"#).await;
    stage.server.broadcast("log:a", "shout", r#"{"n":3}"#).await;
    let mut client = stage.client("positions=all&user_id=ann").await;
    client.join_log("1", Some(&first.after()), "recovered").await;
    let mut numbers = Vec::new();
    for (event, payload) in [
        ("shout", r#"{"n":1,"to":"ann"}"#),
        // The channel has pushed nothing for it.
        ("phx_position", "{}"),
        ("shout", r#"{"n":3,"to":"ann"}"#),
    ] {
        let message = client.positioned().await;
        assert_eq!((&*message.event, &*message.payload), (event, payload));
        numbers.push(message.position.1);
    }
    assert!(numbers.is_sorted_by(|one, next| one < next));
    client.expect(r#"["1",null,"log:a","joined",{"user_id":"ann"}]"#).await;
    client.ping("1", "log:a").await;
}

async fn what_a_client_has_sent_to_all_others_is_part_of_the_history(stage: Stage) {
    let (mut client, first) = Client::member(&stage).await;
    // Nobody receives its own `typing`, which stands in the history like any other.
    client.send(r#"["1","2","log:a","typing",{}]"#).await;
    client.ping("1", "log:a").await;
    drop(client);
    let mut client = stage.client("positions=all").await;
    client.join_log("1", Some(&first.after()), "recovered").await;
    let typing = client.positioned().await;
    assert_eq!(typing.event, "typing");
    assert!(typing.position.1 > first.position.1);
    client.joined("1").await;
}

async fn a_refused_join_replays_nothing(stage: Stage) {
    let (client, first) = Client::member(&stage).await;
    drop(client);
    say(&stage, 1..=1).await;
    let mut client = stage.client("positions=all").await;
    let after = first.after();
    client.send(&format!(r#"["1","1","log:a","phx_join",{{"crash":true}},{after}]"#)).await;
    client
        .expect(r#"["1","1","log:a","phx_reply",{"status":"error","response":{"reason":"join crashed"}}]"#)
        .await;
    say(&stage, 2..=2).await;
    client.heartbeat().await;
    client.join_log("2", Some(&after), "recovered").await;
    client.messages(1..=2).await;
    client.joined("2").await;
}

async fn a_second_join_recovers_once(stage: Stage) {
    let (mut client, first) = Client::member(&stage).await;
    say(&stage, 1..=1).await;
    client.messages(1..=1).await;
    // It replaces the channel, and the client has forgotten what it had.
    client.join_log("2", Some(&first.after()), "recovered").await;
    client.expect(r#"["1","1","log:a","phx_close",{}]"#).await;
    client.messages(1..=1).await;
    client.joined("2").await;
    say(&stage, 2..=2).await;
    client.messages(2..=2).await;
    client.ping("2", "log:a").await;
}

async fn a_client_that_leaves_and_joins_anew_recovers_what_it_names(stage: Stage) {
    let (mut client, first) = Client::member(&stage).await;
    client.send(r#"["1","2","log:a","phx_leave",{}]"#).await;
    client.expect(r#"["1","2","log:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1","1","log:a","phx_close",{}]"#).await;
    say(&stage, 1..=1).await;
    client.heartbeat().await;
    client.join_log("3", Some(&first.after()), "recovered").await;
    client.messages(1..=1).await;
    client.joined("3").await;
    client.ping("3", "log:a").await;
}

async fn a_published_message_is_answered_and_kept(stage: Stage) {
    let (client, first) = Client::member(&stage).await;
    drop(client);
    let mut writer = stage.client("").await;
    writer.join_log("1", None, "new").await;
    writer.joined("1").await;
    writer.send(r#"["1","2","log:a","publish",{"n":1}]"#).await;
    writer
        .expect_all(&[
            r#"[null,null,"log:a","new_msg",{"n":1}]"#,
            r#"["1","2","log:a","phx_reply",{"status":"ok","response":{}}]"#,
        ])
        .await;
    let mut client = stage.client("positions=all").await;
    client.join_log("1", Some(&first.after()), "recovered").await;
    client.messages(1..=1).await;
    client.joined("1").await;
}

async fn a_topic_without_a_history_knows_no_positions(stage: Stage) {
    let mut client = stage.client("positions=all").await;
    client.join("1", "room:a").await;
    stage.server.broadcast("room:a", "new_msg", "{}").await;
    client.expect(r#"[null,null,"room:a","new_msg",{}]"#).await;
    client.send(r#"["2","2","room:a","phx_join",{},{"after":"AAAAAAAAAAE.1"}]"#).await;
    client
        .expect_all(&[
            r#"["2","2","room:a","phx_reply",{"status":"ok","response":{}}]"#,
            r#"["1","1","room:a","phx_close",{}]"#,
            r#"["2",null,"room:a","joined",{"user_id":null}]"#,
        ])
        .await;
}

/// Lets a member send binary messages to all: the reference application has no other way.
async fn binary(stage: &Stage) {
    let mut writer = stage.client("binary=base64").await;
    writer.join_log("1", None, "new").await;
    writer.joined("1").await;
    let (topic, event) = ("log:a", "new_msg");
    let head = [0, 1, 1, topic.len() as u8, event.len() as u8];
    let frame = [&head[..], b"12", topic.as_bytes(), event.as_bytes(), b"\xff"].concat();
    writer.send_binary(&frame).await;
    writer.expect_binary(b"\x02\x05\x07log:anew_msg\xff").await;
}

async fn a_binary_message_is_a_push_that_carries_its_position(stage: Stage) {
    let mut client = stage.client("positions=all&binary=base64").await;
    client.join_log("1", None, "new").await;
    let first = client.positioned().await;
    client.joined("1").await;
    binary(&stage).await;
    let position = format!("p:{}.{}", first.position.0, first.position.1 + 1);
    let head = [0, position.len() as u8, 5, 7];
    let expected = [&head[..], position.as_bytes(), b"log:anew_msg\xff"].concat();
    client.expect_binary(&expected).await;
    drop(client);
    let mut client = stage.client("positions=all&binary=base64").await;
    client.join_log("1", Some(&first.after()), "recovered").await;
    client.expect_binary(&expected).await;
    client.joined("1").await;
}

async fn a_client_of_refs_is_told_the_position_of_a_binary_message_behind_it(stage: Stage) {
    let mut client = stage.client("positions=refs&binary=base64").await;
    client.join_log("1", None, "new").await;
    let first = client.positioned().await;
    client.joined("1").await;
    binary(&stage).await;
    client.expect_binary(b"\x02\x05\x07log:anew_msg\xff").await;
    let told = client.positioned().await;
    assert_eq!(told.event, "phx_position");
    assert!(told.position.1 > first.position.1);
}
