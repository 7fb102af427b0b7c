//! Servers that are killed, cut off, stopped, or cut us off.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use tower_channels::adapter::{Adapter, Channel, Link, NodeId, Reached};
use tower_channels_adapter_tests::engines::{Kind, RedisConfig as Server};
use tower_channels_adapter_tests::proxy::Proxy;

use crate::node::{Event, Node, PATIENCE, config};

#[tokio::test]
async fn a_server_that_is_killed_and_restarted_is_heard_again() {
    for kind in [Kind::Redis, Kind::Valkey] {
        let Some(mut server) = Server::new(kind).start().await else { continue };
        let mut node = Node::start(1, config(server.address())).await;
        server.kill();
        node.down().await;
        assert_eq!(node.reach(NodeId(2), "away").await, Reached::Unknown);
        server.restart().await;
        node.up().await;
        node.hears_itself().await;
    }
}

#[tokio::test]
async fn a_server_that_is_away_for_long_is_heard_again() {
    let Some(mut server) = Server::new(Kind::Redis).start().await else { return };
    let mut node = Node::start(1, config(server.address())).await;
    server.kill();
    node.down().await;
    tokio::time::sleep(Duration::from_secs(13)).await;
    server.restart().await;
    node.up().await;
    node.hears_itself().await;
}

#[tokio::test]
async fn frames_wait_for_the_server_but_not_for_ever() {
    let Some(mut server) = Server::new(Kind::Redis).start().await else { return };
    let age = Duration::from_secs(1);
    let mut impatient = Node::start(1, config(server.address()).max_age(age)).await;
    let mut patient = Node::start(2, config(server.address()).max_age(PATIENCE * 10)).await;
    server.kill();
    impatient.down().await;
    patient.down().await;
    // So that the connections that send have ended, too.
    for node in [&impatient, &patient] {
        assert_eq!(node.reach(NodeId(3), "away").await, Reached::Unknown);
    }
    impatient.publish(Channel::All, "too old");
    patient.publish(Channel::Topic("t"), "young");
    let published = Instant::now();
    timeout(PATIENCE, impatient.redis.flush()).await.expect("given up");
    assert!(published.elapsed() >= age);
    assert_eq!(impatient.event().await, Event::Lost("too old".into()));
    server.restart().await;
    patient.redis.flush().await;
    patient.up().await;
    assert!(!patient.heard().await.contains(&Event::Lost("young".into())));
}

#[tokio::test]
async fn a_connection_that_the_server_kills_is_noticed() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let mut node = Node::start(1, config(server.address())).await;
    for _ in 0..3 {
        server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        node.down().await;
        node.up().await;
        server.ask(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        node.hears_itself().await;
    }
}

#[tokio::test]
async fn a_server_that_stops_is_noticed_and_so_is_its_return() {
    let Some(mut server) = Server::new(Kind::Redis).start().await else { return };
    let mut node = Node::start(1, config(server.address())).await;
    server.pause();
    node.publish(Channel::All, "on its way");
    let mut events = Vec::new();
    while events.len() < 2 {
        events.push(node.event().await);
    }
    assert!(events.contains(&Event::Link(Link::Down)), "{events:?}");
    assert!(events.contains(&Event::Lost("on its way".into())), "{events:?}");
    server.resume();
    node.up().await;
    node.hears_itself().await;
}

#[tokio::test]
async fn a_link_that_stalls_is_noticed_and_heals() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let proxy = Proxy::new(server.address()).await;
    let mut node = Node::start(1, config(proxy.address())).await;
    proxy.stall();
    node.down().await;
    assert_eq!(node.reach(NodeId(2), "stalled").await, Reached::Unknown);
    proxy.heal();
    node.up().await;
    node.hears_itself().await;
}

#[tokio::test]
async fn nothing_is_delivered_twice_or_in_another_order_when_links_are_cut() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let proxy = Proxy::new(server.address()).await;
    let patient = config(proxy.address()).max_age(PATIENCE * 10);
    let mut sender = Node::start(1, patient).await;
    let mut receiver = Node::start(2, config(server.address())).await;
    for number in 0..4000_u32 {
        sender.publish(Channel::Topic("t"), number.to_be_bytes().to_vec());
        if number % 1000 == 500 {
            proxy.interrupt();
        }
        if number % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    sender.redis.flush().await;
    let number = |frame: &Bytes| frame[..].try_into().map(u32::from_be_bytes).ok();
    let heard = receiver.heard().await.into_iter().filter_map(|event| match event {
        Event::Frame(frame) => number(&frame),
        _ => None,
    });
    let heard: Vec<_> = heard.collect();
    assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "{heard:?}");
    sender.hears_itself().await;
    let lost = sender.lost.iter().filter_map(number);
    let all: BTreeSet<_> = heard.iter().copied().chain(lost).collect();
    assert_eq!(all.len(), 4000);
    // What was on its way each time.
    assert!(heard.len() >= 4000 - 4 * 64, "{}", heard.len());
}

#[tokio::test]
async fn reconnecting_leaves_no_connection_behind() {
    let Some(server) = Server::new(Kind::Redis).start().await else { return };
    let mut node = Node::start(1, config(server.address())).await;
    node.redis.reconnect();
    node.down().await;
    node.up().await;
    node.hears_itself().await;
    let two = async { while server.connections().await != 2 {} };
    timeout(PATIENCE, two).await.expect("its two connections are left");
    drop(node);
    let ended = async { while server.connections().await > 0 {} };
    timeout(PATIENCE, ended).await.expect("its connections end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_reads_too_slowly_is_cut_off_and_comes_back() {
    let line = "client-output-buffer-limit pubsub 1mb 0 0";
    let Some(server) = Server::new(Kind::Redis).line(line).start().await else { return };
    let proxy = Proxy::new(server.address()).await;
    let mut slow = Node::start(1, config(proxy.address())).await;
    let quick = Node::start(2, config(server.address())).await;
    // Nothing is read, but less than what is noticed as silence.
    proxy.stall();
    let frame = Bytes::from(vec![b'x'; 256 * 1024]);
    for _ in 0..64 {
        while quick.redis.publish(Channel::Topic("t"), frame.clone()).is_err() {
            quick.redis.flush().await;
        }
    }
    quick.redis.flush().await;
    proxy.heal();
    slow.down().await;
    slow.up().await;
    slow.hears_itself().await;
}

#[tokio::test]
async fn topics_are_heard_after_a_reconnection() {
    let Some(mut server) = Server::new(Kind::Redis).start().await else { return };
    let mut node = Node::start(1, config(server.address())).await;
    for number in 0..1500 {
        node.redis.listen(&format!("topic:{number}")).await;
    }
    node.redis.hear_all(false).await;
    assert_eq!(server.ask(&["PUBSUB", "NUMPAT"]).await, "0");
    server.kill();
    node.down().await;
    // Nobody waits for a server that is away.
    node.redis.listen("meanwhile").await;
    server.restart().await;
    node.up().await;
    let other = Node::start(2, config(server.address())).await;
    let topics = ["topic:0", "topic:1499", "meanwhile", "not wanted"];
    let only_other = async { while server.ask(&["PUBSUB", "NUMPAT"]).await != "1" {} };
    timeout(PATIENCE, only_other).await.expect("the pattern goes");
    for topic in topics {
        other.publish(Channel::Topic(topic), topic);
    }
    other.redis.flush().await;
    let heard = node.heard().await;
    let expected: Vec<_> = topics[..3].iter().map(|it| Event::Frame((*it).into())).collect();
    assert_eq!(heard, expected);
}
