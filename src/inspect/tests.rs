use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use tower_channels_transports::{Message, Transport, outbox};

use super::*;
use crate::channel::Result;
use crate::socket_info::SocketInfo;
use crate::test::{Client, connect};
use crate::{Channel, Endpoint, Joined, Payload, Socket};

struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }
}

fn endpoint() -> Endpoint<()> {
    Endpoint::builder(|_| async { Ok(()) })
        .id(|()| Some("user:7".into()))
        .channel::<Room>("room:*")
        .build()
}

async fn client(endpoint: &Endpoint<()>) -> Client<()> {
    connect(endpoint, &[("session", "12345678901234567890")]).await.expect("accepted")
}

/// All pages, and the most items of one.
fn all<T>(page: impl Fn(Cursor) -> Page<T>) -> (Vec<T>, usize) {
    let (mut items, mut most, mut next) = (Vec::new(), 0, Some(Cursor::default()));
    while let Some(cursor) = next {
        let page = page(cursor);
        most = most.max(page.items.len());
        items.extend(page.items);
        next = page.next;
    }
    (items, most)
}

#[tokio::test(start_paused = true)]
async fn a_session_shows_its_id_its_age_its_channels_and_what_waits() {
    let endpoint = endpoint();
    let inspect = endpoint.inspect();
    assert_eq!(inspect.sessions(Cursor::default()), Page::default());
    let mut ann = client(&endpoint).await;
    ann.join("room:1", json!({})).await;
    ann.join("room:2", json!({})).await;
    tokio::time::advance(Duration::from_secs(90)).await;
    let session = || inspect.sessions(Cursor::default()).items.remove(0);
    let seen = session();
    assert_eq!(seen.id.as_deref(), Some("user:7"));
    assert_eq!((seen.transport, seen.channels), (Transport::InMemory, 2));
    assert!(seen.age >= Duration::from_secs(90), "{seen:?}");
    assert_eq!(seen.state, SessionState::Connected);

    ann.drop_connection();
    endpoint.broadcast("room:1", "new_msg", json!("x".repeat(5000)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(session().state, SessionState::Detached);
    ann.reconnect().await.expect("accepted");
    ann.join("room:1", json!({})).await;
    ann.leave("room:2").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((session().state, session().channels), (SessionState::Connected, 1));
}

#[test]
fn a_hundred_thousand_sessions_come_in_pages_that_are_small() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _context = runtime.enter();
    let inspect = endpoint().inspect();
    let (outbox, _receiver) = outbox::channel(100_000);
    outbox.push(Message::text("waits".to_owned()));
    let acquire = |number: usize| {
        let info = SocketInfo::new(Some(format!("user:{number}").into()), Transport::WebSocket);
        let permit = inspect.sessions.acquire(&outbox, &Arc::new(info));
        permit.unwrap_or_else(|_| panic!("no room for {number}"))
    };
    let mut permits: Vec<_> = (0..100_000).map(acquire).collect();
    let (sessions, most) = all(|cursor| inspect.sessions(cursor));
    assert_eq!(most, PLACES);
    let ids: HashSet<_> = sessions.iter().filter_map(|session| session.id.as_deref()).collect();
    assert_eq!((sessions.len(), ids.len()), (100_000, 100_000));
    assert!(sessions.iter().all(|session| session.queued > 0));
    permits.truncate(10);
    assert_eq!(all(|cursor| inspect.sessions(cursor)).0.len(), 10);
    assert_eq!(inspect.sessions(Cursor::from_number(u64::MAX)), Page::default());
}

#[tokio::test]
async fn topics_come_in_pages_each_in_one_of_them() {
    let endpoint = endpoint();
    let inspect = endpoint.inspect();
    let subscriptions: Vec<_> =
        (0..10_000).map(|number| endpoint.pubsub().subscribe(&format!("room:{number}"))).collect();
    let _second = endpoint.pubsub().subscribe("room:7");
    let (topics, most) = all(|cursor| inspect.topics(cursor));
    let names: HashSet<_> = topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!((topics.len(), names.len()), (10_000, 10_000));
    assert!(most < 1000, "a 64th of them, about: {most}");
    let seven = topics.iter().find(|topic| topic.name == "room:7");
    assert_eq!(seven.map(|topic| topic.subscribers), Some(2));
    assert_eq!(inspect.topic_count(), (10_000, 10_001));
    drop(subscriptions);
    assert_eq!(all(|cursor| inspect.topics(cursor)).0.len(), 1);
    assert_eq!(inspect.topics(Cursor::from_number(u64::MAX)), Page::default());
}

#[tokio::test]
async fn broadcasts_are_counted_while_somebody_watches() {
    let endpoint = endpoint();
    let inspect = endpoint.inspect();
    let broadcast = |topic| endpoint.broadcast(topic, "new_msg", json!({}));
    broadcast("room:1");
    let watch = inspect.watch();
    broadcast("room:1");
    broadcast("room:2");
    broadcast("room:2");
    let mut taken = watch.take_broadcasts();
    taken.topics.sort_unstable();
    assert_eq!(taken.count, 3);
    assert_eq!(taken.topics, [("room:1".to_owned(), 1), ("room:2".to_owned(), 2)]);
    assert_eq!(watch.take_broadcasts(), Broadcasts::default());
    drop(watch);
    broadcast("room:1");
    assert_eq!(inspect.watch().take_broadcasts(), Broadcasts::default());
}

/// What `broadcast` of one message allocates.
fn allocated(endpoint: &Endpoint<()>) -> u64 {
    let payload = Payload::from(json!({}));
    allocation_counter::measure(|| {
        endpoint.broadcast("a topic of more than 23 bytes", "e", payload)
    })
    .count_total
}

#[tokio::test]
async fn a_broadcast_costs_nothing_more_while_nobody_watches() {
    let endpoint = endpoint();
    let _subscription = endpoint.pubsub().subscribe("a topic of more than 23 bytes");
    allocated(&endpoint);
    let before = allocated(&endpoint);
    let watch = endpoint.inspect().watch();
    assert!(allocated(&endpoint) > before, "the topic is remembered");
    drop(watch);
    assert_eq!(allocated(&endpoint), before);
}

#[tokio::test(start_paused = true)]
async fn the_keys_on_a_topic_are_sampled() {
    let endpoint = endpoint();
    let presence = endpoint.presence();
    let guards: Vec<_> = (0..100)
        .map(|number| {
            presence.track_task("room:1", &format!("user:{number}"), json!({ "n": number }))
        })
        .collect();
    let seen = endpoint.inspect().presences("room:1", 10);
    assert_eq!((seen.count, seen.keys.len()), (100, 10));
    assert!(seen.keys.iter().all(|key| key.metas.len() == 1 && key.metas[0].contains("\"n\"")));
    drop(guards);
    assert_eq!(endpoint.inspect().presences("room:1", 10), Presents::default());
}

#[tokio::test(start_paused = true)]
async fn the_figures_need_no_recorder() {
    let endpoint = endpoint();
    let inspect = endpoint.inspect();
    let mut ann = client(&endpoint).await;
    ann.join("room:1", json!({})).await;
    let channels = inspect.channels();
    assert_eq!((channels[0].pattern.as_str(), channels[0].running), ("room:*", 1));
    assert_eq!(inspect.transports()[2].connected, 1);
    assert_eq!(inspect.memory().1, 1 << 30);
    assert!(inspect.memory().0 > 0);
    let connects = "tower_channels_connects_total";
    let counters = inspect.counters();
    let connects = counters.iter().find(|counter| counter.name == connects);
    assert!(connects.is_some_and(|counter| counter.total > 0 && !counter.meaning.is_empty()));
}
