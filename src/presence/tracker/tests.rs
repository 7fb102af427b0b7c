//! The behaviour of a single replica and of replicas that exchange messages.

use std::time::Duration;

use super::entry::Diff;
use super::message::{DecodeError, Message};
use super::replication::Outgoing;
use super::*;

fn node(name: &str, incarnation: u64) -> Tracker {
    Tracker::new(Replica { name: name.into(), incarnation }, Config::default())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn track(tracker: &mut Tracker, key: &str) -> Entry {
    tracker.track(Owner(1), &"room".into(), &key.into(), "{}".into()).expect("a new key")
}

fn untrack(tracker: &mut Tracker, key: &str) {
    tracker.untrack(Owner(1), &"room".into(), &key.into()).expect("a tracked key");
}

fn keys(tracker: &Tracker) -> Vec<SmolStr> {
    let mut keys: Vec<_> = tracker.list("room").iter().map(|(key, _)| key.clone()).collect();
    keys.sort();
    keys
}

/// Delivers the messages of both replicas, and returns the combined diff of both.
fn exchange(now: Duration, one: &mut Tracker, other: &mut Tracker) -> Diff {
    let mut diff = Diff::default();
    deliver(now, one, other, &mut diff);
    deliver(now, other, one, &mut diff);
    diff
}

/// Delivers the messages that are due from one replica, and all replies in both directions.
fn deliver(now: Duration, from: &mut Tracker, to: &mut Tracker, diff: &mut Diff) {
    let mut messages = from.tick(now).1;
    let mut receivers = [to, from];
    for _ in 0..20 {
        let mut replies = Vec::new();
        for Outgoing { message, .. } in messages {
            let (received, reply) =
                receivers[0].receive(now, message.as_bytes()).expect("a message");
            diff.joins.extend(received.joins);
            diff.leaves.extend(received.leaves);
            replies.extend(reply);
        }
        messages = replies;
        receivers.reverse();
    }
    assert!(messages.is_empty(), "the exchange of messages does not end");
}

/// Two replicas that know each other.
fn pair() -> (Tracker, Tracker) {
    let (mut one, mut other) = (node("one", 1), node("other", 1));
    let mut diff = Diff::default();
    deliver(seconds(0), &mut one, &mut other, &mut diff);
    deliver(seconds(0), &mut other, &mut one, &mut diff);
    (one, other)
}

#[test]
fn an_owner_tracks_a_key_of_a_topic_only_once() {
    let mut one = node("one", 1);
    track(&mut one, "ann");
    let mut again = |owner| one.track(Owner(owner), &"room".into(), &"ann".into(), "{}".into());
    assert_eq!(again(1), Err(TrackError::AlreadyTracked));
    assert!(again(2).is_ok());
}

#[test]
fn only_metas_that_are_objects_within_the_limits_are_tracked() {
    let mut one = node("one", 1);
    let mut track = |key: &str, meta: &str| {
        one.track(Owner(1), &"room".into(), &key.into(), meta.into()).expect_err("an error")
    };
    assert_eq!(track("ann", "[]"), TrackError::NotAnObject);
    assert_eq!(track("ann", "{"), TrackError::NotAnObject);
    assert_eq!(track(&"a".repeat(MAX_TEXT + 1), "{}"), TrackError::TooLarge);
    let large = format!("{{\"a\":\"{}\"}}", "a".repeat(MAX_META));
    assert_eq!(track("ann", &large), TrackError::TooLarge);
}

#[test]
fn an_update_replaces_the_entry_with_a_newer_one() {
    let mut one = node("one", 1);
    let first = track(&mut one, "ann");
    one.track(Owner(2), &"room".into(), &"ann".into(), "{}".into()).expect("another owner");
    let (old, new) = one
        .update(Owner(1), &"room".into(), &"ann".into(), |old| format!("{{\"a\":{old}}}").into())
        .expect("a tracked key");
    assert_eq!(old, first);
    assert_eq!(&**new.meta(), "{\"a\":{}}");
    assert_eq!(new.prev(), Some(first.phx_ref()));
    assert_eq!(one.get_by_key("room", "ann").last(), Some(&new));
    assert_eq!(one.get_by_key("room", "ann").len(), 2);
}

#[test]
fn updating_an_untracked_key_fails() {
    let mut one = node("one", 1);
    let result = one.update(Owner(1), &"room".into(), &"ann".into(), |old| old.clone());
    assert_eq!(result, Err(TrackError::NotTracked));
}

#[test]
fn untrack_all_removes_the_entries_of_one_owner_only() {
    let mut one = node("one", 1);
    track(&mut one, "ann");
    track(&mut one, "bob");
    one.track(Owner(2), &"room".into(), &"cid".into(), "{}".into()).expect("another owner");
    assert_eq!(one.untrack_all(Owner(1)).len(), 2);
    assert_eq!(keys(&one), ["cid"]);
    assert_eq!(one.count("room"), 1);
}

#[test]
fn a_snapshot_does_not_change() {
    let mut one = node("one", 1);
    track(&mut one, "ann");
    let list = one.list("room");
    track(&mut one, "bob");
    untrack(&mut one, "ann");
    assert_eq!(list.len(), 1);
    assert!(list.get("ann").is_some());
}

#[test]
fn a_replicated_entry_has_the_same_phx_ref() {
    let (mut one, mut other) = pair();
    let entry = track(&mut one, "ann");
    let diff = exchange(seconds(1), &mut other, &mut one);
    assert_eq!(diff.joins[0].phx_ref(), entry.phx_ref());
    assert_eq!(other.get_by_key("room", "ann"), [entry]);
}

#[test]
fn an_entry_follows_those_observed_before_it_on_all_replicas() {
    let (mut one, mut other) = pair();
    (0..5).for_each(|index| drop(track(&mut one, &format!("someone {index}"))));
    let first = track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    let second = track(&mut other, "ann");
    exchange(seconds(2), &mut other, &mut one);
    assert_eq!(one.get_by_key("room", "ann"), [first.clone(), second.clone()]);
    assert_eq!(other.get_by_key("room", "ann"), [first, second]);
}

#[test]
fn a_lost_delta_is_requested_when_the_next_one_arrives() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    one.tick(Duration::from_millis(800));
    track(&mut one, "bob");
    let mut diff = Diff::default();
    // No heartbeat is due, so only the gap reveals the loss.
    deliver(Duration::from_millis(900), &mut one, &mut other, &mut diff);
    assert_eq!(keys(&other), ["ann", "bob"]);
}

