//! What replicas do with each other, one question each.

use std::time::Duration;

use super::message::Message;
use super::*;

fn node(name: &str, incarnation: u64) -> Tracker {
    Tracker::with_config(Replica { name: name.into(), incarnation }, Config::default())
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

/// What each has to say arrives at the other.
fn exchange(now: Duration, one: &mut Tracker, other: &mut Tracker) -> Changes {
    let mut changes = Changes::default();
    talk(now, one, other, &mut changes);
    talk(now, other, one, &mut changes);
    changes
}

/// One's messages arrive, and the answers, until there are none.
fn talk(now: Duration, from: &mut Tracker, to: &mut Tracker, changes: &mut Changes) {
    let mut messages = from.tick(now).1;
    let mut receivers = [to, from];
    for _ in 0..20 {
        let mut answers = Vec::new();
        for Outgoing { message, .. } in messages {
            let (changed, answer) = receivers[0].receive(now, message.as_bytes()).expect("read");
            changes.joins.extend(changed.joins);
            changes.leaves.extend(changed.leaves);
            answers.extend(answer);
        }
        messages = answers;
        receivers.reverse();
    }
    assert!(messages.is_empty(), "they do not stop");
}

/// One and another who know of each other.
fn pair() -> (Tracker, Tracker) {
    let (mut one, mut other) = (node("one", 1), node("other", 1));
    let mut changes = Changes::default();
    talk(seconds(0), &mut one, &mut other, &mut changes);
    talk(seconds(0), &mut other, &mut one, &mut changes);
    (one, other)
}

#[test]
fn an_owner_tracks_a_key_of_a_topic_once() {
    let mut one = node("one", 1);
    track(&mut one, "ann");
    let mut again = |owner| one.track(Owner(owner), &"room".into(), &"ann".into(), "{}".into());
    assert_eq!(again(1), Err(TrackError::AlreadyTracked));
    assert!(again(2).is_ok());
}

#[test]
fn only_objects_of_a_sane_size_are_tracked() {
    let mut one = node("one", 1);
    let mut track = |key: &str, meta: &str| {
        one.track(Owner(1), &"room".into(), &key.into(), meta.into()).expect_err("a refusal")
    };
    assert_eq!(track("ann", "[]"), TrackError::NotAnObject);
    assert_eq!(track("ann", "{"), TrackError::NotAnObject);
    assert_eq!(track(&"a".repeat(MAX_TEXT + 1), "{}"), TrackError::TooLarge);
    let large = format!("{{\"a\":\"{}\"}}", "a".repeat(MAX_META));
    assert_eq!(track("ann", &large), TrackError::TooLarge);
}

#[test]
fn an_update_replaces_the_entry_by_a_newer_one() {
    let mut one = node("one", 1);
    let first = track(&mut one, "ann");
    one.track(Owner(2), &"room".into(), &"ann".into(), "{}".into()).expect("another owner");
    let (old, new) = one
        .update(Owner(1), &"room".into(), &"ann".into(), |old| format!("{{\"a\":{old}}}").into())
        .expect("it is there");
    assert_eq!(old, first);
    assert_eq!(&**new.meta(), "{\"a\":{}}");
    assert_eq!(new.prev(), Some(first.phx_ref()));
    assert_eq!(one.get_by_key("room", "ann").last(), Some(&new));
    assert_eq!(one.get_by_key("room", "ann").len(), 2);
}

#[test]
fn what_is_not_tracked_is_not_updated() {
    let mut one = node("one", 1);
    let result = one.update(Owner(1), &"room".into(), &"ann".into(), |old| old.clone());
    assert_eq!(result, Err(TrackError::NotTracked));
}

#[test]
fn an_owner_that_ends_takes_its_entries_and_no_others() {
    let mut one = node("one", 1);
    track(&mut one, "ann");
    track(&mut one, "bob");
    one.track(Owner(2), &"room".into(), &"cid".into(), "{}".into()).expect("another owner");
    assert_eq!(one.untrack_all(Owner(1)).len(), 2);
    assert_eq!(keys(&one), ["cid"]);
    assert_eq!(one.count("room"), 1);
}

#[test]
fn a_list_stays_what_it_was() {
    let mut one = node("one", 1);
    track(&mut one, "ann");
    let list = one.list("room");
    track(&mut one, "bob");
    untrack(&mut one, "ann");
    assert_eq!(list.len(), 1);
    assert!(list.get("ann").is_some());
}

#[test]
fn what_one_tracks_the_other_shows_with_the_same_phx_ref() {
    let (mut one, mut other) = pair();
    let entry = track(&mut one, "ann");
    let changes = exchange(seconds(1), &mut other, &mut one);
    assert_eq!(changes.joins[0].phx_ref(), entry.phx_ref());
    assert_eq!(other.get_by_key("room", "ann"), [entry]);
}

#[test]
fn an_entry_made_after_another_was_seen_comes_after_it_everywhere() {
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
fn a_lost_delta_is_asked_for_when_the_next_one_comes() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    one.tick(Duration::from_millis(800));
    track(&mut one, "bob");
    let mut changes = Changes::default();
    // No heartbeat is due: the gap alone says so.
    talk(Duration::from_millis(900), &mut one, &mut other, &mut changes);
    assert_eq!(keys(&other), ["ann", "bob"]);
}

#[test]
fn a_lost_last_delta_is_noticed_by_the_heartbeat() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    one.tick(Duration::from_millis(800));
    talk(seconds(2), &mut one, &mut other, &mut Changes::default());
    assert_eq!(keys(&other), ["ann"]);
}

