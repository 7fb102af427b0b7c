//! What an adapter does when its server, or its own node, fails.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tower_channels::adapter::{Adapter, Channel, Link, Reached};
use tower_channels_adapter_tests::engines::NatsConfig as ServerConfig;
use tower_channels_adapter_tests::proxy::Proxy;
use tower_channels_nats::NatsConfig;

#[path = "support/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "each test file needs a part")]
mod support;

use support::{MS, Node, until};

const UP_AGAIN: [Link; 3] = [Link::Up, Link::Down, Link::Up];

#[tokio::test]
async fn a_server_that_does_not_answer_is_noticed() {
    let Some(mut server) = ServerConfig::new().start().await else { return };
    let node = Node::start(1, NatsConfig::new(server.address().to_string())).await;
    server.pause();
    node.topic("room:1", "lost");
    node.is_told(&UP_AGAIN[..2]).await;
    until("the frame to be lost", || *node.inbox.lost.lock() == ["lost"]).await;
    server.resume();
    node.is_told(&UP_AGAIN).await;
    node.topic("room:1", "hello");
    node.hears("hello").await;
}

#[tokio::test]
async fn a_node_that_was_stopped_for_a_while_has_missed_nothing() {
    let Some(server) = ServerConfig::new().start().await else { return };
    let config = NatsConfig::new(server.address().to_string());
    let node = Node::start(1, config.clone()).await;
    // On threads of their own, which go on while those of the test are stopped.
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let other = Node::start(2, config).await;
            for number in 0..100 {
                other.topic("room:1", format!("{number}"));
                tokio::time::sleep(50 * MS).await;
            }
            other.nats.flush().await;
        });
    });
    node.hears("3").await;
    std::thread::sleep(Duration::from_secs(4));
    node.hears("99").await;
    other.join().unwrap();
    assert_eq!(node.inbox.heard.lock().len(), 100);
    node.is_told(&[Link::Up]).await;
}

#[tokio::test]
async fn a_node_goes_to_another_server_when_its_own_is_killed() {
    let Some([first, second]) = ServerConfig::new().start_cluster().await else { return };
    let (one, other) = (first.address().to_string(), second.address().to_string());
    let stays = Node::start(1, NatsConfig::new(&other)).await;
    let moves = Node::start(2, NatsConfig::new(one).server(other)).await;
    stays.topic("room:1", "across");
    moves.hears("across").await;
    assert_eq!(stays.nats.reach(moves.id, "to one".into()).await, Reached::Someone);
    // It is with either of them.
    drop(first);
    moves.nats.reconnect();
    until("it to be up", || {
        let links = moves.inbox.links.lock();
        links.len() > 1 && links.last() == Some(&Link::Up)
    })
    .await;
    stays.topic("room:1", "on one server");
    moves.hears("on one server").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_keep_up_gives_up_the_connection() {
    let Some(server) = ServerConfig::new().start().await else { return };
    let config = NatsConfig::new(server.address().to_string());
    let [slow, other] = [Node::start(1, config.clone()).await, Node::start(2, config).await];
    // By bytes, and by messages.
    for (size, count) in [(64 << 10, 100), (8, 1000)] {
        slow.inbox.links.lock().clear();
        *slow.inbox.delay.lock() = 20 * MS;
        let deadline = Instant::now() + Duration::from_secs(60);
        while !slow.inbox.links.lock().contains(&Link::Down) {
            assert!(Instant::now() < deadline, "it keeps up");
            for _ in 0..count {
                other.topic("room:1", vec![0; size]);
            }
            other.nats.flush().await;
        }
        *slow.inbox.delay.lock() = Duration::ZERO;
        slow.is_told(&[Link::Down, Link::Up]).await;
        other.topic("room:1", format!("end {size}"));
        slow.hears(format!("end {size}")).await;
    }
    other.is_told(&[Link::Up]).await;
}

#[tokio::test]
async fn nothing_is_left_of_connections_that_were_lost() {
    let Some(server) = ServerConfig::new().start().await else { return };
    let proxy = Proxy::new(server.address()).await;
    let alive = || Handle::current().metrics().num_alive_tasks();
    let node = Node::start(1, NatsConfig::new(proxy.address().to_string())).await;
    let before = alive();
    let mut links = vec![Link::Up];
    for _ in 0..10 {
        proxy.interrupt();
        links.extend([Link::Down, Link::Up]);
        node.is_told(&links).await;
    }
    until("the tasks of the old ones to end", || alive() <= before).await;

    // Also if the server is away when the adapter is dropped.
    proxy.cut();
    node.is_told(&[&links[..], &[Link::Down]].concat()).await;
    drop(node);
    until("all of its tasks to end", || alive() < before - 2).await;
}

#[tokio::test]
async fn frames_sent_at_full_speed_arrive_in_order_through_many_outages() {
    let Some(server) = ServerConfig::new().start().await else { return };
    let proxy = Proxy::new(server.address()).await;
    let sender = Node::start(1, NatsConfig::new(proxy.address().to_string())).await;
    let receiver = Node::start(2, NatsConfig::new(server.address().to_string())).await;
    let mut count = 0_u64;
    for _ in 0..20 {
        for _ in 0..300 {
            let frame = bytes::Bytes::copy_from_slice(&count.to_be_bytes());
            if sender.nats.publish(Channel::Topic("room:1"), frame).is_ok() {
                count += 1;
            }
        }
        proxy.interrupt();
        tokio::time::sleep(10 * MS).await;
    }
    sender.nats.flush().await;
    sender.topic("room:1", "end");
    receiver.hears("end").await;
    let heard = receiver.inbox.heard.lock().clone();
    let numbers: Vec<_> = heard
        .iter()
        .filter_map(|frame| frame[..].try_into().ok().map(u64::from_be_bytes))
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "repeated, or in another order");
    let lost = sender.inbox.lost.lock().len();
    assert!(numbers.len() + lost >= count as usize, "{} + {lost} of {count}", numbers.len());
}
