//! Which nodes there are.

use std::time::Duration;

use tower_channels::test::Bus;
use tower_channels::{Endpoint, PubSub, PubSubConfig};

use crate::support::{Node, Plain, User, builder, joined, moment, node, nodes, seconds};

fn up(node: &Node) -> usize {
    node.nodes().iter().filter(|node| node.is_up).count()
}

#[tokio::test(start_paused = true)]
async fn nodes_know_each_other_at_once() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    seconds(3).await;
    let (two, _) = node(&bus);
    moment().await;
    assert_eq!([up(&one), up(&two)], [2, 2]);
    let (this, other) = (&two.nodes()[0], &two.nodes()[1]);
    assert!(this.is_self && !other.is_self);
    assert_eq!(other.id, one.nodes()[0].id);
    assert!(other.uptime >= Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_node_tells_how_many_sessions_it_has_and_that_it_shuts_down() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let _ann = joined(&one, "ann", "room:1").await;
    let _bob = joined(&one, "bob", "room:1").await;
    seconds(1).await;
    assert_eq!(two.nodes()[1].sessions, 2);
    let shutdown = tokio::spawn(async move { one.shutdown(Duration::from_secs(10)).await });
    seconds(2).await;
    assert!(two.nodes()[1].is_draining);
    shutdown.await.expect("no panic");
    moment().await;
    assert_eq!(two.nodes().len(), 1, "it has said goodbye");
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_process_died_is_taken_for_dead_within_seconds() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let _ann = joined(&two, "ann", "room:1").await;
    drop(two);
    drop(_ann);
    seconds(3).await;
    assert_eq!(up(&one), 1, "the engine says that nobody hears");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stalls_is_taken_for_dead_within_six_seconds_and_heard_again() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    let (two, place) = node(&bus);
    seconds(1).await;
    bus.stall(place);
    seconds(6).await;
    assert_eq!(up(&one), 1);
    bus.heal(place);
    seconds(2).await;
    assert_eq!([up(&one), up(&two)], [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_blamed_for_an_engine_that_is_away() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    bus.stop();
    for _ in 0..60 {
        seconds(1).await;
        assert_eq!([up(&one), up(&two)], [2, 2]);
    }
    bus.restart();
    for _ in 0..10 {
        seconds(1).await;
        assert_eq!([up(&one), up(&two)], [2, 2]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_hear_itself_connects_anew() {
    let bus = Bus::new();
    let (one, place) = node(&bus);
    let (two, _) = node(&bus);
    seconds(1).await;
    let mut ann = joined(&one, "ann", "room:1").await;
    bus.deafen(place);
    seconds(5).await;
    assert_eq!([up(&one), up(&two)], [2, 2]);
    two.broadcast("room:1", "news", serde_json::json!(1));
    ann.expect("news").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_said_goodbye_keeps_quiet() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    one.shutdown(Duration::from_secs(1)).await;
    for _ in 0..30 {
        seconds(1).await;
        assert_eq!(two.nodes().len(), 1);
        assert_eq!(bus.connections(), 2, "its connection is left alone");
    }
}

#[tokio::test]
async fn nodes_are_used_from_threads_without_a_runtime() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    let threads = std::thread::spawn(move || {
        one.pubsub().listen(tower_channels::cluster::Listen::Topics);
        one.pubsub().listen(tower_channels::cluster::Listen::All);
        one.broadcast("room:1", "n", serde_json::json!(1));
        one.disconnect("ann");
    });
    threads.join().expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_share_a_pubsub_are_one_node() {
    let bus = Bus::new();
    let config = PubSubConfig::new().adapter(bus.adapter());
    let pubsub = PubSub::with_config(config).expect("valid");
    let one = builder().pubsub(pubsub.clone()).build();
    let two = builder().pubsub(pubsub.clone()).build();
    let other = node(&bus).0;
    let _ann = joined(&one, "ann", "room:1").await;
    let _bob = joined(&two, "bob", "room:1").await;
    seconds(2).await;
    assert_eq!(other.nodes().len(), 2);
    assert_eq!(other.nodes()[1].sessions, 2);
    one.shutdown(Duration::from_secs(1)).await;
    seconds(2).await;
    assert_eq!(up(&other), 2, "the other endpoint is there");
    assert!(!other.nodes()[1].is_draining);
    two.shutdown(Duration::from_secs(1)).await;
    moment().await;
    assert_eq!(other.nodes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_is_gone_with_its_endpoint() {
    let bus = Bus::new();
    let (one, _) = node(&bus);
    moment().await;
    assert_eq!(bus.connections(), 1);
    drop(one);
    seconds(1).await;
    assert_eq!(bus.connections(), 0);
}

#[test]
fn a_node_with_an_adapter_needs_a_runtime() {
    let error = builder().adapter(Bus::new().adapter()).try_build().expect_err("no runtime");
    assert_eq!(error.to_string(), "a node with an adapter has to be built in a tokio runtime");
}

#[tokio::test]
async fn an_adapter_belongs_to_one_pubsub() {
    let config = PubSubConfig::new().adapter(Bus::new().adapter());
    let _first = PubSub::with_config(config.clone()).expect("valid");
    let error = PubSub::with_config(config).expect_err("it is taken");
    assert_eq!(error.to_string(), "the adapter belongs to another `PubSub`");
}

#[tokio::test]
async fn the_adapter_of_a_shared_pubsub_is_configured_there() {
    let build = builder().pubsub(PubSub::new()).adapter(Bus::new().adapter()).try_build();
    let error = build.expect_err("it is shared");
    assert!(error.to_string().contains("`PubSubConfig::adapter`"), "{error}");
}

#[test]
fn without_an_adapter_there_are_no_nodes() {
    let endpoint =
        Endpoint::builder(|_| async { Ok(User::default()) }).channel::<Plain>("*").build();
    assert_eq!(endpoint.nodes(), []);
}
