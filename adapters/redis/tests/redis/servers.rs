//! Kinds of servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::timeout;
use tower_channels::adapter::{Adapter, Channel, NodeId, Reached};
use tower_channels_adapter_tests::engines::{Kind, RedisConfig as Server, RedisServer};
use tower_channels_redis::{ConnectError, Redis, RedisConfig};

use crate::node::{Node, PATIENCE, config, frames, url};

/// How many connections of adapters a server has.
async fn count(server: &RedisServer) -> usize {
    let clients = server.ask(&["CLIENT", "LIST"]).await;
    clients.lines().filter(|client| client.contains("resp=3")).count()
}

#[tokio::test]
async fn nodes_reach_each_other_over_redis_and_over_valkey() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(server) = Server::new(kind).start().await else { continue };
        let config = || config(server.address());
        let (mut a, mut b) = (Node::start(1, config()).await, Node::start(2, config()).await);
        a.publish(Channel::All, "all");
        a.publish(Channel::Topic("room:1"), "topic");
        a.redis.flush().await;
        assert_eq!(a.reach(b.id, "node").await, Reached::Someone);
        assert_eq!(a.reach(NodeId(3), "nobody").await, Reached::Nobody);
        assert_eq!(b.heard().await, frames(["all", "topic", "node"]));
        assert_eq!(a.heard().await, frames(["all", "topic"]));
    }
}

#[tokio::test]
async fn applications_and_databases_are_apart_by_name_alone() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let mut a = Node::start(1, config(server.address())).await;
    let other = Node::start(2, config(server.address()).app("other")).await;
    let database = RedisConfig::new(format!("{}/1", url(server.address()))).app("test");
    let same = Node::start(3, database).await;
    other.publish(Channel::Topic("t"), "other");
    same.publish(Channel::Topic("t"), "same");
    other.redis.flush().await;
    same.redis.flush().await;
    assert_eq!(a.heard().await, frames(["same"]));
}

#[tokio::test]
async fn frames_cross_a_redis_cluster_whose_counts_prove_nothing() {
    let Some(servers) = Server::new(Kind::Redis).start_cluster().await else { return };
    let a = Node::start(1, config(servers[0].address())).await;
    let mut b = Node::start(2, config(servers[1].address())).await;
    let expected: Vec<_> = (0..500).map(|number| format!("{number}")).collect();
    for frame in &expected {
        a.publish(Channel::Topic("room:1"), frame.clone());
    }
    for frame in &expected {
        assert_eq!(b.frame().await, frame);
    }
    assert_eq!(a.reach(b.id, "node").await, Reached::Unknown);
    assert_eq!(b.frame().await, "node");
    assert_eq!(a.reach(NodeId(3), "nobody").await, Reached::Unknown);
    assert_eq!(a.reach(a.id, "own").await, Reached::Someone);
}

#[tokio::test]
async fn after_a_failover_the_master_that_sentinel_names_is_used() {
    let Some(mut servers) = Server::new(Kind::Redis).password("secret").start_sentinel().await
    else {
        return;
    };
    let sentinel = url(servers.sentinel.address());
    // The first Sentinel is not there.
    let config = |name: &str| {
        RedisConfig::sentinel(format!("redis://:secret@{name}"), ["redis://127.0.0.1:1", &sentinel])
            .app("test")
    };
    let error = Redis::connect(config("unknown")).await.expect_err("refused");
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
    let (mut a, mut b) =
        (Node::start(1, config("main")).await, Node::start(2, config("main")).await);
    servers.primary.kill();
    for node in [&mut a, &mut b] {
        node.down().await;
    }
    for node in [&mut a, &mut b] {
        node.up().await;
        node.hears_itself().await;
    }
    a.publish(Channel::All, "after the failover");
    while b.frame().await != "after the failover" {}
    assert_eq!(count(&servers.replica).await, 4);
}

#[tokio::test]
async fn a_server_that_becomes_a_replica_is_left() {
    let Some(old) = Server::new(Kind::Redis).start().await else { return };
    let Some(new) = Server::new(Kind::Redis).start().await else { return };
    let addresses = [url(old.address()), url(new.address())];
    let current = Arc::new(AtomicUsize::new(0));
    let config = {
        let current = current.clone();
        RedisConfig::resolve(move || {
            let url = addresses[current.load(Ordering::Relaxed)].clone();
            async move { Ok::<_, std::io::Error>(url) }
        })
    };
    let mut node = Node::start(1, config.app("test")).await;
    current.store(1, Ordering::Relaxed);
    let port = new.address().port().to_string();
    old.ask(&["REPLICAOF", "127.0.0.1", &port]).await;
    node.down().await;
    node.up().await;
    node.hears_itself().await;
    assert_eq!(new.ask(&["PUBSUB", "NUMPAT"]).await, "1");
    let ended = async { while count(&old).await > 0 {} };
    timeout(PATIENCE, ended).await.expect("both connections end");
}

#[tokio::test]
async fn an_address_that_cannot_be_resolved_is_an_error_with_its_reason() {
    let failing = RedisConfig::resolve(|| async { Err::<String, _>("no such service") });
    let panicking = RedisConfig::resolve(|| async {
        panic!("of the application");
        #[expect(unreachable_code, reason = "it says what the type would be")]
        Ok::<String, &str>(String::new())
    });
    for (config, reason) in [(failing, "no such service"), (panicking, "panicked")] {
        let error = Redis::connect(config).await.expect_err("refused");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
    }
}

#[tokio::test]
async fn a_resolve_that_panics_is_asked_again() {
    let Some(mut server) = Server::new(Kind::Redis).start().await else { return };
    let url = url(server.address());
    let calls = Arc::new(AtomicUsize::new(0));
    let config = {
        let calls = calls.clone();
        RedisConfig::resolve(move || {
            let (url, call) = (url.clone(), calls.fetch_add(1, Ordering::Relaxed));
            // The first three are those of the check and of the two connections.
            assert!(!(3..7).contains(&call), "call {call}");
            async move { Ok::<_, std::io::Error>(url) }
        })
    };
    let mut node = Node::start(1, config).await;
    server.kill();
    node.down().await;
    server.restart().await;
    node.up().await;
    node.hears_itself().await;
    assert!(calls.load(Ordering::Relaxed) > 7);
}
