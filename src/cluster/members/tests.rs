use std::time::Duration;

use super::*;
use crate::cluster::wire::VERSIONS;

const ANN: NodeId = NodeId(1);
const BOB: NodeId = NodeId(2);

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn members() -> Members {
    Members::new(&ClusterConfig::new(), VERSIONS, true)
}

fn receive(members: &mut Members, number: u64) -> bool {
    members.receive(Header { from: ANN, number }, true)
}

/// The beat of a node that is so old, in seconds.
fn beat(age: u64, topics: u64, disconnects: u64) -> Beat {
    Beat { age: age * 1000, topics, disconnects, max_version: 1, min_version: 1, ..Beat::default() }
}

/// Lets this node hear itself, and look at the clock several times per beat until it is so late. Returns what was due
/// at the end.
fn tick(members: &mut Members, now: u64) -> Due {
    while members.last_tick + at(250) < at(now) {
        let time = members.last_tick + at(250);
        members.hear_self(time);
        let due = members.tick(time);
        assert!(due.changes.is_empty(), "{due:?} at {time:?}");
    }
    members.hear_self(at(now));
    members.tick(at(now))
}

#[test]
fn a_node_that_is_silent_is_asked_first_and_down_after_five_seconds() {
    let mut members = members();
    assert_eq!(members.hear(ANN, at(0)), Some(Change::Up(ANN)));
    assert_eq!(members.hear(ANN, at(1000)), None);
    assert!(tick(&mut members, 2499).probe.is_empty());
    assert_eq!(tick(&mut members, 2500).probe, [ANN]);
    assert_eq!(tick(&mut members, 5999).changes, []);
    assert_eq!(tick(&mut members, 6000).changes, [Change::Down(ANN)]);
    let later = tick(&mut members, 6050);
    assert!(later.changes.is_empty() && later.probe.is_empty());
    assert_eq!(members.hear(ANN, at(9000)), Some(Change::Up(ANN)));
}

#[test]
fn a_node_of_which_the_engine_says_that_it_hears_nothing_is_down_half_a_second_later() {
    let mut members = members();
    members.hear(ANN, at(0));
    members.nobody(ANN, at(2000));
    assert_eq!(tick(&mut members, 2499).changes, []);
    assert_eq!(tick(&mut members, 2500).changes, [Change::Down(ANN)]);
}

#[test]
fn a_node_that_is_heard_meanwhile_is_not_dead() {
    let mut members = members();
    members.hear(ANN, at(0));
    members.nobody(ANN, at(2000));
    members.hear(ANN, at(2400));
    assert_eq!(tick(&mut members, 3000).changes, []);
}

#[test]
fn who_does_not_hear_itself_blames_nobody() {
    let mut members = members();
    members.hear(ANN, at(0));
    members.hear_self(at(0));
    for now in (0..60_000).step_by(250) {
        let due = members.tick(at(now));
        assert_eq!((due.changes, due.is_deaf), (vec![], now >= 3000), "{now}");
        assert!(due.probe.is_empty() || now < 2000);
    }
    // The engine is heard again: the others have their time to say something.
    members.link_up(at(60_000));
    assert_eq!(tick(&mut members, 64_999).changes, []);
    assert_eq!(tick(&mut members, 65_000).changes, [Change::Down(ANN)]);
}

#[test]
fn a_process_that_was_stopped_blames_neither_the_others_nor_the_engine() {
    let mut members = members();
    members.hear(ANN, at(0));
    tick(&mut members, 1000);
    let due = members.tick(at(60_000));
    assert!(due.changes.is_empty() && due.probe.is_empty() && !due.is_deaf, "{due:?}");
    assert_eq!(tick(&mut members, 63_999).changes, []);
    assert_eq!(tick(&mut members, 64_000).changes, [Change::Down(ANN)]);
}

#[test]
fn a_node_that_stays_silent_is_gone() {
    let mut members = members();
    members.hear(ANN, at(0));
    let gone_after = 20 * 60 * 1000;
    tick(&mut members, 5000);
    assert_eq!(tick(&mut members, gone_after - 1).changes, []);
    assert_eq!(tick(&mut members, gone_after).changes, [Change::Gone(ANN)]);
    assert_eq!(members.iter().count(), 0);
}

#[test]
fn a_node_that_says_goodbye_is_gone_at_once_and_does_not_come_back_by_what_it_sent_before() {
    let mut members = members();
    members.hear(ANN, at(0));
    assert_eq!(members.bye(ANN, 0), [Change::Gone(ANN)]);
    assert_eq!(members.hear(ANN, at(1)), None);
    assert_eq!(members.bye(ANN, 0), []);
    assert_eq!(members.iter().count(), 0);
}

#[test]
fn nodes_above_the_maximum_are_ignored() {
    let mut members = members();
    for number in 0..2 * MAX_MEMBERS as u64 {
        let change = members.hear(NodeId(number), at(0));
        assert_eq!(change == Some(Change::Ignored(NodeId(number))), number >= MAX_MEMBERS as u64);
        members.bye(NodeId(number + (1 << 40)), 0);
    }
    assert_eq!((members.iter().count(), members.left.len()), (MAX_MEMBERS, MAX_MEMBERS));
}

