//! Topics with a history, tested with in-memory clients.

use std::time::Duration;

use serde_json::json;
use tower_channels::channel::{Error, Result};
use tower_channels::history::{PublishError, ReadError, Since};
use tower_channels::test::{Bus, Client, connect};
use tower_channels::{
    Builder, Channel, ConfigError, Endpoint, History, Joined, Payload, Position, PubSub,
    PubSubConfig, Reply, Socket,
};

struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(&mut self, event: &str, msg: Payload, it: &Socket<Self>) -> Result<Reply> {
        match event {
            "publish" => match it.publish("new_msg", msg).await {
                Ok(position) => Ok(Reply::ok(json!(position.to_string()))),
                Err(error) => Err(Error::reason(&error.to_string())),
            },
            "broadcast" => {
                it.broadcast("new_msg", msg);
                Ok(Reply::ack())
            }
            "broadcast_from" => {
                it.broadcast_from("new_msg", msg);
                Ok(Reply::ack())
            }
            "push" => {
                it.push("new_msg", msg);
                Ok(Reply::ack())
            }
            _ => Err(Error::unmatched(event)),
        }
    }
}

fn builder() -> Builder<()> {
    Endpoint::builder(|_| async { Ok(()) })
        .channel::<Room>("room:*")
        .channel::<Room>("log:*")
        .history("log:*", History::last(5))
        .id(|()| Some("user:1".into()))
}

/// All that is kept of a topic.
async fn kept(pubsub: &PubSub, topic: &str) -> Vec<String> {
    let page = pubsub.history(topic, Since::Newest, 100).await.expect("a page");
    page.messages.iter().filter_map(|it| it.payload().as_json()).map(str::to_owned).collect()
}

/// The numbers that a client receives next.
async fn receive(client: &mut Client<()>, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let (event, payload) = client.next_push().await;
        assert_eq!(event, "new_msg");
        numbers.push(payload.parse().expect("a number"));
    }
    numbers
}