#[test]
fn a_lost_final_delta_is_detected_by_the_heartbeat() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    one.tick(Duration::from_millis(800));
    deliver(seconds(2), &mut one, &mut other, &mut Diff::default());
    assert_eq!(keys(&other), ["ann"]);
}

#[test]
fn a_lost_remove_is_detected_by_the_heartbeat() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    untrack(&mut one, "ann");
    one.tick(seconds(2));
    assert_eq!(keys(&other), ["ann"]);
    deliver(seconds(4), &mut one, &mut other, &mut Diff::default());
    assert!(keys(&other).is_empty());
}

#[test]
fn a_lost_update_is_recovered_after_its_entry_was_replaced() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    for second in [2, 3] {
        one.tick(seconds(second));
        one.update(Owner(1), &"room".into(), &"ann".into(), Meta::clone).expect("a tracked key");
    }
    exchange(seconds(4), &mut other, &mut one);
    assert_eq!(other.get_by_key("room", "ann"), one.get_by_key("room", "ann"));
}

#[test]
fn a_remove_that_left_the_log_is_still_replicated() {
    let (mut one, mut other) = pair();
    one.config.max_removals = 1;
    ["ann", "bob", "cid"].iter().for_each(|key| drop(track(&mut one, key)));
    exchange(seconds(1), &mut other, &mut one);
    ["ann", "bob"].iter().for_each(|key| untrack(&mut one, key));
    exchange(seconds(4), &mut other, &mut one);
    assert_eq!(keys(&other), ["cid"]);
}

#[test]
fn a_new_replica_receives_the_full_state_in_one_round_of_fragments() {
    let (mut one, mut other) = (node("one", 1), node("other", 1));
    one.config.max_message = 500;
    (0..20).for_each(|index| drop(track(&mut one, &index.to_string())));
    one.tick(seconds(0));
    deliver(seconds(1), &mut other, &mut one, &mut Diff::default());
    assert_eq!(other.count("room"), 20);
}

