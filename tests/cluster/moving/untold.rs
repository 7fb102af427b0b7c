//! Channels whose client has not received the reply to its join when the session moves: what that would have told it is
//! told again.

use std::time::Duration;

use serde_json::json;
use tower_channels::Reply;
use tower_channels::test::{Bus, BusAdapter, Client, Path, connect};

use super::polls::Poller;
use super::{Node, SESSION, builder, member, moved, nodes};
use crate::support::{moment, numbers, seconds};

fn new() -> Reply {
    Reply::ok(json!("new"))
}

fn with_gap(count: u64) -> Reply {
    Reply::ok(json!({ "count": count, "has_gap": true }))
}

/// Sends a join, and does not wait for the reply.
fn send_join(client: &mut Client<String>) {
    drop(client.join("count:1", ""));
}

/// Joins, and loses the connection before the reply arrives.
async fn join_in_vain(client: &mut Client<String>) {
    send_join(client);
    moment().await;
    client.drop_connection();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_not_heard_of_its_new_channel_joins_anew_on_the_next_node() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = connect(&one, &SESSION).await.expect("accepted");
    join_in_vain(&mut ann).await;
    one.broadcast("count:1", "n", json!(1));
    ann.reconnect_to(&two).await.expect("accepted");
    two.broadcast("count:1", "n", json!(2));
    assert_eq!(ann.join("count:1", "").await, new());
    two.broadcast("count:1", "n", json!(3));
    assert_eq!(numbers(&mut ann).await, [3], "what came before is for `join` to tell");
}

#[tokio::test(start_paused = true)]
async fn the_presence_of_a_channel_that_its_client_has_not_heard_of_stays() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = connect(&one, &SESSION).await.expect("accepted");
    join_in_vain(&mut ann).await;
    let mut changes = two.presence().changes();
    ann.reconnect_to(&two).await.expect("accepted");
    assert_eq!(ann.join("count:1", "").await, new());
    seconds(3).await;
    let metas = one.presence().get_by_key("count:1", "ann").await;
    assert_eq!(metas.map(|metas| metas.metas().len()), Some(1));
    let mut present = 1_i64;
    while let Ok(Some(diff)) = tokio::time::timeout(Duration::from_secs(1), changes.next()).await {
        let diff = diff.expect("none is dropped");
        let count = |presences: &tower_channels::Presences| {
            presences.get("ann").map_or(0, |present| present.metas().len() as i64)
        };
        present += count(&diff.joins) - count(&diff.leaves);
        assert!(present > 0, "the key has left");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_channel_has_ended_for_a_gap_is_told_so_on_the_next_node() {
    let bus = Bus::new();
    let adapters = [bus.adapter(), bus.adapter()];
    let place = adapters[0].place();
    let [one, two] = adapters.map(|adapter| builder().adapter(adapter).build());
    seconds(2).await;
    let mut ann = member(&one, "").await;
    bus.cut(place);
    two.broadcast("count:1", "n", json!(1));
    seconds(10).await;
    bus.heal(place);
    seconds(10).await;
    ann.expect("phx_error").await;
    join_in_vain(&mut ann).await;
    ann.reconnect_to(&two).await.expect("accepted");
    assert_eq!(ann.join("count:1", "").await, new());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_shows_that_it_has_joined_keeps_its_channel() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = connect(&one, &SESSION).await.expect("accepted");
    send_join(&mut ann);
    moment().await;
    // It has not acknowledged the reply otherwise.
    ann.send("count:1", "add", json!({}));
    moment().await;
    ann.drop_connection();
    // Nor does it receive the reply to this.
    ann.reconnect().await.expect("accepted");
    join_in_vain(&mut ann).await;
    ann.reconnect_to(&two).await.expect("accepted");
    assert_eq!(ann.join("count:1", "").await, moved(1));
}

#[tokio::test(start_paused = true)]
async fn a_channel_is_known_by_the_reply_to_a_later_join_too() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = connect(&one, &SESSION).await.expect("accepted");
    join_in_vain(&mut ann).await;
    ann.reconnect().await.expect("accepted");
    assert_eq!(ann.join("count:1", "").await, new(), "the response is repeated");
    ann.drop_connection();
    ann.reconnect().await.expect("accepted");
    join_in_vain(&mut ann).await;
    ann.reconnect_to(&two).await.expect("accepted");
    assert_eq!(ann.join("count:1", "").await, moved(0));
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_was_left_and_joined_again_is_another_one() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = member(&one, "").await;
    ann.send("count:1", "add", json!({}));
    ann.send("count:1", "phx_leave", json!({}));
    join_in_vain(&mut ann).await;
    ann.reconnect_to(&two).await.expect("accepted");
    assert_eq!(ann.join("count:1", "").await, new());
}

/// Three nodes. What the last one sends reaches the first one late.
async fn nodes_of_which_one_lags(bus: &Bus) -> [Node; 3] {
    let adapters = [bus.adapter(), bus.adapter(), bus.adapter()];
    let [to, _, from] = adapters.each_ref().map(BusAdapter::place);
    let nodes = adapters.map(|adapter| builder().adapter(adapter).build());
    seconds(2).await;
    let delay = Duration::from_secs(2);
    bus.set_path(from, to, Path { delay, ..Path::default() });
    nodes
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_told_until_the_client_has_heard_of_it() {
    let bus = Bus::new();
    let [one, two, three] = nodes_of_which_one_lags(&bus).await;
    let mut ann = member(&one, "").await;
    ann.drop_connection();
    three.broadcast("count:1", "n", json!(1));
    moment().await;
    ann.reconnect_to(&two).await.expect("accepted");
    join_in_vain(&mut ann).await;
    ann.reconnect_to(&three).await.expect("accepted");
    join_in_vain(&mut ann).await;
    ann.reconnect().await.expect("accepted");
    assert_eq!(ann.join("count:1", "").await, with_gap(0), "on the same node");
    ann.drop_connection();
    ann.reconnect_to(&two).await.expect("accepted");
    assert_eq!(ann.join("count:1", "").await, moved(0), "and then no more");
}

#[tokio::test(start_paused = true)]
async fn a_new_channel_that_its_client_has_not_heard_of_is_not_left_in_the_store() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = connect(&one, &SESSION).await.expect("accepted");
    assert_eq!(ann.join("count:2", "").await, new());
    join_in_vain(&mut ann).await;
    one.shutdown(Duration::from_secs(4)).await;
    ann.reconnect_to(&two).await.expect("accepted");
    assert_eq!(ann.join("count:1", "").await, new());
    assert_eq!(ann.join("count:2", "").await, with_gap(0));
}

#[tokio::test(start_paused = true)]
async fn the_reply_to_a_join_over_long_poll_is_known_to_have_come_with_the_next_poll() {
    for polls in 0..=3 {
        let bus = Bus::new();
        let [one, two] = nodes(&bus).await;
        let mut bob = Poller::connect(&one, "bob", "2.0.0").await;
        bob.send("phx_join", json!("")).await;
        for n in 0..polls {
            one.broadcast("count:1", "n", json!(n));
            moment().await;
            assert!(!bob.poll().await.is_empty());
        }
        bob.reconnect_to(&two).await;
        bob.send("phx_join", json!("")).await;
        moment().await;
        let answer = bob.poll().await[0].2["response"].clone();
        // The first poll brings the reply, and the second one shows that it has come.
        let expected =
            if polls < 2 { json!("new") } else { json!({ "count": 0, "has_gap": false }) };
        assert_eq!(answer, expected, "{polls}");
    }
}
