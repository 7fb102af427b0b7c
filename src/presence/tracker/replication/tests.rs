//! The behaviour of replicas that exchange messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::presence::tracker::entry::{MAX_TEXT, Meta, Owner};
use crate::presence::tracker::tests::{keys, track, untrack};
use crate::presence::tracker::{Replica, Tracker};

const ONE: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn node(id: NodeId) -> Tracker {
    let replica = Replica { node: id, shard: 0 };
    Tracker::replicated(replica, Config::default(), Arc::default())
}

fn id(tracker: &Tracker) -> NodeId {
    tracker.replica.node
}

fn replication(tracker: &mut Tracker) -> &mut Replication {
    tracker.replication.as_deref_mut().expect("a replicated tracker")
}

/// Two replicas that know each other.
fn pair() -> (Tracker, Tracker) {
    let (mut one, mut other) = (node(ONE), node(OTHER));
    one.set_standing(OTHER, Standing::Up);
    other.set_standing(ONE, Standing::Up);
    (one, other)
}

/// Passes a message on as the network does.
fn copy(message: &Message, from: NodeId) -> Message {
    let replica = Replica { node: from, shard: 0 };
    Message::decode(message.encode().as_bytes(), replica).expect("a message")
}

/// Delivers messages, and all replies in both directions. Returns the combined diff of both.
fn deliver(now: Duration, from: &mut Tracker, to: &mut Tracker, messages: Vec<Message>) -> Diff {
    let mut diff = Diff::default();
    let (mut messages, mut ends) = (messages, [from, to]);
    for _ in 0..20 {
        let mut replies = Vec::new();
        for message in messages {
            let from = id(ends[0]);
            let received = ends[1].receive(from, copy(&message, from), now);
            diff.joins.extend(received.visible.joins);
            diff.leaves.extend(received.visible.leaves);
            replies.extend(received.answer.into_messages().chain(received.request));
        }
        messages = replies;
        ends.reverse();
    }
    assert!(messages.is_empty(), "the exchange of messages does not end");
    diff
}

/// Delivers what a replica has done.
fn update(now: Duration, from: &mut Tracker, to: &mut Tracker) -> Diff {
    let messages = from.collect().into_messages().collect();
    deliver(now, from, to, messages)
}

/// Delivers a heartbeat.
fn beat(now: Duration, from: &mut Tracker, to: &mut Tracker) -> Diff {
    let request = to.hear_clock(id(from), from.clock(), now);
    deliver(now, to, from, request.into_iter().collect())
}

/// Changes the standing of a node.
fn set_standing(tracker: &mut Tracker, node: NodeId, standing: Standing) -> Diff {
    tracker.set_standing(node, standing);
    let settled = tracker.settle(node, 1000);
    assert!(!settled.is_unfinished);
    settled.diff
}

#[test]
fn a_replicated_entry_has_the_same_phx_ref() {
    let (mut one, mut other) = pair();
    let entry = track(&mut one, "ann");
    let diff = update(seconds(1), &mut one, &mut other);
    assert_eq!(diff.joins[0].phx_ref(), entry.phx_ref());
    assert_eq!(other.get_by_key("room", "ann"), [entry]);
}

#[test]
fn an_entry_follows_those_observed_before_it_on_all_replicas() {
    let (mut one, mut other) = pair();
    (0..5).for_each(|index| drop(track(&mut one, &format!("someone {index}"))));
    let first = track(&mut one, "ann");
    update(seconds(1), &mut one, &mut other);
    let second = track(&mut other, "ann");
    update(seconds(1), &mut other, &mut one);
    assert_eq!(one.get_by_key("room", "ann"), [first.clone(), second.clone()]);
    assert_eq!(other.get_by_key("room", "ann"), [first, second]);
}

#[test]
fn an_update_reaches_the_others_as_one_leave_and_one_join() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    update(seconds(1), &mut one, &mut other);
    let (old, new) =
        one.update(Owner(1), &"room".into(), &"ann".into(), Meta::clone).expect("a tracked key");
    let diff = update(seconds(2), &mut one, &mut other);
    assert_eq!((diff.joins, diff.leaves), (vec![new], vec![old]));
}

#[test]
fn a_lost_delta_is_requested_when_the_next_one_arrives() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    one.collect();
    track(&mut one, "bob");
    update(seconds(1), &mut one, &mut other);
    assert_eq!(keys(&other), ["ann", "bob"]);
}

