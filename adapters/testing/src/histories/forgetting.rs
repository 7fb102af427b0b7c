//! What is forgotten, and how a reader learns of it.

use std::time::Duration;

use bytes::Bytes;
use tower_channels::adapter::{Keep, Kept, Since};
use tower_channels::history::Position;

use super::node::{KEEP, Node, eventually, numbered, texts};
use super::{Harness, World};

/// How many messages over a bound may still be there.
const SLACK: usize = 128;

/// Keeps 400 messages of 1000 bytes. Returns their positions.
async fn fill(node: &Node, keep: Keep) -> Vec<Position> {
    let mut waiting = Vec::new();
    for text in numbered("", 400) {
        waiting.push(node.append_for("t", format!("{text:>1000}"), keep));
    }
    let mut positions = Vec::new();
    for done in waiting {
        positions.push(super::node::kept(done).await);
    }
    positions
}

fn assert_newest(messages: &[Kept], positions: &[Position], at_least: usize) {
    assert!(messages.len() >= at_least, "{} messages", messages.len());
    assert!(messages.len() <= at_least + SLACK, "{} messages", messages.len());
    let found: Vec<_> = messages.iter().map(|kept| kept.position).collect();
    assert_eq!(found, positions[positions.len() - messages.len()..]);
}

pub async fn the_newest_messages_are_kept<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let positions = fill(&node, Keep { messages: 10, ..KEEP }).await;
    assert_newest(&node.newest("t").await.messages, &positions, 10);
    // Other topics have their own bound.
    for number in 0..50 {
        node.keep("other", number.to_string()).await;
    }
    assert_newest(&node.newest("t").await.messages, &positions, 10);
    assert_eq!(node.newest("other").await.messages.len(), 50);
}

pub async fn the_newest_bytes_are_kept<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let positions = fill(&node, Keep { bytes: 10_500, ..KEEP }).await;
    assert_newest(&node.newest("t").await.messages, &positions, 10);
}

pub async fn a_message_larger_than_the_bound_is_kept_until_the_next<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let keep = Keep { bytes: 100, ..KEEP };
    for length in [10, 1000, 2000] {
        let position = node.keep_for("t", Bytes::from(vec![7; length]), keep).await;
        let page = node.read("t", Since::Newest, 1).await;
        assert_eq!(page.messages.first().map(|kept| kept.position), Some(position));
        assert_eq!(page.messages[0].content.len(), length);
    }
}

pub async fn messages_are_kept_for_their_time<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let head = node.newest("brief").await.last;
    let brief = Keep { within: Duration::from_millis(100), ..KEEP };
    let stays = node.keep("stays", "there").await;
    let first = node.keep_for("brief", "1", brief).await;
    node.keep_for("brief", "2", brief).await;
    eventually("the messages to be too old", async || {
        node.newest("brief").await.messages.is_empty()
    })
    .await;
    for position in [head, first] {
        let page = node.after("brief", position).await;
        assert_eq!((page.messages.len(), page.is_complete), (0, false), "after {position}");
    }
    let last = node.newest("brief").await.last;
    assert!(last.number > first.number);
    let page = node.after("brief", last).await;
    assert_eq!((page.messages.len(), page.is_complete), (0, true));
    // A topic whose messages are forgotten goes on.
    let third = node.keep("brief", "3").await;
    assert!(third.number > last.number);
    let page = node.after("brief", last).await;
    assert_eq!((texts(&page.messages), page.is_complete), (vec!["3".to_owned()], true));
    assert!(!node.after("brief", first).await.is_complete);
    assert_eq!(node.newest("stays").await.messages[0].position, stays);
}

pub async fn what_was_forgotten_is_a_gap<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let head = node.newest("t").await.last;
    let positions = fill(&node, Keep { messages: 10, ..KEEP }).await;
    let page = node.newest("t").await;
    let forgotten = 400 - page.messages.len();
    for after in [head, positions[0], positions[forgotten - 2]] {
        let page = node.after("t", after).await;
        assert!(!page.is_complete, "after {after}");
        assert_eq!(page.last, positions[399]);
    }
    // All that was forgotten is known to whoever asks.
    for (count, after) in positions.iter().enumerate().skip(forgotten - 1) {
        let page = node.after("t", *after).await;
        assert!(page.is_complete, "after {after}");
        assert_eq!(page.messages.len(), 399 - count);
    }
    assert_eq!(page.messages[0].previous, positions[forgotten - 1].number);
    let before = Since::Before(page.messages[0].position);
    let page = node.read("t", before, 10).await;
    assert_eq!((page.messages.len(), page.is_complete), (0, false));
}
