//! What happens when something between the nodes breaks.

use std::time::Duration;

use serde_json::json;
use tower_channels::cluster::{ClusterConfig, Listen, OnGap};
use tower_channels::test::{Bus, Client, Path};

use crate::support::{User, joined, moment, node, node_with, nodes, resumable, seconds, unread};

/// Whether the client was told to join again.
async fn is_ended(client: &mut Client<User>) -> bool {
    let mut is_ended = false;
    moment().await;
    for event in unread(client).await {
        is_ended |= event == "phx_error";
    }
    is_ended
}

#[tokio::test(start_paused = true)]
async fn clients_of_a_node_go_on_while_the_engine_is_away() {
    let bus = Bus::new();
    let [one, _two] = nodes(&bus).await;
    bus.stop();
    seconds(1).await;
    let mut ann = joined(&one, "ann", "room:1").await;
    ann.push("room:1", "shout", json!("hi")).await;
    assert_eq!(ann.expect("shout").await, json!("hi"));
}

#[tokio::test(start_paused = true)]
async fn what_was_broadcast_while_the_engine_was_away_for_a_moment_arrives_later() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut bob = resumable(&two, "bob", "plain:1").await;
    bus.stop();
    (0..3).for_each(|number| one.broadcast("plain:1", "n", json!(number)));
    seconds(1).await;
    bus.restart();
    for number in 0..3 {
        assert_eq!(bob.expect("n").await, json!(number));
    }
    seconds(5).await;
    assert!(!is_ended(&mut bob).await, "nothing was lost");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_was_away_while_nobody_broadcast_has_lost_nothing() {
    let bus = Bus::new();
    let [_one, two] = nodes(&bus).await;
    let mut bob = resumable(&two, "bob", "plain:1").await;
    bus.stop();
    seconds(30).await;
    bus.restart();
    seconds(15).await;
    assert!(!is_ended(&mut bob).await);
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_that_a_node_did_not_hear_ends_channels_of_resumable_sessions_alone() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    let (two, place) = node(&bus);
    seconds(1).await;
    let mut bob = resumable(&two, "bob", "plain:1").await;
    let mut cid = joined(&two, "cid", "plain:1").await;
    let mut ann = resumable(&one, "ann", "plain:1").await;
    bus.cut(place);
    one.broadcast("plain:1", "n", json!(0));
    seconds(1).await;
    bus.heal(place);
    seconds(15).await;
    assert!(is_ended(&mut bob).await);
    assert!(!is_ended(&mut cid).await, "as in Phoenix");
    assert!(!is_ended(&mut ann).await, "it has received it");
}

#[tokio::test(start_paused = true)]
async fn one_outage_ends_a_channel_once_however_many_nodes_report_it() {
    let bus = Bus::new();
    let nodes = nodes::<4>(&bus).await;
    let (last, place) = node(&bus);
    seconds(2).await;
    let mut bob = resumable(&last, "bob", "plain:1").await;
    bus.cut(place);
    for node in &nodes {
        node.broadcast("plain:1", "n", json!(0));
    }
    seconds(1).await;
    bus.heal(place);
    let mut ends = 0;
    for _ in 0..30 {
        seconds(1).await;
        if unread(&mut bob).await.contains(&"phx_error".to_owned()) {
            ends += 1;
            bob.join("plain:1", json!({})).await;
        }
    }
    assert_eq!(ends, 1);
}

#[tokio::test(start_paused = true)]
async fn an_interruption_is_a_gap_for_a_node_that_hears_only_its_topics() {
    let bus = Bus::new();
    let (_one, _) = node(&bus);
    let (two, place) = node_with(&bus, ClusterConfig::new().listen(Listen::Topics));
    seconds(3).await;
    let mut bob = resumable(&two, "bob", "plain:1").await;
    bus.cut(place);
    seconds(1).await;
    bus.heal(place);
    seconds(15).await;
    assert!(is_ended(&mut bob).await);
}

#[tokio::test(start_paused = true)]
async fn what_a_sender_could_not_send_concerns_its_topic_alone() {
    let bus = Bus::new();
    let (one, place) = node(&bus);
    let (two, _) = node(&bus);
    seconds(1).await;
    let mut bob = resumable(&two, "bob", "plain:1").await;
    let mut cid = resumable(&two, "cid", "plain:2").await;
    bus.cut(place);
    one.broadcast("plain:1", "n", json!(0));
    seconds(4).await;
    bus.heal(place);
    one.broadcast("plain:2", "n", json!(1));
    assert_eq!(cid.expect("n").await, json!(1));
    seconds(20).await;
    assert!(is_ended(&mut bob).await);
    assert!(!is_ended(&mut cid).await, "its numbers are explained");
}

#[tokio::test(start_paused = true)]
async fn gaps_are_ignored_where_it_is_configured() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    let (two, place) = node_with(&bus, ClusterConfig::new().on_gap(OnGap::Ignore));
    seconds(1).await;
    let mut bob = resumable(&two, "bob", "plain:1").await;
    bus.cut(place);
    one.broadcast("plain:1", "n", json!(0));
    seconds(1).await;
    bus.heal(place);
    seconds(15).await;
    assert!(!is_ended(&mut bob).await);
}

