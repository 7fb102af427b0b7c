use axum::Json;
use axum::extract::State;
use serde_json::Value;
use tower_channels::{Endpoint, test};

use super::senders::Notification;
use super::*;
use crate::device::State as App;
use crate::endpoint;

async fn device(endpoint: &Endpoint<Device>) -> test::Client<Device> {
    let mut device = test::connect(endpoint, &[("user", "ada")]).await.unwrap();
    assert_eq!(device.join("user:ada", json!({})).await, Reply::ack());
    assert_eq!(next(&mut device).await["version"], 0);
    device
}

async fn next(device: &mut test::Client<Device>) -> Value {
    device.expect("inbox").await.parse().unwrap()
}

#[tokio::test]
async fn nobody_joins_the_topic_of_another_person() {
    let mut bob = test::connect(&endpoint(App::default()), &[("user", "bob")]).await.unwrap();
    assert_eq!(bob.join("user:ada", json!({})).await, Reply::reason("not yours"));
}

#[tokio::test]
async fn an_order_in_another_channel_and_a_request_reach_all_devices() {
    let app = App::default();
    let endpoint = endpoint(app.clone());
    let mut devices = [device(&endpoint).await, device(&endpoint).await];
    let mut bob = test::connect(&endpoint, &[("user", "bob")]).await.unwrap();
    bob.join("shop:lamps", json!({})).await;
    assert_eq!(bob.push("shop:lamps", "order", json!({ "item": "a lamp" })).await, Reply::ack());
    let report = Notification { kind: Kind::Reports, text: "Backup finished".into() };
    notify_by_http(State((endpoint.pubsub().clone(), app.inboxes)), Json(report)).await;
    for device in &mut devices {
        assert_eq!(next(device).await["notes"][0]["text"], "bob ordered a lamp");
        let inbox = next(device).await;
        assert_eq!(
            (&inbox["notes"][0]["text"], &inbox["unread"]),
            (&json!("Backup finished"), &json!(2))
        );
    }
}

#[tokio::test]
async fn what_is_read_on_one_device_is_read_on_all() {
    let app = App::default();
    let endpoint = endpoint(app.clone());
    let mut devices = [device(&endpoint).await, device(&endpoint).await];
    app.inboxes.notify(endpoint.pubsub(), "ada", Kind::Orders, "one");
    app.inboxes.notify(endpoint.pubsub(), "ada", Kind::Orders, "two");
    devices[0].push("user:ada", "read", json!({ "id": 1 })).await;
    for device in &mut devices {
        let unread = [next(device).await, next(device).await, next(device).await];
        assert_eq!(unread.map(|inbox| inbox["unread"].clone()), [1, 2, 1]);
    }
}

#[tokio::test]
async fn a_kind_that_is_muted_on_one_device_notifies_none() {
    let app = App::default();
    let endpoint = endpoint(app.clone());
    let mut devices = [device(&endpoint).await, device(&endpoint).await];
    devices[1].push("user:ada", "mute", json!({ "kind": "orders", "on": true })).await;
    app.inboxes.notify(endpoint.pubsub(), "ada", Kind::Orders, "not wanted");
    app.inboxes.notify(endpoint.pubsub(), "ada", Kind::Reports, "wanted");
    for device in &mut devices {
        assert_eq!(next(device).await["muted"], json!(["orders"]));
        next(device).await;
        let inbox = next(device).await;
        assert_eq!(inbox["notes"].as_array().unwrap().len(), 1);
        assert_eq!(inbox["notes"][0]["text"], "wanted");
    }
}
