//! The end of a store, and the next one.

use std::time::Duration;

use tokio::time::timeout;

use super::node::{assert_chained, eventually, kept, numbered, texts};
use super::{Harness, World};

pub async fn a_dropped_store_lets_go_of_its_inbox<H: Harness>(world: World<H>) {
    let node = world.node().await;
    node.append("t", "1");
    let inbox = node.inbox();
    drop(node);
    eventually("the inbox to be dropped", async || inbox.strong_count() == 0).await;
}

pub async fn a_store_that_is_opened_again_has_everything<H: Harness>(world: World<H>) {
    let mut expected = Vec::new();
    let mut positions = Vec::new();
    for round in 0..4 {
        let node = world.node().await;
        let page = node.newest("t").await;
        assert_eq!(texts(&page.messages), expected);
        let found: Vec<_> = page.messages.iter().map(|kept| kept.position).collect();
        assert_eq!(found, positions);
        assert_chained(&page.messages);
        for text in numbered(&format!("{round} "), 25) {
            positions.push(node.keep("t", text.clone()).await);
            expected.push(text);
            node.keep("other", "x").await;
        }
        // What was kept before is handed over by nobody any more.
        let heard = node.hears("t", 25).await;
        assert_eq!(texts(&heard), expected[round * 25..]);
        for (count, position) in positions.iter().enumerate() {
            let page = node.after("t", *position).await;
            assert!(page.is_complete, "after {position} of {count}, in round {round}");
            assert_eq!(page.messages.len(), expected.len() - count - 1);
        }
    }
}

pub async fn what_waits_when_the_store_is_dropped_is_kept<H: Harness>(world: World<H>) {
    let expected = numbered("", 500);
    let node = world.node().await;
    let waiting: Vec<_> = expected.iter().map(|text| node.append("t", text.clone())).collect();
    drop(node);
    let mut positions = Vec::new();
    for done in waiting {
        positions.push(kept(done).await);
    }
    let node = world.node().await;
    let page = node.newest("t").await;
    assert_eq!(texts(&page.messages), expected);
    let found: Vec<_> = page.messages.iter().map(|kept| kept.position).collect();
    assert_eq!(found, positions);
    let nothing = timeout(Duration::from_millis(50), node.hears("t", 1)).await;
    assert!(nothing.is_err(), "handed over twice");
}

pub async fn a_store_that_has_forgotten_everything_begins_another_epoch<H: Harness>(
    mut world: World<H>,
) {
    let node = world.node().await;
    let head = node.newest("t").await.last;
    let position = node.keep("t", "1").await;
    drop(node);
    world.place.forget().await;
    let node = world.node().await;
    assert!(node.newest("t").await.messages.is_empty());
    node.keep("t", "2").await;
    node.keep("t", "3").await;
    for position in [head, position] {
        let page = node.after("t", position).await;
        assert_ne!(page.last.epoch, position.epoch);
        assert!(!page.is_complete, "after {position}");
    }
}