#[test]
fn the_version_is_the_highest_that_all_nodes_read() {
    let versions = Versions { min: 1, max: 3 };
    let mut members = Members::new(&ClusterConfig::new(), versions, true);
    assert_eq!(members.version(), 1, "nobody is heard yet");
    for (node, max_version) in [(ANN, 2), (BOB, 9)] {
        members.hear(node, at(0));
        members.beat(node, Beat { max_version, ..beat(1, 0, 0) }, at(0));
    }
    assert_eq!(members.version(), 2);
    members.bye(ANN, 0);
    assert_eq!(members.version(), 3);
    members.hear(ANN, at(0));
    members.hear(NodeId(3), at(0));
    assert_eq!(members.version(), 1, "one has not said what it reads");
    members.beat(NodeId(3), Beat { max_version: 3, ..beat(1, 0, 0) }, at(0));
    assert_eq!(members.version(), 3);
    members.beat(BOB, Beat { max_version: 0, ..beat(1, 0, 0) }, at(0));
    assert_eq!(members.version(), 1);
}

#[test]
fn frames_that_did_not_come_are_missed_two_beats_later_unless_the_sender_explains_them() {
    let mut members = members();
    members.hear(ANN, at(0));
    members.beat(ANN, beat(9, 10, 0), at(100));
    assert_eq!(
        [11, 12, 14, 12].map(|number| receive(&mut members, number)),
        [true, true, true, false]
    );
    assert_eq!(members.beat(ANN, beat(10, 14, 0), at(6000)), None);
    assert_eq!(members.beat(ANN, beat(11, 14, 0), at(7000)), Some(Change::Missing(ANN)));
    assert!(receive(&mut members, 16));
    assert_eq!(members.beat(ANN, beat(12, 16, 0), at(8000)), None);
    members.explain(ANN, &[15]);
    assert_eq!(members.beat(ANN, beat(13, 16, 0), at(9000)), None);
}

#[test]
fn everything_is_expected_of_a_node_that_is_younger() {
    let mut members = members();
    members.hear(ANN, at(0));
    members.beat(ANN, beat(1, 3, 2), at(5000));
    assert_eq!(members.missing_disconnects(ANN), Some(Resend { first: 1, since: 0 }));
    assert_eq!(members.beat(ANN, beat(2, 3, 2), at(6000)), None);
    assert_eq!(members.beat(ANN, beat(3, 3, 2), at(7000)), Some(Change::Missing(ANN)));
}

#[test]
fn nothing_is_expected_of_what_an_older_node_did_before() {
    let mut members = members();
    members.hear(ANN, at(0));
    members.beat(ANN, beat(9, 3, 2), at(100));
    assert_eq!(members.beat(ANN, beat(10, 3, 2), at(1100)), None);
}

#[test]
fn an_older_node_that_was_not_heard_for_long_may_have_said_something() {
    let mut members = members();
    members.hear(ANN, at(4000));
    receive(&mut members, 7);
    assert_eq!(members.beat(ANN, beat(9, 7, 0), at(4000)), Some(Change::Missing(ANN)));
    assert_eq!(members.beat(ANN, beat(10, 7, 0), at(5000)), None);
}

#[test]
fn a_node_asks_an_older_one_for_the_disconnects_since_it_exists() {
    let mut members = members();
    members.hear(ANN, at(0));
    assert_eq!(members.missing_disconnects(ANN), None);
    members.beat(ANN, beat(9, 0, 4), at(5000));
    assert_eq!(members.missing_disconnects(ANN), Some(Resend { first: 1, since: 4000 }));
    assert_eq!(members.next_disconnect(ANN), None, "until it is answered");
    members.disconnected(ANN, 4);
    assert_eq!((members.missing_disconnects(ANN), members.next_disconnect(ANN)), (None, Some(5)));
    members.beat(ANN, beat(10, 0, 6), at(6000));
    assert_eq!(members.missing_disconnects(ANN), Some(Resend { first: 5, since: 4000 }));
}

#[test]
fn a_node_that_dies_while_this_one_is_deaf_may_have_said_something() {
    let mut members = members();
    for node in [ANN, BOB] {
        members.hear(node, at(0));
        members.beat(node, beat(9, 0, 0), at(1000));
    }
    members.link_down();
    members.link_up(at(2000));
    members.hear(BOB, at(3000));
    members.beat(BOB, beat(9, 0, 0), at(3000));
    let changes = tick(&mut members, 7000).changes;
    assert_eq!(changes, [Change::Down(ANN), Change::Missing(ANN)]);
    assert_eq!(tick(&mut members, 8000).changes, [Change::Down(BOB)]);
}

