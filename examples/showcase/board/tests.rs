use std::time::Duration;

use serde_json::Value;
use tower_channels::{Endpoint, test};

use super::*;
use crate::device::State;
use crate::endpoint;

async fn device(endpoint: &Endpoint<Device>) -> test::Client<Device> {
    let device = test::client(endpoint).param("user", "ada").param("positions", "refs");
    let mut device = device.connect().await.unwrap();
    device.join("board:ada", json!({})).await;
    device.expect("tasks").await;
    device
}

fn change(id: &str, version: u64, text: &str) -> Value {
    let task = json!({ "id": "a", "version": version, "text": text, "column": "todo" });
    json!({ "change": id, "task": task })
}

fn task(version: u64, text: &str) -> Value {
    change("", version, text)["task"].take()
}

#[tokio::test]
async fn a_change_that_is_sent_again_counts_once() {
    let endpoint = endpoint(State::default());
    let mut phone = device(&endpoint).await;
    for _ in 0..2 {
        let reply = phone.push("board:ada", "change", change("1", 0, "water the plants")).await;
        assert_eq!(reply, Reply::ok(task(1, "water the plants")));
    }
}

#[tokio::test]
async fn a_change_of_what_another_device_has_changed_is_a_conflict_and_the_last_writer_wins() {
    let endpoint = endpoint(State::default());
    let (mut phone, mut laptop) = (device(&endpoint).await, device(&endpoint).await);
    phone.push("board:ada", "change", change("1", 0, "plants")).await;
    phone.push("board:ada", "change", change("2", 1, "water the plants")).await;

    let reply = laptop.push("board:ada", "change", change("3", 1, "buy plants")).await;
    let conflict = json!({ "reason": "conflict", "task": task(2, "water the plants") });
    assert_eq!(reply, Reply::Error(conflict.into()));
    let reply = laptop.push("board:ada", "change", change("4", 2, "buy plants")).await;
    assert_eq!(reply, Reply::ok(task(3, "buy plants")));
    for text in ["plants", "water the plants", "buy plants"] {
        assert_eq!(phone.expect("task").await.parse::<Value>().unwrap()["text"], text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_returns_after_a_day_gets_what_it_has_missed() {
    let endpoint = endpoint(State::default());
    let (mut phone, mut laptop) = (device(&endpoint).await, device(&endpoint).await);
    phone.push("board:ada", "change", change("1", 0, "plants")).await;
    let position = loop {
        let message = laptop.next_message().await;
        if message.event == "task" {
            break message.position.unwrap();
        }
    };
    laptop.drop_connection();
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    phone.push("board:ada", "change", change("2", 1, "water the plants")).await;

    laptop.reconnect().await.unwrap();
    let reply = laptop.join("board:ada", json!({ "after": position.to_string() })).await;
    assert_eq!(reply, Reply::ok(json!({ "recovered": true })));
    assert_eq!(laptop.expect("task").await, task(2, "water the plants"));
}
