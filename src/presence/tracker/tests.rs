//! The behaviour of a single replica.

use super::*;
use crate::adapter::NodeId;

fn alone() -> Tracker {
    Tracker::new(Replica { node: NodeId(1), shard: 0 })
}

pub(super) fn track(tracker: &mut Tracker, key: &str) -> Entry {
    tracker.track(Owner(1), &"room".into(), &key.into(), "{}".into()).expect("a new key")
}

pub(super) fn untrack(tracker: &mut Tracker, key: &str) {
    tracker.untrack(Owner(1), &"room".into(), &key.into()).expect("a tracked key");
}

pub(super) fn keys(tracker: &Tracker) -> Vec<SmolStr> {
    let mut keys: Vec<_> = tracker.list("room").iter().map(|(key, _)| key.clone()).collect();
    keys.sort();
    keys
}

#[test]
fn an_owner_tracks_a_key_of_a_topic_only_once() {
    let mut one = alone();
    track(&mut one, "ann");
    let mut again = |owner| one.track(Owner(owner), &"room".into(), &"ann".into(), "{}".into());
    assert_eq!(again(1), Err(TrackError::AlreadyTracked));
    assert!(again(2).is_ok());
}

#[test]
fn only_metas_that_are_objects_within_the_limits_are_tracked() {
    let mut one = alone();
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
    let mut one = alone();
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
    let mut one = alone();
    let result = one.update(Owner(1), &"room".into(), &"ann".into(), |old| old.clone());
    assert_eq!(result, Err(TrackError::NotTracked));
}

#[test]
fn untrack_all_removes_the_entries_of_one_owner_only() {
    let mut one = alone();
    track(&mut one, "ann");
    track(&mut one, "bob");
    one.track(Owner(2), &"room".into(), &"cid".into(), "{}".into()).expect("another owner");
    assert_eq!(one.untrack_all(Owner(1)).len(), 2);
    assert_eq!(keys(&one), ["cid"]);
    assert_eq!(one.count("room"), 1);
}

#[test]
fn a_snapshot_does_not_change() {
    let mut one = alone();
    track(&mut one, "ann");
    let list = one.list("room");
    track(&mut one, "bob");
    untrack(&mut one, "ann");
    assert_eq!(list.len(), 1);
    assert!(list.get("ann").is_some());
}