#[test]
fn a_lost_final_delta_is_detected_by_the_heartbeat() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    one.collect();
    beat(seconds(1), &mut one, &mut other);
    assert_eq!(keys(&other), ["ann"]);
}

#[test]
fn a_lost_remove_is_detected_by_the_heartbeat() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    update(seconds(1), &mut one, &mut other);
    untrack(&mut one, "ann");
    one.collect();
    assert_eq!(keys(&other), ["ann"]);
    beat(seconds(2), &mut one, &mut other);
    assert!(keys(&other).is_empty());
}

#[test]
fn a_lost_update_is_recovered_after_its_entry_was_replaced() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    update(seconds(1), &mut one, &mut other);
    for _ in 0..2 {
        one.collect();
        one.update(Owner(1), &"room".into(), &"ann".into(), Meta::clone).expect("a tracked key");
    }
    update(seconds(2), &mut one, &mut other);
    assert_eq!(other.get_by_key("room", "ann"), one.get_by_key("room", "ann"));
}

#[test]
fn a_remove_that_left_the_log_is_still_replicated() {
    let (mut one, mut other) = pair();
    replication(&mut one).config.max_removals = 1;
    ["ann", "bob", "cid"].iter().for_each(|key| drop(track(&mut one, key)));
    update(seconds(1), &mut one, &mut other);
    ["ann", "bob"].iter().for_each(|key| untrack(&mut one, key));
    assert_eq!(one.collect().into_messages().count(), 0);
    beat(seconds(2), &mut one, &mut other);
    assert_eq!(keys(&other), ["cid"]);
}

#[test]
fn operations_that_were_not_collected_are_not_missing() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    assert!(other.hear_clock(ONE, one.clock(), seconds(1)).is_none());
    one.collect();
    assert!(other.hear_clock(ONE, one.clock(), seconds(1)).is_some());
}

#[test]
fn a_replica_is_asked_once_a_second() {
    let mut other = pair().1;
    let mut ask = |millis| other.hear_clock(ONE, 1, Duration::from_millis(millis)).is_some();
    assert_eq!([500, 1000, 1400, 1500, 2600].map(&mut ask), [true, false, false, true, true]);
}

#[test]
fn a_replica_is_not_asked_again_while_it_answers() {
    let (mut one, mut other) = pair();
    replication(&mut one).config.max_message = 300;
    (0..20).for_each(|index| drop(track(&mut one, &index.to_string())));
    one.collect();
    let request = other.hear_clock(ONE, one.clock(), seconds(1)).expect("a request");
    let answer = one.receive(OTHER, request, seconds(1)).answer;
    let pieces: Vec<_> = answer.into_messages().collect();
    assert!(pieces.len() > 5);
    let mut now = seconds(1);
    for piece in &pieces[..pieces.len() - 1] {
        now += Duration::from_millis(900);
        assert!(other.receive(ONE, copy(piece, ONE), now).request.is_none());
        assert!(other.hear_clock(ONE, one.clock(), now + Duration::from_millis(90)).is_none());
    }
    assert!(other.hear_clock(ONE, one.clock(), now + seconds(1)).is_some(), "the last is lost");
}

#[test]
fn a_new_replica_receives_the_full_state_in_one_round_of_pieces() {
    let (mut one, mut other) = pair();
    replication(&mut one).config.max_message = 500;
    (0..20).for_each(|index| drop(track(&mut one, &index.to_string())));
    one.collect();
    let diff = beat(seconds(1), &mut one, &mut other);
    assert_eq!(diff.joins.len(), 20);
    assert_eq!(other.count("room"), 20);
}

#[test]
fn the_pieces_of_a_state_with_many_gaps_stay_small() {
    let (mut one, mut other) = pair();
    (0..20_000).for_each(|index| drop(track(&mut one, &index.to_string())));
    (0..20_000).step_by(2).for_each(|index| untrack(&mut one, &index.to_string()));
    let request = other.hear_clock(ONE, 1, seconds(1)).expect("a request");
    let answer = one.receive(OTHER, request, seconds(1)).answer;
    let pieces: Vec<_> = answer.into_messages().collect();
    let longest = pieces.iter().map(|piece| piece.encode().len()).max();
    assert!(longest < Some(96 * 1024), "{longest:?}");
    deliver(seconds(1), &mut one, &mut other, pieces);
    assert_eq!(other.count("room"), 10_000);
    assert!(!replication(&mut other).peers[&ONE].state().context().has_gap());
}

