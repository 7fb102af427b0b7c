//! Broadcasts between nodes.

use futures_util::StreamExt;
use serde_json::json;
use tower_channels::Payload;
use tower_channels::test::Bus;

use crate::support::{joined, moment, nodes};

#[tokio::test(start_paused = true)]
async fn a_broadcast_reaches_the_topic_on_every_node_once() {
    let bus = Bus::new();
    let [one, two, three] = nodes(&bus).await;
    let mut clients = [
        joined(&one, "ann", "room:1").await,
        joined(&two, "bob", "room:1").await,
        joined(&three, "cid", "room:1").await,
        joined(&two, "dan", "room:2").await,
    ];
    clients[0].push("room:1", "shout", json!("hi")).await;
    one.broadcast("room:1", "news", json!(1));
    moment().await;
    for client in &mut clients[..3] {
        assert_eq!(client.expect("shout").await, json!("hi"));
        assert_eq!(client.expect("news").await, json!(1));
    }
    for client in &mut clients {
        assert_eq!(client.discard(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn broadcasts_of_one_node_arrive_in_order() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut client = joined(&two, "bob", "room:1").await;
    (0..1000).for_each(|number| one.broadcast("room:1", "n", json!(number)));
    for number in 0..1000 {
        assert_eq!(client.expect("n").await, json!(number));
    }
}

#[tokio::test(start_paused = true)]
async fn payloads_arrive_byte_by_byte() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut room = two.pubsub().subscribe("any topic, *?[ \n\u{1f600}");
    let text = "{\"b\" :1.50,\t\"a\":\"\\u00e4\"}";
    let json = serde_json::value::RawValue::from_string(text.to_owned()).expect("JSON");
    let payloads = [
        Payload::json(&json).expect("JSON"),
        Payload::binary(vec![0, 159, 255]),
        Payload::binary(Vec::new()),
        Payload::EMPTY,
        json!("x".repeat(5_000_000)).into(),
        Payload::binary(vec![7; 3_000_000]),
    ];
    for payload in &payloads {
        one.broadcast(room.topic(), "an event", payload.clone());
    }
    for payload in &payloads {
        let received = room.recv().await.expect("nothing is dropped");
        assert_eq!(received.event(), "an event");
        assert_eq!(received.payload().as_json(), payload.as_json());
        assert_eq!(received.payload().as_binary(), payload.as_binary());
    }
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_from_a_client_spares_that_client_alone() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = joined(&one, "ann", "room:1").await;
    let mut bob = joined(&one, "bob", "room:1").await;
    let mut cid = joined(&two, "cid", "room:1").await;
    ann.push("room:1", "whisper", json!("psst")).await;
    assert_eq!(bob.expect("whisper").await, json!("psst"));
    assert_eq!(cid.expect("whisper").await, json!("psst"));
    assert_eq!(ann.discard(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_local_broadcast_stays_on_its_node() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = joined(&one, "ann", "room:1").await;
    let mut bob = joined(&two, "bob", "room:1").await;
    one.pubsub().local_broadcast("room:1", "news", json!(1));
    assert_eq!(ann.expect("news").await, json!(1));
    moment().await;
    assert_eq!(bob.discard(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_node_intercepts_for_its_own_clients() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = joined(&one, "ann", "room:1").await;
    let mut bob = joined(&two, "bob", "room:1").await;
    ann.push("room:1", "sign", json!("x")).await;
    assert_eq!(ann.expect("signed").await, json!(["x", "ann"]));
    assert_eq!(bob.expect("signed").await, json!(["x", "bob"]));
}

#[tokio::test(start_paused = true)]
async fn tasks_of_other_nodes_receive_what_clients_do() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let room = two.pubsub().subscribe("room:1");
    (0..3).for_each(|number| one.broadcast("room:1", "n", json!(number)));
    let events =
        room.take(3).map(|broadcast| broadcast.expect("none is dropped").payload().clone());
    assert_eq!(events.collect::<Vec<_>>().await, [json!(0), json!(1), json!(2)]);
}

#[tokio::test(start_paused = true)]
async fn clusters_on_different_engines_do_not_meet() {
    let [one, _] = nodes(&Bus::new()).await;
    let [two, _] = nodes(&Bus::new()).await;
    let mut bob = joined(&two, "bob", "room:1").await;
    one.broadcast("room:1", "news", json!(1));
    moment().await;
    assert_eq!(bob.discard(), 0);
}
