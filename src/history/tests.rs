pub(crate) mod fake;
mod shared;

use std::sync::Mutex as StdMutex;
use std::task::Waker;
use std::thread;

use bytes::Bytes;
use serde_json::json;
use smol_str::SmolStr;
use tokio::time::Instant;
use tower_channels_transports::{Memory, outbox};

use self::fake::{Fake, Mood};
use super::*;
use crate::cluster::ClusterConfig;
use crate::payload::Payload;
use crate::responder::{Positions, Responder};
use crate::serializer::Version;
use crate::topics::broadcast::Broadcast;
use crate::topics::subscriber::{Inbox, Subscriber, Undelivered};

/// Hears a topic, and remembers the numbers and payloads.
#[derive(Default)]
struct Ear(StdMutex<Vec<(u64, String)>>);

impl Inbox for Ear {
    fn deliver(&self, broadcast: &Arc<Broadcast>) -> Result<Option<Waker>, Undelivered> {
        let number = broadcast.position().map_or(0, |position| position.number);
        let payload = broadcast.payload().as_json().unwrap_or_default().to_owned();
        self.0.lock().expect("no panic").push((number, payload));
        Ok(None)
    }
}

impl Ear {
    fn payloads(&self) -> Vec<String> {
        self.0.lock().expect("no panic").iter().map(|(_, payload)| payload.clone()).collect()
    }

    fn numbers(&self) -> Vec<u64> {
        self.0.lock().expect("no panic").iter().map(|(number, _)| *number).collect()
    }
}

struct Node {
    histories: Arc<Histories>,
    topics: Topics,
    memory: Memory,
}

fn node(history: History, store: Option<Fake>) -> Node {
    node_of(history, store, false)
}

/// Creates a node, which shares the store with others or not.
fn node_of(history: History, store: Option<Fake>, is_shared: bool) -> Node {
    let memory = Memory::new(1 << 30);
    let topics = Topics::new(&memory);
    topics.allow_outbox(1 << 20);
    let store = store.map(|store| Arc::new(store) as Arc<dyn HistoryStore>);
    let policies = vec![("log:*".to_owned(), history)];
    let gaps = is_shared.then(|| Gaps::new(topics.clone(), &ClusterConfig::new()));
    let histories = Histories::start(policies, 64 << 20, store, gaps, &topics);
    Node { histories, topics, memory }
}

fn message(topic: &str, number: u64) -> Broadcast {
    Broadcast::new(topic.into(), "new_msg".into(), Payload::from(json!(number)))
}

fn payloads(messages: &[Arc<Broadcast>]) -> Vec<String> {
    messages.iter().filter_map(|it| it.payload().as_json()).map(str::to_owned).collect()
}