#[test]
fn a_replica_that_has_no_standing_is_ignored_but_answered() {
    let (mut one, mut other) = (node(ONE), node(OTHER));
    track(&mut one, "ann");
    update(seconds(1), &mut one, &mut other);
    assert!(keys(&other).is_empty() && replication(&mut other).peers.is_empty());
    assert!(other.hear_clock(ONE, one.clock(), seconds(1)).is_none());
    track(&mut other, "bob");
    other.collect();
    one.set_standing(OTHER, Standing::Up);
    beat(seconds(1), &mut other, &mut one);
    assert_eq!(keys(&one), ["ann", "bob"]);
}

#[test]
fn the_entries_of_a_node_that_is_down_are_hidden_until_it_is_up() {
    let (mut one, mut other) = pair();
    let entry = track(&mut one, "ann");
    update(seconds(1), &mut one, &mut other);
    let diff = set_standing(&mut other, ONE, Standing::Down);
    assert_eq!(diff.leaves, std::slice::from_ref(&entry));
    assert!(keys(&other).is_empty());
    let diff = set_standing(&mut other, ONE, Standing::Up);
    assert_eq!(diff.joins, [entry]);
    assert_eq!(keys(&other), ["ann"]);
}

#[test]
fn what_a_node_does_while_it_is_down_is_shown_when_it_is_up() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    update(seconds(1), &mut one, &mut other);
    set_standing(&mut other, ONE, Standing::Down);
    untrack(&mut one, "ann");
    track(&mut one, "bob");
    let message = one.collect().into_messages().next().expect("a message");
    let received = other.receive(ONE, copy(&message, ONE), seconds(2));
    assert!(received.visible.joins.is_empty() && received.visible.leaves.is_empty());
    assert_eq!((received.hidden.joins.len(), received.hidden.leaves.len()), (1, 1));
    let diff = set_standing(&mut other, ONE, Standing::Up);
    assert_eq!((diff.joins.len(), diff.leaves.len()), (1, 0));
    assert_eq!(keys(&other), ["bob"]);
}

#[test]
fn entries_are_hidden_and_shown_in_steps_while_others_come_and_go() {
    let (mut one, mut other) = pair();
    (0..10).for_each(|index| drop(track(&mut one, &index.to_string())));
    update(seconds(1), &mut one, &mut other);
    other.set_standing(ONE, Standing::Down);
    let step = other.settle(ONE, 4);
    assert!(step.is_unfinished && step.diff.leaves.len() == 4);
    // One that is hidden already and one that is not.
    untrack(&mut one, "0");
    untrack(&mut one, "9");
    track(&mut one, "new");
    let diff = update(seconds(2), &mut one, &mut other);
    assert_eq!((diff.joins.len(), diff.leaves.len()), (1, 1));
    assert_eq!(other.count("room"), 6);
    other.set_standing(ONE, Standing::Up);
    while other.settle(ONE, 2).is_unfinished {}
    assert_eq!(keys(&other), keys(&one));
}

#[test]
fn a_node_that_is_gone_is_forgotten_and_its_late_messages_are_ignored() {
    let (mut one, mut other) = pair();
    track(&mut one, "ann");
    update(seconds(1), &mut one, &mut other);
    track(&mut one, "bob");
    other.set_standing(ONE, Standing::Gone);
    let settled = other.settle(ONE, 1000);
    assert_eq!((settled.diff.leaves.len(), settled.forgotten.entries().count()), (1, 1));
    let diff = update(seconds(2), &mut one, &mut other);
    assert!(diff.joins.is_empty() && keys(&other).is_empty());
    assert!(replication(&mut other).peers.is_empty());
}

#[test]
fn a_node_that_was_taken_for_gone_is_asked_for_everything() {
    let (mut one, mut other) = pair();
    let entry = track(&mut one, "ann");
    update(seconds(1), &mut one, &mut other);
    set_standing(&mut other, ONE, Standing::Gone);
    set_standing(&mut other, ONE, Standing::Up);
    let diff = beat(seconds(2), &mut one, &mut other);
    assert_eq!(diff.joins, [entry]);
}

