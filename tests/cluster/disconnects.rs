//! Disconnects of sockets, wherever they are.

use serde_json::json;
use tower_channels::Close;
use tower_channels::test::Bus;

use crate::support::{joined, moment, node, nodes, seconds};

#[tokio::test(start_paused = true)]
async fn a_socket_is_disconnected_on_every_node() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = joined(&one, "ann", "room:1").await;
    let mut also_ann = joined(&two, "ann", "room:1").await;
    let mut bob = joined(&two, "bob", "room:1").await;
    one.disconnect("ann");
    moment().await;
    assert_eq!(ann.expect_closed().await, Close::GoingAway);
    assert_eq!(also_ann.expect_closed().await, Close::GoingAway);
    assert_eq!(bob.discard(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_event_disconnect_does_the_same() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = joined(&two, "ann", "room:1").await;
    one.broadcast("ann", "disconnect", json!({}));
    assert_eq!(ann.expect_closed().await, Close::GoingAway);
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_is_not_lost_to_a_reconnection() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let (three, place) = node(&bus);
    seconds(1).await;
    let mut ann = joined(&three, "ann", "room:1").await;
    let mut bob = joined(&three, "bob", "room:1").await;
    bus.cut(place);
    one.disconnect("ann");
    two.disconnect("nobody");
    seconds(2).await;
    assert!(three.is_connected("ann"));
    bus.heal(place);
    seconds(3).await;
    assert_eq!(ann.expect_closed().await, Close::GoingAway);
    assert_eq!(bob.discard(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_later_repeats_no_old_disconnect() {
    let bus = Bus::new();
    let [one, _two] = nodes(&bus).await;
    one.disconnect("ann");
    seconds(5).await;
    let (three, _) = node(&bus);
    let mut ann = joined(&three, "ann", "room:1").await;
    seconds(5).await;
    assert_eq!(ann.discard(), 0);
    assert!(three.is_connected("ann"));
}

#[tokio::test(start_paused = true)]
async fn what_a_node_disconnected_while_it_was_not_heard_is_made_up_for_even_if_it_is_new() {
    let bus = Bus::new();
    let (one, place) = node(&bus);
    seconds(5).await;
    let mut ann = joined(&one, "ann", "room:1").await;
    bus.cut(place);
    let (two, _) = node(&bus);
    seconds(1).await;
    two.disconnect("ann");
    seconds(1).await;
    bus.heal(place);
    assert_eq!(ann.expect_closed().await, Close::GoingAway);
}

#[tokio::test(start_paused = true)]
async fn what_an_older_node_disconnected_before_this_one_heard_it_is_made_up_for_and_nothing_before()
 {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    one.disconnect("bob");
    seconds(5).await;
    let (two, place) = node(&bus);
    bus.cut(place);
    let mut ann = joined(&two, "ann", "room:1").await;
    let mut bob = joined(&two, "bob", "room:1").await;
    one.disconnect("ann");
    seconds(5).await;
    bus.heal(place);
    assert_eq!(ann.expect_closed().await, Close::GoingAway);
    seconds(5).await;
    assert_eq!(bob.discard(), 0);
    assert!(two.is_connected("bob"));
}
