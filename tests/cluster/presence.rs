//! Presence on several nodes.

use std::time::Duration;

use serde_json::{Value, json};
use tower_channels::test::{Bus, Client, connect};

use crate::support::{Node, User, moment, node, nodes, seconds};

async fn present(node: &Node, name: &str) -> Client<User> {
    let mut client = connect(node, &[("name", name)]).await.expect("accepted");
    client.join("room:1", json!("presence")).await;
    client
}

async fn listed(node: &Node) -> Vec<String> {
    let list = node.presence().list("room:1").await;
    let mut keys: Vec<_> = list.keys().map(String::from).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test(start_paused = true)]
async fn everyone_is_listed_on_every_node_within_a_moment() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let _ann = present(&one, "ann").await;
    let _bob = present(&two, "bob").await;
    moment().await;
    for node in [&one, &two] {
        assert_eq!(listed(node).await, ["ann", "bob"]);
    }
}

#[tokio::test(start_paused = true)]
async fn clients_see_who_comes_and_goes_on_other_nodes() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = present(&one, "ann").await;
    moment().await;
    ann.discard();
    let bob = present(&two, "bob").await;
    let diff = ann.expect("presence_diff").await.parse::<Value>().expect("JSON");
    assert!(diff["joins"]["bob"]["metas"][0]["phx_ref"].is_string(), "{diff}");
    drop(bob);
    let diff = ann.expect("presence_diff").await.parse::<Value>().expect("JSON");
    assert!(diff["leaves"]["bob"].is_object(), "{diff}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_later_lists_those_who_were_there() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut clients = Vec::new();
    for number in 0..500 {
        clients.push(present([&one, &two][number % 2], &format!("user{number:03}")).await);
    }
    let (three, _) = node(&bus);
    seconds(1).await;
    assert_eq!(three.presence().count("room:1"), 500);
}

#[tokio::test(start_paused = true)]
async fn those_of_a_dead_node_leave_within_six_seconds() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    let (two, place) = node(&bus);
    let _ann = present(&one, "ann").await;
    let _bob = present(&two, "bob").await;
    seconds(1).await;
    bus.stall(place);
    seconds(6).await;
    assert_eq!(listed(&one).await, ["ann"]);
    bus.heal(place);
    seconds(3).await;
    for node in [&one, &two] {
        assert_eq!(listed(node).await, ["ann", "bob"]);
    }
}

#[tokio::test(start_paused = true)]
async fn those_of_a_node_that_says_goodbye_leave_at_once() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let _ann = present(&one, "ann").await;
    let _bob = present(&two, "bob").await;
    moment().await;
    two.shutdown(Duration::ZERO).await;
    moment().await;
    assert_eq!(listed(&one).await, ["ann"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_leaves_while_the_engine_is_away() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = present(&one, "ann").await;
    let _bob = present(&two, "bob").await;
    moment().await;
    ann.discard();
    bus.stop();
    seconds(120).await;
    let _cid = present(&two, "cid").await;
    bus.restart();
    seconds(5).await;
    for node in [&one, &two] {
        assert_eq!(listed(node).await, ["ann", "bob", "cid"]);
    }
    let diff = ann.expect("presence_diff").await.parse::<Value>().expect("JSON");
    assert_eq!(diff["leaves"], json!({}));
    assert_eq!(ann.discard(), 0);
}
