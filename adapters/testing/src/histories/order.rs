//! In which order messages are kept and handed over.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;
use tokio::time::timeout;
use tower_channels::adapter::{Append, HistoryInbox, Kept, Since};
use tower_channels::history::Position;

use super::node::{Done, KEEP, Node, PATIENCE, assert_chained, kept, listen, numbered, texts};
use super::{Harness, World};

pub async fn messages_of_one_thread_are_kept_in_their_order<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let texts_of = ["a", "b", "c"].map(|topic| numbered(topic, 200));
    let mut waiting = Vec::new();
    for number in 0..200 {
        for (topic, texts) in ["a", "b", "c"].iter().zip(&texts_of) {
            waiting.push(node.append(topic, texts[number].clone()));
        }
        if number % 50 == 0 {
            yield_now().await;
        }
    }
    for done in waiting {
        kept(done).await;
    }
    for (topic, expected) in ["a", "b", "c"].iter().zip(&texts_of) {
        let heard = node.hears(topic, 200).await;
        assert_eq!(texts(&heard), *expected);
        assert_chained(&heard);
        assert_eq!(node.newest(topic).await.messages, heard);
    }
}

pub async fn messages_of_fifty_tasks_have_one_order<H: Harness>(world: World<H>) {
    let node = Arc::new(world.node().await);
    let head = node.newest("t").await.last;
    let tasks: Vec<_> = (0..50)
        .map(|task| {
            let node = node.clone();
            tokio::spawn(async move {
                let mut positions = Vec::new();
                for text in numbered(&format!("{task} "), 20) {
                    positions.push((node.keep("t", text.clone()).await, text));
                }
                positions
            })
        })
        .collect();
    let heard = node.hears("t", 1000).await;
    assert_chained(&heard);
    let page = node.after("t", head).await;
    assert!(page.is_complete);
    assert_eq!(page.messages, heard);
    assert_eq!(page.last, heard[999].position);
    for task in tasks {
        let positions = task.await.expect("no panic");
        // Each task has waited for each of its messages.
        assert!(positions.is_sorted_by_key(|(position, _)| position.number));
        for (position, text) in positions {
            let found = heard.iter().find(|kept| kept.position == position);
            assert_eq!(found.map(|kept| &kept.content[..]), Some(text.as_bytes()));
        }
    }
}

pub async fn a_thousand_messages_that_wait_are_all_kept<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let waiting: Vec<Done> = (0..1000)
        .map(|number| node.append(&format!("room:{}", number % 30), number.to_string()))
        .collect();
    for (number, done) in waiting.into_iter().enumerate() {
        let (topic, position) = (format!("room:{}", number % 30), kept(done).await);
        let just_before = Position { number: position.number - 1, ..position };
        let page = node.read(&topic, Since::After(just_before), 1).await;
        assert_eq!(texts(&page.messages), [number.to_string()]);
        assert_eq!(page.messages[0].position, position);
    }
    for topic in 0..30 {
        let topic = format!("room:{topic}");
        let expected = node.newest(&topic).await.messages;
        assert_eq!(node.hears(&topic, expected.len()).await, expected);
    }
}

pub async fn each_message_knows_the_one_before<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let head = node.newest("a").await.last;
    let first = node.keep("a", "1").await;
    node.keep("b", "other").await;
    let second = node.keep("a", "2").await;
    node.keep("b", "other").await;
    node.keep("a", "3").await;
    let page = node.newest("a").await;
    let heard = node.hears("a", 3).await;
    for messages in [&page.messages, &heard] {
        let previous: Vec<_> = messages.iter().map(|kept| kept.previous).collect();
        assert_eq!(previous[1..], [first.number, second.number]);
        // A store need not know that there is none before the first.
        assert!(previous[0] <= head.number, "{} after {head}", previous[0]);
    }
}

/// Looks at what those who wait have been told by the time a message is handed over.
#[derive(Default)]
struct Witness {
    waiting: Mutex<VecDeque<Done>>,
    untold: Mutex<Vec<Kept>>,
    all_came: Notify,
}

impl HistoryInbox for Witness {
    fn kept(&self, _: &str, message: Kept) {
        let mut waiting = self.waiting.lock().expect("not poisoned");
        let told = waiting.pop_front().map(|mut done| done.try_recv());
        if !matches!(told, Some(Ok(Ok(position))) if position == message.position) {
            self.untold.lock().expect("not poisoned").push(message);
        }
        if waiting.is_empty() {
            self.all_came.notify_one();
        }
    }
}

pub async fn a_message_is_handed_over_after_its_position_is_told<H: Harness>(world: World<H>) {
    let store = world.place.open().await;
    let witness = Arc::<Witness>::default();
    let (dones, told): (Vec<_>, VecDeque<_>) = (0..100).map(|_| oneshot::channel()).unzip();
    *witness.waiting.lock().expect("not poisoned") = told;
    store.start(witness.clone());
    listen(&*store).await;
    for done in dones {
        let content = "x".into();
        let message = Append { topic: "t".into(), content, keep: KEEP, done: Some(done) };
        store.append(message).expect("room in the queue");
    }
    timeout(PATIENCE, witness.all_came.notified()).await.expect("all messages");
    assert_eq!(*witness.untold.lock().expect("not poisoned"), []);
}

pub async fn a_message_that_is_handed_over_can_be_read<H: Harness>(world: World<H>) {
    let node = world.node().await;
    for number in 1..=50 {
        node.append("t", number.to_string());
        let heard = node.hears("t", number).await;
        let page = node.read("t", Since::Newest, 1).await;
        assert_eq!(page.messages.last(), heard.last());
        assert_eq!(texts(&page.messages), [number.to_string()]);
    }
}

pub async fn a_message_is_kept_although_nobody_waits<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let append = |node: &Node, content: &'static str, done| {
        let message = Append { topic: "t".into(), content: content.into(), keep: KEEP, done };
        node.store.append(message).expect("room in the queue");
    };
    append(&node, "nobody", None);
    let (done, told) = oneshot::channel();
    drop(told);
    append(&node, "gone", Some(done));
    let heard = node.hears("t", 2).await;
    assert_eq!(texts(&heard), ["nobody", "gone"]);
    assert_eq!(node.newest("t").await.messages, heard);
}