fn texts(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

impl Node {
    fn listen(&self, topic: &str) -> (Arc<Ear>, crate::topics::Membership) {
        let ear = Arc::new(Ear::default());
        let topic = SmolStr::from(topic);
        let membership = self.topics.add_inbox(&topic, Arc::clone(&ear) as Arc<dyn Inbox>);
        (ear, membership)
    }

    fn broadcast(&self, topic: &str, number: u64, from: Option<&Arc<dyn Inbox>>) {
        let sent = self.histories.broadcast(message(topic, number), from);
        assert!(sent.is_none(), "the topic has a history");
    }

    async fn publish(&self, number: u64) -> Result<Position, PublishError> {
        self.histories.publish(message("log:1", number)).await
    }

    /// Publishes 0, 1, .. and returns the positions.
    async fn fill(&self, messages: u64) -> Vec<Position> {
        let mut positions = Vec::new();
        for number in 0..messages {
            positions.push(self.publish(number).await.expect("it is kept"));
        }
        positions
    }

    /// What is missed after a position, with whether it is all.
    async fn recover(&self, after: Position) -> (Vec<String>, bool) {
        let recovery = self.histories.recover("log:1", after).await;
        (payloads(&recovery.messages), recovery.is_complete)
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_away_receives_what_was_published_since_in_memory_and_from_a_store() {
    for store in [None, Some(Fake::new())] {
        let node = node(History::last(10), store);
        let start = node.histories.head("log:1").await.expect("it answers");
        assert_eq!(node.recover(start).await, (vec![], true));
        let positions = node.fill(5).await;
        assert_eq!(node.recover(start).await, (texts(0..5), true));
        assert_eq!(node.recover(positions[2]).await, (texts(3..5), true));
        let recovery = node.histories.recover("log:1", positions[1]).await;
        let found = recovery.messages.iter().map(|it| it.position());
        assert!(found.eq(positions[2..].iter().map(|it| Some(*it))));
        assert_eq!(recovery.last, Some(positions[4]));
        assert_eq!(node.histories.head("log:1").await, Some(positions[4]));
        let other = Position { epoch: start.epoch ^ 1, ..positions[1] };
        assert_eq!(node.recover(other).await, (vec![], false), "of another epoch");
        let future = Position { number: u64::MAX, ..start };
        assert_eq!(node.recover(future).await, (vec![], false));
        // Others are not harmed by such questions.
        assert_eq!(node.recover(positions[0]).await, (texts(1..5), true));
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_away_for_too_long_has_a_gap() {
    let node = node(History::last(3), None);
    let positions = node.fill(5).await;
    assert_eq!(node.recover(positions[0]).await, (vec![], false));
    assert_eq!(node.recover(positions[1]).await, (texts(2..5), true));
    let recovery = node.histories.recover("log:1", positions[0]).await;
    assert_eq!(recovery.last, Some(positions[4]));
}

#[tokio::test(start_paused = true)]
async fn of_a_thousand_clients_that_return_to_one_room_one_asks_the_store() {
    let store = Fake::new();
    let node = node(History::last(1000), Some(store.clone()));
    let positions = node.fill(100).await;
    let clients = (0..1000).map(|client| {
        let (histories, position) = (Arc::clone(&node.histories), positions[client % 90]);
        tokio::spawn(async move { histories.recover("log:1", position).await })
    });
    let clients = clients.collect::<Vec<_>>();
    let mut first = Vec::new();
    for (client, task) in clients.into_iter().enumerate() {
        let recovery = task.await.expect("no panic");
        assert!(recovery.is_complete);
        assert_eq!(payloads(&recovery.messages), texts(client as u64 % 90 + 1..100));
        // They share the messages, and what these are encoded to.
        first.push(Arc::as_ptr(&recovery.messages[9]).addr());
        first.dedup();
    }
    assert_eq!(store.reads(), 1);
    // Also those who come a little later, and with what was published meanwhile.
    node.publish(100).await.expect("it is kept");
    assert_eq!(node.recover(positions[3]).await, (texts(4..101), true));
    assert_eq!((store.reads(), node.histories.head("log:1").await.is_some()), (1, true));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(node.recover(positions[3]).await, (texts(4..101), true));
    assert_eq!(store.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn many_who_join_at_once_ask_the_store_once_where_the_topic_ends() {
    let store = Fake::new();
    let node = node(History::last(10), Some(store.clone()));
    let positions = node.fill(3).await;
    let clients = (0..100).map(|_| {
        let histories = Arc::clone(&node.histories);
        tokio::spawn(async move { histories.head("log:1").await })
    });
    for task in clients.collect::<Vec<_>>() {
        assert_eq!(task.await.expect("no panic"), Some(positions[2]));
    }
    assert_eq!(store.reads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_store_keeps_nobody_waiting_for_longer_than_two_seconds() {
    let store = Fake::new();
    let node = node(History::last(10), Some(store.clone()));
    let positions = node.fill(3).await;
    store.set(Mood::Silent);
    let began = Instant::now();
    let published = tokio::spawn({
        let histories = Arc::clone(&node.histories);
        async move { histories.publish(message("log:1", 3)).await }
    });
    let clients = (0..100).map(|_| {
        let (histories, position) = (Arc::clone(&node.histories), positions[0]);
        tokio::spawn(async move { histories.recover("log:1", position).await })
    });
    for task in clients.collect::<Vec<_>>() {
        let recovery = task.await.expect("no panic");
        assert!(recovery.messages.is_empty() && !recovery.is_complete);
        assert_eq!(recovery.last, None);
    }
    assert_eq!(published.await.expect("no panic"), Err(PublishError::Unavailable));
    assert_eq!(began.elapsed().as_secs(), 2);
    assert!(store.reads() <= 2, "{}", store.reads());
    store.set(Mood::Works);
    assert_eq!(node.recover(positions[0]).await, (texts(1..3), true));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_fails_for_all_who_wait_for_it() {
    let store = Fake::new();
    let node = node(History::last(10), Some(store.clone()));
    let positions = node.fill(3).await;
    store.set(Mood::Fails);
    let clients = (0..100).map(|_| {
        let (histories, position) = (Arc::clone(&node.histories), positions[0]);
        tokio::spawn(async move { histories.recover("log:1", position).await })
    });
    for task in clients.collect::<Vec<_>>() {
        assert_eq!(task.await.expect("no panic").last, None);
    }
    assert_eq!(store.reads(), 1);
    store.set(Mood::Works);
    assert_eq!(node.recover(positions[0]).await, (texts(1..3), true));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_kept_reaches_nobody_and_what_is_kept_late_everybody() {
    let store = Fake::new();
    let node = node(History::last(10), Some(store.clone()));
    let (ear, _membership) = node.listen("log:1");
    for mood in [Mood::Fails, Mood::Full] {
        store.set(mood);
        assert_eq!(node.publish(1).await, Err(PublishError::Unavailable), "{mood:?}");
        node.broadcast("log:1", 2, None);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(ear.payloads().is_empty());
    store.set(Mood::Works);
    store.delay(Duration::from_secs(3));
    let began = Instant::now();
    assert_eq!(node.publish(3).await, Err(PublishError::Unavailable));
    assert_eq!((began.elapsed().as_secs(), ear.payloads().len()), (2, 0));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(ear.payloads(), ["3"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_decides_the_order_and_nothing_is_delivered_before_it_is_kept() {
    let store = Fake::new();
    let node = node(History::last(100), Some(store.clone()));
    let (one, _here) = node.listen("log:1");
    let (two, _there) = node.listen("log:1");
    let from: Arc<dyn Inbox> = Arc::clone(&one) as _;
    for number in 0..20 {
        node.broadcast("log:1", number, (number % 2 == 0).then_some(&from));
    }
    assert!(one.payloads().is_empty() && two.payloads().is_empty());
    let last = node.publish(20).await.expect("it is kept");
    tokio::task::yield_now().await;
    // The channel that has sent it is left out, also on its way through the store.
    let odd = (0..20).filter(|number| number % 2 == 1).chain([20]);
    assert_eq!((one.payloads(), two.payloads()), (texts(odd), texts(0..21)));
    assert_eq!(two.numbers(), (last.number - 20..=last.number).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_read_is_a_gap_for_those_before_it() {
    let store = Fake::new();
    let node = node(History::last(100), Some(store.clone()));
    let positions = node.fill(2).await;
    let bad = store.insert("log:1", Bytes::from_static(b"\xff\xff"));
    node.publish(2).await.expect("it is kept");
    assert_eq!(node.recover(positions[0]).await, (vec![], false));
    assert_eq!(node.recover(bad).await, (texts(2..3), true));
    let page = node.histories.page("log:1", Since::Newest, 10).await.expect("a page");
    assert_eq!(payloads(&page.messages), texts(0..3));
}

#[tokio::test(start_paused = true)]
async fn who_has_missed_more_than_may_wait_for_a_client_has_a_gap() {
    let node = node(History::last(100).max_bytes(10 << 20), None);
    let text = "x".repeat(100_000);
    let mut positions = Vec::new();
    for _ in 0..20 {
        let broadcast = Broadcast::new("log:1".into(), "e".into(), Payload::from(&*text));
        positions.push(node.histories.publish(broadcast).await.expect("it is kept"));
    }
    assert_eq!(node.recover(positions[0]).await, (vec![], false));
    assert_eq!(node.recover(positions[2]).await, (vec![], false));
    let (messages, is_complete) = node.recover(positions[13]).await;
    assert!(is_complete && messages.len() == 6);
    assert_eq!(node.recover(positions[5]).await, (vec![], false));
}

#[tokio::test(start_paused = true)]
async fn of_more_than_ten_thousand_messages_the_newest_can_be_had() {
    let store = Fake::new();
    let node = node(History::last(20_000), Some(store.clone()));
    node.topics.allow_outbox(1 << 30);
    let content = entry::encode("e", &Payload::EMPTY, None);
    let positions = (0..10_010).map(|_| store.insert("log:1", content.clone()));
    let positions = positions.collect::<Vec<_>>();
    assert_eq!(node.recover(positions[0]).await, (vec![], false));
    let (messages, is_complete) = node.recover(positions[9]).await;
    assert!(is_complete && messages.len() == 10_000);
    assert_eq!(store.reads(), 2);
}

#[test]
fn positions_have_the_order_in_which_everybody_is_reached() {
    let node = node(History::last(10_000), None);
    let ears = [node.listen("log:1"), node.listen("log:1"), node.listen("log:2")];
    thread::scope(|scope| {
        for sender in 0..4 {
            let node = &node;
            scope.spawn(move || {
                for number in 0..200 {
                    node.broadcast(["log:1", "log:2"][number as usize % 2], sender, None);
                }
            });
        }
    });
    let [one, two, other] = ears.each_ref().map(|(ear, _)| ear.numbers());
    assert!(one.is_sorted_by(|a, b| a < b) && other.is_sorted_by(|a, b| a < b));
    assert_eq!((one.len(), other.len()), (400, 400));
    assert_eq!(one, two);
}

#[tokio::test]
async fn a_message_of_more_than_256_kib_is_refused_and_reaches_nobody() {
    let node = node(History::last(10), None);
    let (ear, _membership) = node.listen("log:1");
    let broadcast = |size| {
        Broadcast::new("log:1".into(), "e".into(), Payload::from_json_text(&"1".repeat(size)))
    };
    let refused = node.histories.publish(broadcast((256 << 10) + 1)).await;
    assert_eq!(refused, Err(PublishError::TooLarge));
    assert!(node.histories.broadcast(broadcast((256 << 10) + 1), None).is_none());
    assert!(ear.payloads().is_empty());
    assert!(node.histories.publish(broadcast(256 << 10)).await.is_ok());
    assert_eq!(ear.payloads().len(), 1);
}

#[tokio::test]
async fn what_is_kept_is_reserved_and_released() {
    let node = node(History::last(10).within(Duration::from_secs(1)), None);
    for topic in 0..100 {
        let topic = format!("log:{topic}");
        for number in 0..10 {
            node.broadcast(&topic, number, None);
        }
    }
    let reserved = node.memory.reserved();
    assert!(reserved > 1000 * 50, "{reserved}");
    drop(node.histories);
    assert_eq!(node.memory.reserved(), 0);
}

#[test]
fn a_delivery_on_a_topic_with_a_history_allocates_what_it_does_without() {
    let node = node(History::last(1000), None);
    let measure = |topic: &str, subscribers: usize| {
        let topic = SmolStr::from(topic);
        let members = (0..subscribers).map(|_| {
            let (outbox, receiver) = outbox::channel(usize::MAX);
            let client = Responder {
                outbox,
                version: Version::V2,
                resumable: false,
                positions: Positions::Unwanted,
            };
            let inbox: Arc<dyn Inbox> = Arc::new(Ear::default());
            let subscriber = Subscriber::new(client, inbox, &[]);
            (receiver, node.topics.subscribe(&topic, subscriber, |_| ()))
        });
        let members = members.collect::<Vec<_>>();
        let send = || match node.histories.broadcast(message(&topic, 1), None) {
            None => {}
            Some(broadcast) => node.topics.broadcast(broadcast, None),
        };
        // The first of each topic makes its place, and the queues theirs.
        (0..3).for_each(|_| send());
        let used = allocation_counter::measure(send);
        drop(members);
        used.count_total
    };
    let (plain, kept) = (["a", "b"].map(|it| format!("room:{it}")), ["log:a", "log:b"]);
    let more = |topics: [&str; 2]| measure(topics[1], 200) - measure(topics[0], 100);
    assert_eq!(more(kept), more(plain.each_ref().map(String::as_str)));
}
