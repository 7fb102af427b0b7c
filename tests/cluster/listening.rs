//! Which topics a node hears.

use serde_json::json;
use tower_channels::cluster::{ClusterConfig, Listen};
use tower_channels::test::Bus;

use crate::support::{joined, moment, node, node_with, seconds};

#[tokio::test(start_paused = true)]
async fn a_node_that_hears_its_topics_misses_nothing_from_the_join_on() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    let (two, _) = node_with(&bus, ClusterConfig::new().listen(Listen::Topics));
    seconds(3).await;
    let mut bob = joined(&two, "bob", "room:1").await;
    one.broadcast("room:1", "news", json!(1));
    one.broadcast("room:2", "news", json!(2));
    assert_eq!(bob.expect("news").await, json!(1));
    moment().await;
    assert_eq!(bob.discard(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_node_hears_changes_at_run_time_without_a_loss() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    let (two, _) = node(&bus);
    seconds(1).await;
    let mut bob = joined(&two, "bob", "room:1").await;
    let mut sent = 0;
    for listen in [Listen::Topics, Listen::All, Listen::Topics, Listen::All] {
        two.pubsub().listen(listen);
        for _ in 0..50 {
            one.broadcast("room:1", "n", json!(sent));
            sent += 1;
            moment().await;
        }
    }
    for number in 0..sent {
        assert_eq!(bob.expect("n").await, json!(number));
    }
    assert_eq!(bob.discard(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_left_is_heard_again_when_it_is_joined_again() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    let (two, _) = node_with(&bus, ClusterConfig::new().listen(Listen::Topics));
    seconds(3).await;
    for pause in [0, 3, 30] {
        let mut bob = joined(&two, "bob", "room:1").await;
        one.broadcast("room:1", "news", json!(pause));
        assert_eq!(bob.expect("news").await, json!(pause));
        drop(bob);
        seconds(pause).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_hears_its_topic_too() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    let (two, _) = node_with(&bus, ClusterConfig::new().listen(Listen::Topics));
    seconds(3).await;
    let mut room = two.pubsub().subscribe("room:1");
    moment().await;
    one.broadcast("room:1", "news", json!(1));
    assert_eq!(room.recv().await.expect("none is dropped").event(), "news");
}

#[tokio::test(start_paused = true)]
async fn a_node_with_too_many_topics_hears_all() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    let config = ClusterConfig::new().listen(Listen::Topics).max_topics(2);
    let (two, _) = node_with(&bus, config);
    seconds(3).await;
    let mut rooms = Vec::new();
    for number in 0..5 {
        rooms.push(two.pubsub().subscribe(&format!("room:{number}")));
        seconds(1).await;
    }
    for room in &mut rooms {
        one.broadcast(room.topic(), "news", json!(1));
        assert_eq!(room.recv().await.expect("none is dropped").event(), "news");
    }
}
