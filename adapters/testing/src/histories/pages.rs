//! What is read.

use bytes::Bytes;
use tokio::task::yield_now;
use tower_channels::adapter::{Kept, Since};
use tower_channels::history::Position;

use super::node::{NAMES, Node, assert_chained, longest_name, numbered, texts};
use super::{Harness, World};

/// Keeps ten messages among those of another topic. Returns their positions.
async fn ten(node: &Node) -> Vec<Position> {
    let mut positions = Vec::new();
    for text in numbered("", 10) {
        node.keep("other", "x").await;
        positions.push(node.keep("t", text).await);
    }
    positions
}

pub async fn a_page_has_what_follows_a_position<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let head = node.newest("t").await.last;
    let positions = ten(&node).await;
    let all = node.newest("t").await.messages;
    assert_eq!(all.iter().map(|kept| kept.position).collect::<Vec<_>>(), positions);
    for (count, after) in [head].iter().chain(&positions).enumerate() {
        for limit in [1, 3, 100] {
            let page = node.read("t", Since::After(*after), limit).await;
            assert_eq!(page.messages[..], all[count..(count + limit).min(10)]);
            assert!(page.is_complete, "after {after}");
            assert_eq!(page.last, positions[9]);
        }
    }
}

pub async fn a_page_has_what_precedes_a_position<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let positions = ten(&node).await;
    let all = node.newest("t").await.messages;
    for (count, before) in positions.iter().enumerate() {
        for limit in [1, 3, 100] {
            let page = node.read("t", Since::Before(*before), limit).await;
            assert_eq!(page.messages[..], all[count.saturating_sub(limit)..count]);
            assert!(page.is_complete, "before {before}");
            assert_eq!(page.last, positions[9]);
        }
    }
}

pub async fn the_newest_page_ends_with_the_last_message<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let positions = ten(&node).await;
    for limit in [0, 1, 3, 10, 100] {
        let page = node.read("t", Since::Newest, limit).await;
        let expected = numbered("", 10);
        assert_eq!(texts(&page.messages), expected[10_usize.saturating_sub(limit)..]);
        assert!(page.is_complete);
        assert_eq!(page.last, positions[9]);
    }
}

pub async fn a_topic_without_messages_has_a_position<H: Harness>(world: World<H>) {
    let node = world.node().await;
    node.keep("other", "x").await;
    let page = node.newest("t").await;
    assert_eq!((page.messages.len(), page.is_complete), (0, true));
    let head = page.last;
    let nothing = node.after("t", head).await;
    assert_eq!((nothing.messages.len(), nothing.is_complete), (0, true));
    node.keep("other", "x").await;
    node.keep("t", "1").await;
    node.keep("t", "2").await;
    let page = node.after("t", head).await;
    assert_eq!(texts(&page.messages), ["1", "2"]);
    assert!(page.is_complete);
}

pub async fn positions_that_never_were_are_a_gap<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let last = *ten(&node).await.last().expect("ten");
    let other_epoch = Position { epoch: last.epoch ^ 1, ..last };
    let first_of_another = Position { number: 0, ..other_epoch };
    let beyond = Position { number: last.number + 1000, ..last };
    let largest = Position { number: u64::MAX, ..last };
    for topic in ["t", "none"] {
        for position in [other_epoch, first_of_another, beyond, largest] {
            let page = node.after(topic, position).await;
            assert!(!page.is_complete, "{position} on {topic}");
            assert_ne!(page.last, position);
        }
    }
}

pub async fn topics_do_not_meet_whatever_their_names<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let longest = longest_name();
    let names = NAMES.into_iter().chain([&*longest]);
    for name in names.clone() {
        node.keep(name, name.to_owned()).await;
    }
    for name in names {
        assert_eq!(texts(&node.newest(name).await.messages), [name]);
        assert_eq!(texts(&node.hears(name, 1).await), [name]);
    }
}

pub async fn contents_of_any_bytes_up_to_256_kib_are_kept_unchanged<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let contents = [0, 1, 255, 256, 5000, 65_536, 256 << 10].map(|length| {
        let bytes =
            (0..length).map(|at: usize| u8::try_from((at ^ (at >> 8)) & 0xff).expect("8 bits"));
        Bytes::from_iter(bytes)
    });
    for content in &contents {
        node.keep("t", content.clone()).await;
    }
    let is_unchanged = |messages: &[Kept]| {
        messages.len() == contents.len()
            && messages.iter().zip(&contents).all(|(kept, content)| kept.content == *content)
    };
    assert!(is_unchanged(&node.hears("t", contents.len()).await), "as they are handed over");
    assert!(is_unchanged(&node.newest("t").await.messages), "as they are read");
}

pub async fn pages_read_while_messages_come_have_no_holes<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let head = node.newest("t").await.last;
    let expected = numbered("", 500);
    let mut read: Vec<Kept> = Vec::new();
    for (number, text) in expected.iter().enumerate() {
        node.append("t", text.clone());
        yield_now().await;
        // Some pages have a message, most have several.
        if number % 5 > 0 {
            continue;
        }
        let after = read.last().map_or(head, |kept| kept.position);
        let page = node.read("t", Since::After(after), 100).await;
        assert!(page.is_complete);
        read.extend(page.messages);
    }
    node.hears("t", 500).await;
    let after = read.last().map_or(head, |kept| kept.position);
    read.extend(node.after("t", after).await.messages);
    assert_eq!(texts(&read), expected);
    assert_chained(&read);
}