#[test]
fn a_replica_receives_entries_of_a_second_from_a_third() {
    let (mut one, mut other) = pair();
    let mut third = node("third", 1);
    track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    exchange(seconds(3), &mut third, &mut other);
    assert_eq!(keys(&third), ["ann"]);
}

#[test]
fn a_silent_replica_is_hidden_until_it_is_heard_from_again() {
    let (mut one, mut other) = pair();
    let entry = track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    let mut leaves = Vec::new();
    (2..40).for_each(|second| leaves.extend(other.tick(seconds(second)).0.leaves));
    assert_eq!(leaves, std::slice::from_ref(&entry));
    assert!(keys(&other).is_empty());
    let diff = exchange(seconds(41), &mut other, &mut one);
    assert_eq!(diff.joins, [entry]);
    assert_eq!(keys(&other), ["ann"]);
}

#[test]
fn an_entry_removed_while_its_replica_was_down_is_not_shown_again() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    (2..40).for_each(|second| drop(other.tick(seconds(second))));
    untrack(&mut one, "ann");
    let diff = exchange(seconds(41), &mut other, &mut one);
    assert!(diff.joins.is_empty());
    assert!(keys(&other).is_empty());
}

/// Two replicas of which `other` considers `one` gone, and messages of `one` still in flight.
fn gone() -> (Tracker, Tracker, Vec<Outgoing>) {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    track(&mut one, "bob");
    let late = one.tick(seconds(2)).1;
    (2..1300).for_each(|second| drop(other.tick(seconds(second))));
    assert!(other.replicas.clock().next().is_none(), "it is still a peer");
    (one, other, late)
}

#[test]
fn a_delayed_message_does_not_bring_back_a_gone_replica() {
    let (_, mut other, late) = gone();
    for Outgoing { message, .. } in late {
        let (diff, _) = other.receive(seconds(1300), message.as_bytes()).expect("a message");
        assert!(diff.joins.is_empty());
    }
    assert!(keys(&other).is_empty());
}

#[test]
fn a_live_replica_taken_for_gone_starts_a_new_incarnation_with_its_entries() {
    let (mut one, mut other, _) = gone();
    let old = one.get_by_key("room", "ann");
    one.tick(seconds(1298));
    let mut diff = Diff::default();
    deliver(seconds(1300), &mut one, &mut other, &mut diff);
    assert_eq!(one.replica().incarnation, 2);
    assert_eq!(one.get_by_key("room", "ann")[0].prev(), Some(old[0].phx_ref()));
    deliver(seconds(1302), &mut one, &mut other, &mut diff);
    assert_eq!(keys(&other), ["ann", "bob"]);
    assert_eq!(other.get_by_key("room", "ann"), one.get_by_key("room", "ann"));
    let (old, _) = one.update(Owner(1), &"room".into(), &"ann".into(), Meta::clone).expect("owned");
    assert_eq!(other.get_by_key("room", "ann"), [old]);
}

#[test]
fn a_restarted_node_replaces_its_previous_incarnation() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    let mut late = one.tick(seconds(1)).1;
    exchange(seconds(2), &mut other, &mut one);
    let mut again = node("one", 2);
    track(&mut again, "bob");
    exchange(seconds(3), &mut other, &mut again);
    assert_eq!(keys(&other), ["bob"]);
    let message = late.remove(0).message;
    other.receive(seconds(4), message.as_bytes()).expect("a message");
    assert_eq!(keys(&other), ["bob"]);
}

#[test]
fn a_replica_that_was_suspended_does_not_mark_others_down() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    let (diff, _) = other.tick(seconds(100_000));
    assert!(diff.leaves.is_empty());
    assert_eq!(keys(&other), ["ann"]);
}

#[test]
fn a_replica_ignores_its_own_messages() {
    let mut one = node("one", 1);
    track(&mut one, "ann");
    let message = one.tick(seconds(1)).1.remove(0).message;
    let (diff, outgoing) = one.receive(seconds(1), message.as_bytes()).expect("a message");
    assert!(diff.joins.is_empty() && outgoing.is_empty());
}

