//! What arrives, where, and in which order.

use bytes::Bytes;
use tokio::task::yield_now;
use tower_channels::adapter::{Channel, Link, NodeId, Reached};

use super::node::{Node, eventually, numbered};
use super::{Harness, Settings, World};

/// Asserts that a node has heard these frames, if the engine keeps the order in this one.
fn assert_order(node: &Node, prefix: &str, frames: &[String]) {
    let heard = node.heard();
    let mut heard = heard.starting_with(prefix);
    let mut frames: Vec<_> = frames.iter().map(String::as_str).collect();
    if !node.adapter.limits().is_ordered {
        heard.sort_unstable();
        frames.sort_unstable();
    }
    assert_eq!(heard, frames);
}

pub async fn frames_to_all_arrive_in_order_at_every_node<H: Harness>(world: World<H>) {
    let nodes = world.nodes::<3>().await;
    let frames = ["a", "b"].map(|sender| numbered(sender, 500));
    for (number, (of_a, of_b)) in frames[0].iter().zip(&frames[1]).enumerate() {
        nodes[0].all(of_a.clone());
        nodes[1].all(of_b.clone());
        if number % 50 == 0 {
            yield_now().await;
        }
    }
    for node in &nodes {
        node.until("all frames", |heard| heard.frames.len() >= 1000).await;
        assert_order(node, "a", &frames[0]);
        assert_order(node, "b", &frames[1]);
    }
}

pub async fn frames_to_topics_arrive_in_order_across_topics<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    let frames = numbered("a", 500);
    for (number, frame) in frames.iter().enumerate() {
        a.topic(&format!("room:{}", number % 7), frame.clone());
        if number % 50 == 0 {
            yield_now().await;
        }
    }
    for node in [&a, &b] {
        node.until("all frames", |heard| heard.frames.len() >= 500).await;
        assert_order(node, "a", &frames);
    }
}

pub async fn frames_of_eight_nodes_arrive_once<H: Harness>(world: World<H>) {
    let nodes = world.nodes::<8>().await;
    for number in 0..50 {
        for (sender, node) in nodes.iter().enumerate() {
            node.all(format!("all {sender} {number}"));
            node.topic(&format!("room:{number}"), format!("topic {sender} {number}"));
        }
        yield_now().await;
    }
    for node in &nodes {
        node.until("all frames", |heard| heard.frames.len() >= 800).await;
    }
    nodes[0].all("end");
    nodes[0].topic("room:1", "end");
    for node in &nodes {
        node.until("the end", |heard| heard.count(b"end") == 2).await;
        let heard = node.heard();
        let mut frames = heard.frames.clone();
        frames.sort_unstable();
        frames.dedup();
        assert_eq!((heard.frames.len(), frames.len()), (802, 801));
        // A frame may be lost as well, in the eyes of a sender whose server was slow to confirm it.
        assert_eq!(heard.links, [Link::Up]);
    }
}

pub async fn frames_of_any_size_and_content_arrive_unchanged<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    let largest = a.adapter.limits().max_frame.min(1 << 20);
    for size in [1, 1000, 65_536, largest] {
        let frame: Bytes = (0..size).map(|byte| (byte * 7) as u8).collect();
        a.all(frame.clone());
        a.topic("room:1", frame.clone());
        assert_eq!(a.reach(b.id, frame.clone()).await, Reached::Someone);
        b.until(&format!("{size} bytes"), |heard| heard.count(&frame) == 3).await;
    }
}

pub async fn reach_reaches_one_node_alone<H: Harness>(world: World<H>) {
    let [a, b, c] = world.nodes().await;
    assert_eq!(a.reach(b.id, "to b").await, Reached::Someone);
    assert_eq!(a.reach(a.id, "to a").await, Reached::Someone);
    b.hears("to b").await;
    a.hears("to a").await;
    a.all("end");
    for node in [&a, &b, &c] {
        node.hears("end").await;
    }
    assert_eq!(a.heard().starting_with("to"), ["to a"]);
    assert_eq!(b.heard().starting_with("to"), ["to b"]);
    assert!(c.heard().starting_with("to").is_empty());
}

pub async fn reach_knows_that_there_is_nobody<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    assert_eq!(a.reach(NodeId(7), "hello").await, Reached::Nobody);
    let id = b.id;
    assert_eq!(a.reach(id, "hello").await, Reached::Someone);
    drop(b);
    let is_gone = async || a.reach(id, "hello").await == Reached::Nobody;
    eventually("the dropped node to be gone", is_gone).await;
}

pub async fn nodes_of_two_applications_do_not_hear_each_other<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    // A name that begins like the other one.
    let other = world.node_with(Settings { app: "contract2", ..Settings::default() }).await;
    other.all("other");
    other.topic("room:1", "other");
    assert_eq!(other.reach(b.id, "other").await, Reached::Nobody);
    other.until("its own", |heard| heard.count(b"other") == 2).await;
    // The engine has seen them before these.
    a.all("end");
    a.topic("room:1", "end");
    b.until("the end", |heard| heard.count(b"end") == 2).await;
    assert_eq!(b.heard().frames.len(), 2);
    other.publish(Channel::All, "end of other").expect("room in the queue");
    other.hears("end of other").await;
    assert_eq!(other.heard().frames.len(), 3);
}