#[tokio::test(start_paused = true)]
async fn one_frame_that_is_lost_silently_is_noticed() {
    let bus = Bus::new();
    let (one, from) = node(&bus);
    let (two, to) = node(&bus);
    seconds(1).await;
    for is_last in [false, true] {
        let mut bob = resumable(&two, "bob", "plain:1").await;
        bus.set_path(from, to, Path { is_cut: true, ..Path::default() });
        one.broadcast("plain:1", "n", json!(0));
        moment().await;
        bus.set_path(from, to, Path::default());
        if !is_last {
            one.broadcast("plain:1", "n", json!(1));
        }
        seconds(20).await;
        assert!(is_ended(&mut bob).await, "{is_last}");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_that_come_twice_are_delivered_once() {
    let bus = Bus::new();
    let (one, from) = node(&bus);
    let (two, to) = node(&bus);
    seconds(1).await;
    let mut bob = resumable(&two, "bob", "plain:1").await;
    bus.set_path(from, to, Path { repeat: 10, ..Path::default() });
    (0..10).for_each(|number| one.broadcast("plain:1", "n", json!(number)));
    for number in 0..10 {
        assert_eq!(bob.expect("n").await, json!(number));
    }
    seconds(5).await;
    assert!(!is_ended(&mut bob).await);
    assert_eq!(bob.discard(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_could_not_send_tells_the_others() {
    let bus = Bus::new();
    let (one, place) = node(&bus);
    // It sees no gaps in the numbers.
    let (two, _) = node_with(&bus, ClusterConfig::new().listen(Listen::Topics));
    seconds(3).await;
    let mut bob = resumable(&two, "bob", "plain:1").await;
    let mut cid = resumable(&two, "cid", "plain:2").await;
    bus.cut(place);
    one.broadcast("plain:1", "n", json!(0));
    seconds(10).await;
    bus.heal(place);
    seconds(15).await;
    assert!(is_ended(&mut bob).await);
    assert!(!is_ended(&mut cid).await, "nothing was lost on its topic");
}

#[tokio::test(start_paused = true)]
async fn many_clients_join_again_one_after_another() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    let (two, place) = node(&bus);
    seconds(1).await;
    let mut clients = Vec::new();
    for number in 0..500 {
        clients.push(resumable(&two, &format!("user{number:03}"), "plain:1").await);
    }
    bus.cut(place);
    one.broadcast("plain:1", "n", json!(0));
    seconds(1).await;
    bus.heal(place);
    let mut ended = Vec::new();
    for _ in 0..20 {
        seconds(1).await;
        let mut count = 0;
        for client in &mut clients {
            count += client.discard();
        }
        ended.push(count);
    }
    assert_eq!(ended.iter().sum::<usize>(), 500);
    assert!(ended.iter().all(|count| *count <= 100), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_died_while_this_one_heard_nothing_may_have_said_something() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    let (two, place) = node(&bus);
    seconds(1).await;
    let mut bob = resumable(&two, "bob", "plain:1").await;
    bus.cut(place);
    one.broadcast("plain:1", "n", json!(0));
    drop(one);
    seconds(1).await;
    bus.heal(place);
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(is_ended(&mut bob).await);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hears_nothing_at_first_has_missed_what_was_said() {
    for listen in [Listen::All, Listen::Topics] {
        let bus = Bus::new();
        let (one, _) = node(&bus);
        seconds(3).await;
        let (two, place) = node_with(&bus, ClusterConfig::new().listen(listen));
        bus.cut(place);
        let mut bob = resumable(&two, "bob", "plain:1").await;
        one.broadcast("plain:1", "n", json!(0));
        seconds(3).await;
        bus.heal(place);
        seconds(15).await;
        assert!(is_ended(&mut bob).await, "{listen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_choice_of_topics_that_has_just_changed_hides_no_loss() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    let (two, place) = node_with(&bus, ClusterConfig::new().listen(Listen::Topics));
    seconds(3).await;
    let mut bob = resumable(&two, "bob", "plain:1").await;
    two.pubsub().listen(Listen::All);
    moment().await;
    bus.cut(place);
    one.broadcast("plain:1", "n", json!(0));
    seconds(1).await;
    bus.heal(place);
    seconds(15).await;
    assert!(is_ended(&mut bob).await);
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_not_forgotten_when_only_topics_are_heard_from_then_on() {
    for pause in [0, 1] {
        let bus = Bus::new();
        let (one, _) = node(&bus);
        let (two, place) = node(&bus);
        seconds(2).await;
        let mut bob = resumable(&two, "bob", "plain:1").await;
        bus.cut(place);
        one.broadcast("plain:1", "n", json!(0));
        moment().await;
        bus.heal(place);
        seconds(pause).await;
        two.pubsub().listen(Listen::Topics);
        seconds(15).await;
        assert!(is_ended(&mut bob).await, "{pause}");
    }
}