#[test]
fn a_lost_removal_is_noticed_by_the_heartbeat() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    untrack(&mut one, "ann");
    one.tick(seconds(2));
    assert_eq!(keys(&other), ["ann"]);
    talk(seconds(4), &mut one, &mut other, &mut Changes::default());
    assert!(keys(&other).is_empty());
}

#[test]
fn a_lost_update_is_noticed_though_what_it_made_is_removed_again() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    for second in [2, 3] {
        one.tick(seconds(second));
        one.update(Owner(1), &"room".into(), &"ann".into(), Meta::clone).expect("it is there");
    }
    exchange(seconds(4), &mut other, &mut one);
    assert_eq!(other.get_by_key("room", "ann"), one.get_by_key("room", "ann"));
}

#[test]
fn a_removal_too_old_for_the_log_arrives_all_the_same() {
    let (mut one, mut other) = pair();
    one.replication.config.max_log = 1;
    ["ann", "bob", "cid"].iter().for_each(|key| drop(track(&mut one, key)));
    exchange(seconds(1), &mut other, &mut one);
    ["ann", "bob"].iter().for_each(|key| untrack(&mut one, key));
    exchange(seconds(4), &mut other, &mut one);
    assert_eq!(keys(&other), ["cid"]);
}

#[test]
fn a_newcomer_gets_all_at_once_though_in_pieces() {
    let (mut one, mut other) = (node("one", 1), node("other", 1));
    one.replication.config.max_message = 500;
    (0..20).for_each(|index| drop(track(&mut one, &index.to_string())));
    one.tick(seconds(0));
    talk(seconds(1), &mut other, &mut one, &mut Changes::default());
    assert_eq!(other.count("room"), 20);
}

#[test]
fn what_two_have_a_third_learns_from_either() {
    let (mut one, mut other) = pair();
    let mut third = node("third", 1);
    track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    exchange(seconds(3), &mut third, &mut other);
    assert_eq!(keys(&third), ["ann"]);
}

#[test]
fn who_is_silent_is_hidden_and_shown_again_when_he_speaks() {
    let (mut one, mut other) = pair();
    let entry = track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    let mut leaves = Vec::new();
    (2..40).for_each(|second| leaves.extend(other.tick(seconds(second)).0.leaves));
    assert_eq!(leaves, std::slice::from_ref(&entry));
    assert!(keys(&other).is_empty());
    let changes = exchange(seconds(41), &mut other, &mut one);
    assert_eq!(changes.joins, [entry]);
    assert_eq!(keys(&other), ["ann"]);
}

#[test]
fn what_a_hidden_replica_removed_is_not_shown_when_it_is_back() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    (2..40).for_each(|second| drop(other.tick(seconds(second))));
    untrack(&mut one, "ann");
    let changes = exchange(seconds(41), &mut other, &mut one);
    assert!(changes.joins.is_empty());
    assert!(keys(&other).is_empty());
}

/// `other` has given up `one`, of which a message is still under way.
fn gone() -> (Tracker, Tracker, Vec<Outgoing>) {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    track(&mut one, "bob");
    let late = one.tick(seconds(2)).1;
    (2..1300).for_each(|second| drop(other.tick(seconds(second))));
    assert!(other.replication.others.clock().next().is_none(), "it is remembered");
    (one, other, late)
}

#[test]
fn nothing_late_brings_back_who_is_gone() {
    let (_, mut other, late) = gone();
    for Outgoing { message, .. } in late {
        let (changes, _) = other.receive(seconds(1300), message.as_bytes()).expect("a message");
        assert!(changes.joins.is_empty());
    }
    assert!(keys(&other).is_empty());
}

