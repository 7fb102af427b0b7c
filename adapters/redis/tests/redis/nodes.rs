//! Whole nodes over a server.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tower_channels::cluster::{ClusterConfig, Listen};
use tower_channels::history::Since;
use tower_channels::pubsub::Subscription;
use tower_channels::{History, Payload, PubSub, PubSubConfig};
use tower_channels_adapter_tests::engines::{Kind, RedisConfig as Server, RedisServer};
use tower_channels_redis::Redis;

use crate::node::{PATIENCE, config};

async fn node(server: &RedisServer, listen: Listen) -> PubSub {
    let redis = Redis::connect(config(server.address())).await.expect("connects");
    let cluster = ClusterConfig::new().listen(listen);
    PubSub::with_config(PubSubConfig::new().adapter(redis).cluster(cluster)).expect("valid")
}

/// Broadcasts until a subscription of another node hears it.
async fn reaches(from: &PubSub, to: &mut Subscription) {
    let heard = async {
        loop {
            from.broadcast("room:1", "hello", Payload::binary(vec![1, 2, 3]));
            if let Ok(received) = timeout(Duration::from_millis(100), to.recv()).await {
                return assert_eq!(received.expect("no gap").event(), "hello");
            }
        }
    };
    timeout(PATIENCE, heard).await.expect("it is heard");
}

#[tokio::test]
async fn nodes_hear_each_other_before_and_after_the_server_is_restarted() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(mut server) = Server::new(kind).start().await else { continue };
        let (a, b) = (node(&server, Listen::All).await, node(&server, Listen::Topics).await);
        let (mut on_a, mut on_b) = (a.subscribe("room:1"), b.subscribe("room:1"));
        for round in 0..2 {
            if round > 0 {
                server.kill();
                server.restart().await;
            }
            reaches(&a, &mut on_b).await;
            on_a.recv().await.expect("its own");
            while timeout(Duration::from_millis(100), on_a.recv()).await.is_ok() {}
            reaches(&b, &mut on_a).await;
            let both = async {
                while a.nodes().iter().filter(|node| node.is_up).count() != 2 {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(PATIENCE, both).await.expect("both are up");
        }
        // One node hears all, the other its topics.
        let narrow = async {
            while server.ask(&["PUBSUB", "NUMPAT"]).await != "1"
                || server.ask(&["PUBSUB", "CHANNELS", "tc:test:t:*"]).await != "tc:test:t:room:1"
            {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, narrow).await.expect("one topic is subscribed");
    }
}

#[tokio::test]
async fn nodes_share_the_history_of_a_topic() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(server) = Server::new(kind).start().await else { continue };
        let node = async || {
            let redis = Redis::connect(config(server.address())).await.expect("connects");
            let config = PubSubConfig::new().adapter(redis);
            PubSub::with_config(config.history("room:*", History::last(100))).expect("valid")
        };
        let (a, b) = (node().await, node().await);
        let mut on_b = b.subscribe("room:1");
        // It is heard from some message on.
        reaches(&a, &mut on_b).await;
        let mut positions = Vec::new();
        for number in 0..20_u8 {
            let from = if number % 2 == 0 { &a } else { &b };
            let kept = from.publish("room:1", "new", Payload::binary(vec![number])).await;
            positions.push(kept.expect("it is kept"));
        }
        for position in &positions {
            let heard = loop {
                let heard = timeout(PATIENCE, on_b.recv()).await.expect("it is heard");
                let heard = heard.expect("no gap");
                if heard.event() == "new" {
                    break heard;
                }
            };
            assert_eq!(heard.position(), Some(*position));
        }
        for node in [&a, &b] {
            let page = node.history("room:1", Since::Newest, 20).await.expect("it can be read");
            let found: Vec<_> = page.messages.iter().filter_map(|it| it.position()).collect();
            assert_eq!(found, positions);
        }
    }
}