#[test]
fn a_node_that_is_up_again_before_it_is_forgotten_keeps_its_entries() {
    let (mut one, mut other) = pair();
    (0..10).for_each(|index| drop(track(&mut one, &index.to_string())));
    update(seconds(1), &mut one, &mut other);
    other.set_standing(ONE, Standing::Gone);
    other.settle(ONE, 4);
    other.set_standing(ONE, Standing::Up);
    while other.settle(ONE, 4).is_unfinished {}
    assert_eq!(other.count("room"), 10);
}

#[test]
fn a_replica_is_not_its_own_peer() {
    let mut one = node(ONE);
    track(&mut one, "ann");
    one.set_standing(ONE, Standing::Up);
    let message = one.collect().into_messages().next().expect("a message");
    let received = one.receive(ONE, copy(&message, ONE), seconds(1));
    assert!(received.visible.joins.is_empty() && received.request.is_none());
}

#[test]
fn each_local_operation_says_that_there_is_something_to_collect() {
    let changed = Arc::new(AtomicBool::new(false));
    let replica = Replica { node: ONE, shard: 0 };
    let mut one = Tracker::replicated(replica, Config::default(), Arc::clone(&changed));
    track(&mut one, "ann");
    assert!(changed.swap(false, Ordering::Relaxed));
    assert_eq!([(); 2].map(|()| one.collect().into_messages().count()), [1, 0]);
    untrack(&mut one, "ann");
    assert!(changed.load(Ordering::Relaxed));
}

#[test]
fn a_tracker_that_is_alone_keeps_nothing_for_others() {
    let mut one = Tracker::new(Replica { node: ONE, shard: 0 });
    track(&mut one, "ann");
    assert!(one.collect().into_messages().next().is_none() && one.replication.is_none());
    assert_eq!(one.clock(), 0);
}

/// A valid message with one part of its text replaced.
fn message(part: &str, with: &str) -> String {
    let valid = r#"{"v":1,"state":{"seen":[0,2],"entries":[{"n":1,"age":1,"topic":"room","key":"ann","meta":{},"prev":"aaaaaaaaaaaaaaaa"}]},"more":false,"request":[0,1]}"#;
    assert!(valid.contains(part), "no {part}");
    valid.replace(part, with)
}

fn decode(message: &str) -> Result<Message, DecodeError> {
    Message::decode(message.as_bytes(), Replica { node: ONE, shard: 0 })
}

#[test]
fn unknown_fields_are_ignored() {
    let later = message(r#""seen""#, r#""later":[{"a":1}],"seen""#);
    let later = decode(&later.replace(r#"{"v":1"#, r#"{"later":{},"v":1"#)).expect("a message");
    let mut other = pair().1;
    other.receive(ONE, later, seconds(0));
    assert_eq!(keys(&other), ["ann"]);
}

#[test]
fn an_unknown_version_is_rejected() {
    let result = decode(r#"{"v":2,"state":"in another form"}"#);
    assert_eq!(result.expect_err("an error"), DecodeError("unknown version"));
}

#[test]
fn malformed_messages_are_rejected() {
    let too_long = format!(r#""{}""#, "a".repeat(MAX_TEXT + 1));
    for (part, with) in [
        (r#"}]},"#, "}],"),
        (r#""v":1,"#, ""),
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
        ("[0,2]", "[0,9007199254740993]"),
        ("[0,2]", "[1,18446744073709551615]"),
        ("[0,2]", "[0,2,0,1]"),
        ("[0,2]", "[0,2,1]"),
        ("[0,2]", "[0,0]"),
        ("[0,1]", "[0]"),
    ] {
        let message = message(part, with);
        assert!(decode(&message).is_err(), "{message}");
    }
    assert!(decode(&message("room", "room")).is_ok());
}

#[test]
fn extreme_counters_are_harmless() {
    let mut other = pair().1;
    let extreme = message("[0,2]", "[0,9007199254740992]")
        .replace(r#""age":1"#, r#""age":9007199254740992"#)
        .replace("[0,1]", "[9007199254740991,1]");
    other.receive(ONE, decode(&extreme).expect("a message"), seconds(0));
    track(&mut other, "ann");
    track(&mut other, "bob");
    assert_eq!(other.get_by_key("room", "ann").len(), 2);
    assert!(other.hear_clock(ONE, u64::MAX, seconds(5)).is_some());
    set_standing(&mut other, ONE, Standing::Gone);
    assert_eq!(keys(&other), ["ann", "bob"]);
}
