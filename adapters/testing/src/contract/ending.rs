//! The end of an adapter.

use tower_channels::adapter::Link;

use super::node::{eventually, numbered};
use super::{Harness, World};

pub async fn what_was_flushed_arrives_although_its_node_is_gone<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    let frames = numbered("a", 500);
    for frame in &frames {
        a.all(frame.clone());
    }
    a.flush().await;
    drop(a);
    b.hears(&frames[499]).await;
    assert_eq!(b.heard().starting_with("a").len(), 500);
}

pub async fn a_dropped_adapter_leaves_nothing_behind<H: Harness>(world: World<H>) {
    let kept = world.node().await;
    let before = world.engine.connections().await;
    for is_connected in [true, false] {
        let node = world.node().await;
        assert!(world.engine.connections().await > before);
        node.all("hello");
        kept.hears("hello").await;
        if !is_connected {
            node.lose_link().await;
            node.all("waits");
        }
        let inbox = node.inbox();
        drop(node);
        eventually("the inbox to be dropped", async || inbox.strong_count() == 0).await;
        let is_gone = async || world.engine.connections().await == before;
        eventually("its connections to be closed", is_gone).await;
    }
    assert_eq!(kept.heard().links, [Link::Up]);
}