#[test]
fn who_hears_only_some_topics_misses_no_numbers() {
    let mut members = Members::new(&ClusterConfig::new(), VERSIONS, false);
    members.hear(ANN, at(0));
    assert_eq!([1, 5, 3].map(|number| receive(&mut members, number)), [true; 3]);
    assert_eq!(members.beat(ANN, beat(1, 9, 0), at(5000)), None);
    assert_eq!(members.beat(ANN, beat(2, 9, 0), at(6000)), None);
    members.set_hears_all(true);
    assert_eq!([20, 22].map(|number| receive(&mut members, number)), [true; 2]);
    assert_eq!(members.beat(ANN, beat(3, 22, 0), at(7000)), None);
    assert_eq!(members.beat(ANN, beat(4, 22, 0), at(8000)), Some(Change::Missing(ANN)));
}

#[test]
fn a_node_that_comes_back_a_little_later_than_this_one_is_not_dead() {
    let mut members = members();
    members.hear(ANN, at(0));
    members.beat(ANN, beat(9, 0, 0), at(100));
    members.link_down();
    members.link_up(at(1000));
    members.nobody(ANN, at(2500));
    assert_eq!(tick(&mut members, 4500).changes, []);
    members.hear(ANN, at(4600));
    members.beat(ANN, beat(9, 0, 0), at(4600));
    members.nobody(ANN, at(6500));
    assert_eq!(tick(&mut members, 7000).changes, [Change::Down(ANN)]);
}

#[test]
fn what_a_node_sent_last_is_missed_when_it_leaves_or_dies() {
    for is_leaving in [true, false] {
        let mut members = members();
        members.hear(ANN, at(0));
        members.beat(ANN, beat(9, 0, 0), at(100));
        receive(&mut members, 2);
        if is_leaving {
            assert_eq!(members.bye(ANN, 2), [Change::Gone(ANN), Change::Missing(ANN)]);
        } else {
            let changes = tick(&mut members, 5000).changes;
            assert_eq!(changes, [Change::Down(ANN), Change::Missing(ANN)]);
        }
    }
    let mut members = members();
    members.hear(ANN, at(0));
    members.beat(ANN, beat(9, 3, 0), at(100));
    assert_eq!(members.bye(ANN, 4), [Change::Gone(ANN), Change::Missing(ANN)]);
}

#[test]
fn what_may_be_missing_when_only_topics_are_heard_from_then_on_counts_as_missing() {
    let begun = || {
        let mut members = members();
        members.hear(ANN, at(0));
        members.beat(ANN, beat(9, 3, 0), at(100));
        members
    };
    let mut nothing = begun();
    assert!(!nothing.set_hears_all(false));
    assert!(!nothing.set_hears_all(true) && !nothing.set_hears_all(false));
    let mut announced = begun();
    announced.beat(ANN, beat(10, 4, 0), at(1100));
    assert!(announced.set_hears_all(false));
    let mut unconfirmed = begun();
    unconfirmed.link_down();
    unconfirmed.link_up(at(1000));
    assert!(unconfirmed.set_hears_all(false));
}

#[test]
fn a_frame_is_heard_once_it_is_delivered_and_nothing_before_it_is_missing() {
    let mut members = members();
    members.hear(ANN, at(0));
    assert_eq!(members.heard().count(), 0);
    assert!(!members.has_heard((ANN, 1)), "nothing is known of it");
    members.beat(ANN, beat(9, 10, 0), at(100));
    assert_eq!(members.heard().collect::<Vec<_>>(), [(ANN, 10)]);
    let has_heard = |members: &Members| [10, 11, 12].map(|number| members.has_heard((ANN, number)));
    assert_eq!(has_heard(&members), [true, false, false]);
    assert!(receive(&mut members, 11));
    assert_eq!(members.heard().collect::<Vec<_>>(), [(ANN, 11)], "it has come");
    assert_eq!(has_heard(&members), [true, false, false]);
    members.deliver(Header { from: ANN, number: 11 });
    assert_eq!(has_heard(&members), [true, true, false]);
    assert!(members.receive(Header { from: ANN, number: 12 }, false));
    assert_eq!(has_heard(&members), [true; 3], "nobody wants it");
    receive(&mut members, 14);
    members.deliver(Header { from: ANN, number: 14 });
    assert!(members.has_heard((ANN, 12)) && !members.has_heard((ANN, 13)));
    assert!(!members.has_heard((ANN, 14)));
    members.explain(ANN, &[13]);
    assert!(members.has_heard((ANN, 14)));
}

#[test]
fn nobody_waits_for_a_node_that_is_not_there() {
    let mut members = members();
    members.hear(ANN, at(0));
    members.beat(ANN, beat(9, 10, 0), at(100));
    assert_eq!(tick(&mut members, 5000).changes, [Change::Down(ANN)]);
    assert_eq!(members.heard().count(), 0);
    members.bye(ANN, 20);
    assert!(members.has_heard((ANN, 20)));
    let mut deaf = Members::new(&ClusterConfig::new(), VERSIONS, false);
    deaf.hear(ANN, at(0));
    receive(&mut deaf, 5);
    assert!(deaf.has_heard((ANN, 9)) && deaf.heard().count() == 0);
}