#[tokio::test(start_paused = true)]
async fn everything_that_is_broadcast_on_the_topic_is_kept_and_nothing_else() {
    let endpoint = builder().build();
    let pubsub = endpoint.pubsub();
    let mut ann = connect(&endpoint, &[]).await.expect("accepted");
    let mut bob = connect(&endpoint, &[]).await.expect("accepted");
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.join("log:1", json!({})).await, Reply::ack());
        client.skip_presence();
    }
    for (number, event) in ["publish", "broadcast", "broadcast_from", "push"].iter().enumerate() {
        let reply = ann.push("log:1", event, json!(number)).await;
        assert!(matches!(reply, Reply::Ok(_)), "{event}: {reply:?}");
    }
    pubsub.local_broadcast("log:1", "new_msg", json!(4));
    let _guard = pubsub.presence().track_task("log:1", "ann", json!({})).expect("tracked");
    endpoint.broadcast("log:1", "new_msg", json!(5));
    assert!(endpoint.publish("log:1", "new_msg", json!(6)).await.is_ok());
    assert_eq!(kept(pubsub, "log:1").await, ["0", "1", "2", "5", "6"]);
    assert!(kept(pubsub, "log:2").await.is_empty());
    // Everybody has received them in that order, but for the one that has left out its sender.
    assert_eq!(receive(&mut ann, 6).await, [0, 1, 3, 4, 5, 6]);
    assert_eq!(receive(&mut bob, 6).await, [0, 1, 2, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_knows_the_positions_and_a_page_begins_at_any_of_them() {
    let endpoint = builder().build();
    let pubsub = endpoint.pubsub();
    let mut log = pubsub.subscribe("log:1");
    let mut room = pubsub.subscribe("room:1");
    let mut positions: Vec<Position> = Vec::new();
    for number in 0..8 {
        positions.push(pubsub.publish("log:1", "new_msg", json!(number)).await.expect("kept"));
        assert_eq!(log.recv().await.expect("it").position(), positions.last().copied());
    }
    pubsub.broadcast("room:1", "new_msg", json!(1));
    assert_eq!(room.recv().await.expect("it").position(), None);
    let page = async |since, limit| {
        let page = pubsub.history("log:1", since, limit).await.expect("a page");
        let numbers = page.messages.iter().map(|it| it.payload().parse::<u64>().expect("a number"));
        (numbers.collect::<Vec<_>>(), page.is_complete)
    };
    assert_eq!(page(Since::Newest, 2).await, (vec![6, 7], true));
    assert_eq!(page(Since::Before(positions[6]), 2).await, (vec![4, 5], true));
    assert_eq!(page(Since::Before(positions[4]), 2).await, (vec![3], true));
    assert_eq!(page(Since::After(positions[2]), 2).await, (vec![3, 4], true));
    assert_eq!(page(Since::After(positions[1]), 9).await, (vec![3, 4, 5, 6, 7], false));
    assert_eq!(page(Since::After(positions[7]), 9).await, (vec![], true));
    // A position survives as text.
    let text = positions[6].to_string();
    let position = text.parse().expect("a position");
    assert_eq!(page(Since::After(position), 9).await, (vec![7], true));
}

#[tokio::test(start_paused = true)]
async fn a_topic_without_a_history_keeps_nothing_and_says_so() {
    let endpoint = builder().build();
    let pubsub = endpoint.pubsub();
    let mut ann = connect(&endpoint, &[]).await.expect("accepted");
    ann.join("room:1", json!({})).await;
    let reply = ann.push("room:1", "publish", json!(1)).await;
    assert_eq!(reply, Reply::reason("the topic has no history"));
    for pubsub in [pubsub, &PubSub::new()] {
        let published = pubsub.publish("room:1", "new_msg", json!(1)).await;
        assert_eq!(published, Err(PublishError::NoHistory));
        let read = pubsub.history("room:1", Since::Newest, 1).await;
        assert_eq!(read.err(), Some(ReadError::NoHistory));
    }
    ann.push("room:1", "broadcast", json!(2)).await;
    assert_eq!(receive(&mut ann, 1).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn disconnect_on_a_socket_id_disconnects_also_if_it_is_kept() {
    for published in [false, true] {
        let endpoint = builder().history("user:*", History::last(5)).build();
        let mut ann = connect(&endpoint, &[]).await.expect("accepted");
        ann.join("log:1", json!({})).await;
        if published {
            let kept = endpoint.publish("user:1", "disconnect", json!({})).await;
            assert!(kept.is_ok());
        } else {
            endpoint.broadcast("user:1", "disconnect", json!({}));
        }
        ann.expect_closed().await;
        assert_eq!(kept(endpoint.pubsub(), "user:1").await, ["{}"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_is_forgotten_when_it_is_too_old() {
    let history = History::last(100).within(Duration::from_secs(60));
    let config = PubSubConfig::new().history("*", history);
    let pubsub = PubSub::with_config(config).expect("valid");
    for number in 0..4 {
        pubsub.broadcast("any", "new_msg", json!(number));
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(kept(&pubsub, "any").await, ["2", "3"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(kept(&pubsub, "any").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_first_pattern_that_matches_decides_how_much_is_kept() {
    let config = PubSubConfig::new()
        .history("log:small", History::last(1))
        .history("log:*", History::last(100).max_bytes(1000));
    let pubsub = PubSub::with_config(config).expect("valid");
    for number in 0..30 {
        let payload = json!([number, "x".repeat(100)]);
        pubsub.broadcast("log:small", "new_msg", payload.clone());
        pubsub.broadcast("log:large", "new_msg", payload);
    }
    assert_eq!(kept(&pubsub, "log:small").await.len(), 1);
    assert_eq!(kept(&pubsub, "log:large").await.len(), 8);
}

#[tokio::test(start_paused = true)]
async fn all_histories_together_are_bounded_and_part_of_the_memory() {
    let config = PubSubConfig::new().history("*", History::last(100)).history_memory(100_000);
    let pubsub = PubSub::with_config(config).expect("valid");
    for topic in 0..50 {
        for _ in 0..10 {
            pubsub.broadcast(&topic.to_string(), "new_msg", json!("x".repeat(1000)));
        }
    }
    let mut lengths = Vec::new();
    for topic in 0..50 {
        lengths.push(kept(&pubsub, &topic.to_string()).await.len());
    }
    let (forgotten, kept): (Vec<usize>, Vec<usize>) =
        lengths.iter().copied().partition(|length| *length == 0);
    assert!((5..=10).contains(&kept.len()), "{lengths:?}");
    assert!(lengths.starts_with(&vec![0; forgotten.len()]), "{lengths:?}");
}

#[tokio::test]
async fn what_cannot_work_is_refused_in_words() {
    let with = |config: PubSubConfig| PubSub::with_config(config).map(drop);
    let refused = |result: std::result::Result<(), ConfigError>, words: &str| {
        let error = result.expect_err("it is refused").to_string();
        assert!(error.contains(words), "{error}");
    };
    let last = History::last(5);
    refused(with(PubSubConfig::new().history("a*b", last)), "only at the end");
    refused(with(PubSubConfig::new().history("a*", last).history("ab", last)), "never match");
    for nothing in [History::last(0), last.max_bytes(0), last.within(Duration::ZERO)] {
        refused(with(PubSubConfig::new().history("*", nothing)), "must keep something");
    }
    let zero = PubSubConfig::new().history("*", last).history_memory(0);
    refused(with(zero), "`history_memory` must be greater than zero");
    let without = Bus::new().adapter().without_history();
    refused(with(PubSubConfig::new().history("*", last).adapter(without)), "this one keeps none");
    let shared = builder().pubsub(PubSub::new()).try_build().map(drop);
    refused(shared, "set it with `PubSubConfig::history`");
}

/// What is kept in memory keeps the contract of stores.
mod contract {
    use tower_channels::adapter::HistoryStore;
    use tower_channels::internals::MemoryStore;
    use tower_channels_adapter_tests::histories::Harness;
    use tower_channels_adapter_tests::histories_contract;

    struct InMemory;

    impl Harness for InMemory {
        async fn start() -> Option<Self> {
            Some(Self)
        }

        async fn open(&self) -> Box<dyn HistoryStore> {
            Box::new(MemoryStore::new(usize::MAX))
        }

        async fn forget(&mut self) {}
    }

    histories_contract!(@in_memory InMemory, start_paused = true);
}
