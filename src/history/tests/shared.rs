//! A store that several nodes share.

use super::*;

const MS: Duration = Duration::from_millis(1);

async fn shared(store: &Fake) -> Node {
    node_of(History::last(1000), Some(store.clone()), true)
}

async fn hear(node: &Node, topic: &str) {
    if let Some(heard) = node.histories.hear(topic) {
        heard.await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_heard_is_delivered_from_then_on_and_its_head_is_known() {
    let store = Fake::new();
    let node = shared(&store).await;
    node.publish(0).await.expect("it is kept");
    hear(&node, "log:1").await;
    assert_eq!(store.reads(), 1);
    assert!(node.histories.hear("log:1").is_none());
    let (ear, _membership) = node.listen("log:1");
    let head = node.histories.head("log:1").await.expect("it is known");
    let position = node.publish(1).await.expect("it is kept");
    tokio::time::sleep(20 * MS).await;
    assert_eq!((ear.payloads(), store.reads()), (texts(1..2), 1));
    assert!(head.number < position.number);
    assert_eq!(node.histories.last("log:1"), Some(position));
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_read_when_the_next_message_comes_or_after_an_interruption() {
    let store = Fake::new();
    let node = shared(&store).await;
    hear(&node, "log:1").await;
    let (ear, _membership) = node.listen("log:1");
    for round in 0..2_u64 {
        store.cut(true);
        node.publish(3 * round).await.expect("it is kept");
        node.publish(3 * round + 1).await.expect("it is kept");
        tokio::time::sleep(20 * MS).await;
        assert_eq!(ear.payloads(), texts(0..3 * round), "nothing is handed over");
        store.cut(false);
        node.publish(3 * round + 2).await.expect("it is kept");
        tokio::time::sleep(100 * MS).await;
        assert_eq!(ear.payloads(), texts(0..3 * round + 3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_that_was_missed_still_leaves_out_its_sender() {
    let store = Fake::new();
    let node = shared(&store).await;
    hear(&node, "log:1").await;
    let (ear, _membership) = node.listen("log:1");
    let (other, _other) = node.listen("log:1");
    store.cut(true);
    node.broadcast("log:1", 0, Some(&(Arc::clone(&ear) as Arc<dyn Inbox>)));
    tokio::time::sleep(20 * MS).await;
    store.cut(false);
    tokio::time::sleep(100 * MS).await;
    assert_eq!((ear.payloads(), other.payloads()), (texts(0..0), texts(0..1)));
}

#[tokio::test(start_paused = true)]
async fn of_a_thousand_clients_that_return_to_a_room_of_all_nodes_one_asks_the_store() {
    let store = Fake::new();
    let node = shared(&store).await;
    let positions = node.fill(100).await;
    let clients = (0..1000).map(|client| {
        let (histories, position) = (Arc::clone(&node.histories), positions[client % 90]);
        tokio::spawn(async move {
            histories.hear("log:1").expect("it is not heard yet").await;
            histories.recover("log:1", position).await
        })
    });
    for (client, task) in clients.collect::<Vec<_>>().into_iter().enumerate() {
        let recovery = task.await.expect("no panic");
        assert!(recovery.is_complete);
        assert_eq!(payloads(&recovery.messages), texts(client as u64 % 90 + 1..100));
    }
    // Where the topic ends, and what they have missed.
    assert_eq!(store.reads(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_topics_are_caught_up_after_an_interruption_32_at_a_time() {
    let store = Fake::new();
    let node = shared(&store).await;
    let mut ears = Vec::new();
    for number in 0..1000 {
        let topic = format!("log:{number}");
        hear(&node, &topic).await;
        ears.push((node.listen(&topic), topic));
    }
    store.most_reads();
    store.cut(true);
    store.delay(Duration::ZERO);
    for (number, (_, topic)) in ears.iter().enumerate() {
        node.broadcast(topic, number as u64, None);
    }
    tokio::time::sleep(100 * MS).await;
    let reads = store.reads();
    store.delay(10 * MS);
    let began = Instant::now();
    store.cut(false);
    let is_caught_up = || ears.iter().all(|((ear, _), _)| ear.payloads().len() == 1);
    while !is_caught_up() {
        tokio::time::sleep(MS).await;
    }
    assert_eq!((store.reads() - reads, store.most_reads()), (1000, 32));
    // 32 rounds of 10 ms.
    assert!(began.elapsed() < 330 * MS, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_keeps_a_join_waiting_for_a_second() {
    let store = Fake::new();
    store.set(Mood::Silent);
    let node = shared(&store).await;
    let began = Instant::now();
    hear(&node, "log:1").await;
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert!(node.histories.hear("log:1").is_some(), "it is not heard yet");
    store.set(Mood::Works);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(node.histories.hear("log:1").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_topic_without_subscribers_is_heard_for_a_while_and_then_not() {
    let store = Fake::new();
    let node = shared(&store).await;
    hear(&node, "log:1").await;
    let (_ear, membership) = node.listen("log:1");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(node.histories.hear("log:1").is_none());
    drop(membership);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(node.histories.hear("log:1").is_some());
}