#[test]
fn an_idle_replica_sends_only_heartbeats() {
    let mut one = node("one", 1);
    assert_eq!(one.tick(seconds(1)).1.len(), 1);
    assert!(one.tick(seconds(2)).1.is_empty());
    assert_eq!(one.tick(seconds(3)).1.len(), 1);
}

/// A valid message with one part of its text replaced.
fn message(part: &str, with: &str) -> String {
    let valid = r#"{"v":1,"from":{"name":"one","incarnation":1},"states":[{"of":{"name":"two","incarnation":1},"seen":[[1,2]],"entries":[{"n":1,"age":1,"topic":"room","key":"ann","meta":{},"prev":"aaaaaaaaaaaaaaaa"}]}]}"#;
    assert!(valid.contains(part), "no {part}");
    valid.replace(part, with)
}

#[test]
fn unknown_fields_are_ignored() {
    let mut one = node("other", 1);
    let later = message(r#""seen""#, r#""later":[{"a":1}],"seen""#);
    let later = later.replace(r#"{"v":1"#, r#"{"later":{},"v":1"#);
    one.receive(seconds(0), later.as_bytes()).expect("a message");
    assert_eq!(keys(&one), ["ann"]);
}

#[test]
fn an_unknown_version_is_rejected() {
    let mut one = node("other", 1);
    let result = one.receive(seconds(0), br#"{"v":2,"from":"in another form"}"#);
    assert_eq!(result.expect_err("an error"), DecodeError("unknown version"));
}

#[test]
fn malformed_messages_are_rejected_without_effect() {
    let duplicate = r#"{"of":{"name":"two","incarnation":1},"seen":[]}"#;
    let clocks =
        (0..1025).map(|index| format!(r#"{{"of":{{"name":"{index}","incarnation":1}},"to":1}}"#));
    let clocks = format!(r#""clock":[{}],"states""#, clocks.collect::<Vec<_>>().join(","));
    let too_long = format!(r#""{}""#, "a".repeat(MAX_TEXT + 1));
    for (part, with) in [
        ("}]}]}", "}]}]"),
        (r#""v":1,"#, ""),
        (r#""one""#, &too_long),
        (r#""room""#, &too_long),
        (r#""ann""#, &too_long),
        (r#"{}"#, "[]"),
        (r#"{}"#, "null"),
        ("aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaa"),
        ("aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaa="),
        (r#""n":1"#, r#""n":0"#),
        (r#""n":1"#, r#""n":3"#),
        (r#""n":1"#, r#""n":-1"#),
        (r#""age":1"#, r#""age":9007199254740993"#),
        (r#""incarnation":1"#, r#""incarnation":9007199254740993"#),
        ("[[1,2]]", "[[1,9007199254740993]]"),
        ("[[1,2]]", "[[1,18446744073709551615]]"),
        ("[[1,2]]", "[[1,1],[1,2]]"),
        (r#""states":["#, &format!(r#""states":[{duplicate},"#)),
        (r#""states""#, &clocks),
    ] {
        let mut one = node("other", 1);
        let message = message(part, with);
        assert!(one.receive(seconds(0), message.as_bytes()).is_err(), "{message}");
        assert!(keys(&one).is_empty() && one.replicas.clock().next().is_none());
    }
    assert!(Message::decode(message("one", "one").as_bytes()).is_ok());
}

#[test]
fn extreme_counters_are_harmless() {
    let mut one = node("other", 1);
    let extreme = message("[[1,2]]", "[[1,9007199254740992]]")
        .replace(r#""age":1"#, r#""age":9007199254740992"#)
        .replace(r#""incarnation":1"#, r#""incarnation":9007199254740992"#);
    one.receive(seconds(0), extreme.as_bytes()).expect("a message");
    track(&mut one, "ann");
    track(&mut one, "bob");
    assert_eq!(one.get_by_key("room", "ann").len(), 2);
    let gone = r#"{"v":1,"from":{"name":"x","incarnation":1},"gone":{"of":{"name":"other","incarnation":1},"newest":9007199254740992}}"#;
    one.receive(seconds(0), gone.as_bytes()).expect("a message");
    assert_eq!(one.replica().incarnation, 1);
}