#[test]
fn who_was_given_up_and_lives_begins_anew_with_what_he_tracks() {
    let (mut one, mut other, _) = gone();
    let old = one.get_by_key("room", "ann");
    one.tick(seconds(1298));
    let mut changes = Changes::default();
    talk(seconds(1300), &mut one, &mut other, &mut changes);
    assert_eq!(one.replica().incarnation, 2);
    assert_eq!(one.get_by_key("room", "ann")[0].prev(), Some(old[0].phx_ref()));
    talk(seconds(1302), &mut one, &mut other, &mut changes);
    assert_eq!(keys(&other), ["ann", "bob"]);
    assert_eq!(other.get_by_key("room", "ann"), one.get_by_key("room", "ann"));
    let (old, _) = one.update(Owner(1), &"room".into(), &"ann".into(), Meta::clone).expect("owned");
    assert_eq!(other.get_by_key("room", "ann"), [old]);
}

#[test]
fn a_restarted_node_replaces_what_it_was_before() {
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
fn who_slept_does_not_take_the_others_for_silent() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    exchange(seconds(1), &mut other, &mut one);
    let (changes, _) = other.tick(seconds(100_000));
    assert!(changes.leaves.is_empty());
    assert_eq!(keys(&other), ["ann"]);
}

#[test]
fn its_own_messages_say_nothing_to_a_replica() {
    let mut one = node("one", 1);
    track(&mut one, "ann");
    let message = one.tick(seconds(1)).1.remove(0).message;
    let (changes, outgoing) = one.receive(seconds(1), message.as_bytes()).expect("a message");
    assert!(changes.joins.is_empty() && outgoing.is_empty());
}

#[test]
fn nothing_is_sent_before_its_time() {
    let mut one = node("one", 1);
    assert_eq!(one.tick(seconds(1)).1.len(), 1);
    assert!(one.tick(seconds(2)).1.is_empty());
    assert_eq!(one.tick(seconds(3)).1.len(), 1);
}

/// A message in which one field of a good one is another text.
fn message(field: &str, with: &str) -> String {
    let good = r#"{"v":1,"from":{"name":"one","incarnation":1},"states":[{"of":{"name":"two","incarnation":1},"seen":[[1,2]],"entries":[{"n":1,"age":1,"topic":"room","key":"ann","meta":{},"prev":"aaaaaaaaaaaaaaaa"}]}]}"#;
    assert!(good.contains(field), "no {field}");
    good.replace(field, with)
}

#[test]
fn what_a_later_version_adds_is_ignored() {
    let mut one = node("other", 1);
    let later = message(r#""seen""#, r#""later":[{"a":1}],"seen""#);
    let later = later.replace(r#"{"v":1"#, r#"{"later":{},"v":1"#);
    one.receive(seconds(0), later.as_bytes()).expect("a message");
    assert_eq!(keys(&one), ["ann"]);
}

#[test]
fn an_unknown_version_is_refused() {
    let mut one = node("other", 1);
    let result = one.receive(seconds(0), br#"{"v":2,"from":"in another form"}"#);
    assert_eq!(result.expect_err("a refusal"), Malformed("the version is unknown"));
}

#[test]
fn malformed_messages_are_refused_and_change_nothing() {
    let state = r#"{"of":{"name":"two","incarnation":1},"seen":[]}"#;
    let far =
        (0..1025).map(|index| format!(r#"{{"of":{{"name":"{index}","incarnation":1}},"to":1}}"#));
    let far = format!(r#""clock":[{}],"states""#, far.collect::<Vec<_>>().join(","));
    let long = format!(r#""{}""#, "a".repeat(MAX_TEXT + 1));
    for (field, with) in [
        ("}]}]}", "}]}]"),
        (r#""v":1,"#, ""),
        (r#""one""#, &long),
        (r#""room""#, &long),
        (r#""ann""#, &long),
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
        (r#""states":["#, &format!(r#""states":[{state},"#)),
        (r#""states""#, &far),
    ] {
        let mut one = node("other", 1);
        let message = message(field, with);
        assert!(one.receive(seconds(0), message.as_bytes()).is_err(), "{message}");
        assert!(keys(&one).is_empty() && one.replication.others.clock().next().is_none());
    }
    assert!(Message::decode(message("one", "one").as_bytes()).is_ok());
}

#[test]
fn absurd_numbers_do_no_harm() {
    let mut one = node("other", 1);
    let absurd = message("[[1,2]]", "[[1,9007199254740992]]")
        .replace(r#""age":1"#, r#""age":9007199254740992"#)
        .replace(r#""incarnation":1"#, r#""incarnation":9007199254740992"#);
    one.receive(seconds(0), absurd.as_bytes()).expect("a message");
    track(&mut one, "ann");
    track(&mut one, "bob");
    assert_eq!(one.get_by_key("room", "ann").len(), 2);
    let gone = r#"{"v":1,"from":{"name":"x","incarnation":1},"gone":{"of":{"name":"other","incarnation":1},"newest":9007199254740992}}"#;
    one.receive(seconds(0), gone.as_bytes()).expect("a message");
    assert_eq!(one.replica().incarnation, 1);
}
