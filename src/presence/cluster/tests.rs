use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use tower_channels_transports::Memory;

use super::*;
use crate::presence::changes::PresenceChanges;
use crate::presence::config::PresenceConfig;
use crate::presence::tracked::TrackGuard;
use crate::test::Bus;
use crate::topics::Topics;
use crate::topics::broadcast::Broadcast;
use crate::topics::subscriber::{Inbox, Undelivered};
use crate::{PubSub, PubSubConfig};

const ONE: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const NOW: Duration = Duration::from_secs(1);

fn announcer(node: NodeId) -> (Arc<Announcer>, Topics) {
    let topics = Topics::new(&Memory::new(1 << 30));
    let announcer = Announcer::new(PresenceConfig::default(), topics.clone(), Some(node));
    (Arc::new(announcer), topics)
}

fn track(announcer: &Arc<Announcer>, key: &str) -> TrackGuard {
    TrackGuard::new(announcer, "lobby", key, serde_json::json!({})).expect("a valid entry")
}

/// Tells another node what happened on this one.
fn update(from: &Announcer, id: NodeId, to: &Arc<Announcer>) {
    for message in from.collect() {
        let json = message.encode();
        let replies = to.receive(id, message.shard, json.as_bytes(), NOW).expect("a message");
        assert!(replies.is_empty());
    }
}

/// The number of joins and leaves in the next diff.
async fn next(changes: &mut PresenceChanges) -> (usize, usize) {
    let next = tokio::time::timeout(Duration::from_secs(1), changes.next()).await;
    let diff = next.expect("a diff").expect("an endpoint").expect("none is dropped");
    (diff.joins.len(), diff.leaves.len())
}

#[tokio::test(start_paused = true)]
async fn what_happens_on_another_node_is_announced_on_this_one() {
    let ((one, _), (other, _)) = (announcer(ONE), announcer(OTHER));
    let mut changes = other.changes.subscribe();
    other.node_up(ONE);
    let ann = track(&one, "ann");
    update(&one, ONE, &other);
    assert_eq!(next(&mut changes).await, (1, 0));
    drop(ann);
    update(&one, ONE, &other);
    assert_eq!(next(&mut changes).await, (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_entries_of_a_node_leave_and_come_back_with_it() {
    let ((one, _), (other, _)) = (announcer(ONE), announcer(OTHER));
    let mut changes = other.changes.subscribe();
    other.node_up(ONE);
    let _all: Vec<_> = (0..2500).map(|index| track(&one, &index.to_string())).collect();
    update(&one, ONE, &other);
    assert_eq!(next(&mut changes).await, (2500, 0));
    other.node_down(ONE);
    assert_eq!(next(&mut changes).await, (0, 2500));
    other.node_up(ONE);
    assert_eq!(next(&mut changes).await, (2500, 0));
    other.node_gone(ONE);
    assert_eq!(next(&mut changes).await, (0, 2500));
    assert_eq!(other.store.count("lobby"), 0);
}

#[test]
fn a_standing_takes_effect_without_a_runtime() {
    let ((one, _), (other, _)) = (announcer(ONE), announcer(OTHER));
    other.node_up(ONE);
    let _all: Vec<_> = (0..2500).map(|index| track(&one, &index.to_string())).collect();
    update(&one, ONE, &other);
    other.node_down(ONE);
    assert_eq!(other.store.count("lobby"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_announced_to_subscribers_and_not_without_any() {
    #[derive(Default)]
    struct Subscriber(AtomicUsize);

    impl Inbox for Subscriber {
        fn deliver(&self, _: &Arc<Broadcast>) -> Result<Option<Waker>, Undelivered> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(None)
        }
    }

    let ((one, _), (other, topics)) = (announcer(ONE), announcer(OTHER));
    other.node_up(ONE);
    let _ann = track(&one, "ann");
    update(&one, ONE, &other);
    assert!(!other.store.schedule("lobby"), "there is something to announce");
    assert_eq!(other.store.count("lobby"), 1);
    let subscriber = Arc::new(Subscriber::default());
    let _membership = topics.add_inbox(&"lobby".into(), Arc::clone(&subscriber) as Arc<dyn Inbox>);
    let _bob = track(&one, "bob");
    update(&one, ONE, &other);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(subscriber.0.load(Ordering::Relaxed), 1);
}

/// Tracks a key as a channel does, on a node with others.
fn track_on(node: &PubSub, key: &str) -> Owner {
    let announcer = &node.presence().0;
    let owner = announcer.store.new_owner();
    announcer.store.track(owner, &"lobby".into(), &key.into(), "{}").expect("a valid entry");
    announcer.schedule_diff(&"lobby".into());
    owner
}

/// How many metas of each key a follower of the diffs knows.
#[derive(Default)]
struct Follower(BTreeMap<String, usize>);

impl Follower {
    /// Applies all diffs of the next second, as clients do: joins first.
    async fn follow(&mut self, changes: &mut PresenceChanges) {
        let until = tokio::time::Instant::now() + Duration::from_secs(1);
        while let Ok(Some(diff)) = tokio::time::timeout_at(until, changes.next()).await {
            let diff = diff.expect("none is dropped");
            for (key, metas) in diff.joins.iter() {
                *self.0.entry(key.into()).or_default() += metas.metas().len();
            }
            for (key, metas) in diff.leaves.iter() {
                *self.0.get_mut(key).expect("it was there") -= metas.metas().len();
                assert!(self.0[key] > 0 || key != "ann", "ann has left, who stays");
            }
            self.0.retain(|_, metas| *metas > 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_sees_a_key_leave_whose_session_moves() {
    let bus = Bus::new();
    let node = || {
        let config = PubSubConfig::new().adapter(bus.adapter());
        PubSub::with_config(config).expect("a valid configuration")
    };
    let (owner, other, third) = (node(), node(), node());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut all =
        [&owner, &other, &third].map(|node| (Follower::default(), node.presence().changes()));
    let (ann, bob) = (track_on(&owner, "ann"), track_on(&owner, "bob"));
    for (follower, changes) in &mut all {
        follower.follow(changes).await;
    }
    for (owner_of, ticket) in [(ann, 1), (bob, 2)] {
        owner.presence().0.linger(ticket, owner_of, &"lobby".into());
    }
    // Longer than a second, but not than twenty.
    for _ in 0..3 {
        for (follower, changes) in &mut all {
            follower.follow(changes).await;
            assert_eq!(follower.0.values().sum::<usize>(), 2);
        }
    }
    track_on(&other, "ann");
    owner.presence().0.release(1);
    for _ in 0..2 {
        for (follower, changes) in &mut all {
            follower.follow(changes).await;
        }
    }
    for (follower, _) in &all {
        assert_eq!(follower.0, BTreeMap::from([("ann".into(), 1), ("bob".into(), 1)]));
    }
    assert_eq!(third.presence().0.store.count("lobby"), 2, "the older entry of ann has left");
    tokio::time::sleep(Duration::from_secs(10)).await;
    for (follower, changes) in &mut all {
        follower.follow(changes).await;
        assert_eq!(follower.0, BTreeMap::from([("ann".into(), 1)]), "bob has not come back");
    }
}

#[tokio::test(start_paused = true)]
async fn an_absent_client_whose_session_moves_does_not_come_back_by_it() {
    let (one, _) = announcer(ONE);
    let topic: SmolStr = "lobby".into();
    let owner = one.store.new_owner();
    one.store.track(owner, &topic, &"ann".into(), "{}").expect("a valid entry");
    one.hide_all(owner, &topic, || true);
    one.linger(1, owner, &topic);
    one.show_all(owner, &topic);
    assert_eq!(one.store.count("lobby"), 0);
    assert!(one.lingering.lock().expire(Duration::from_secs(60)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_absence_has_just_begun_stays_with_its_session() {
    let (one, _) = announcer(ONE);
    let topic: SmolStr = "lobby".into();
    let ownership = crate::presence::tracked::Ownership::default();
    let owner = ownership.get_or_create(&one);
    one.store.track(owner, &topic, &"ann".into(), "{}").expect("a valid entry");
    let absence = ownership.begin_absence();
    ownership.end_absence();
    one.linger(1, owner, &topic);
    one.hide_all(owner, &topic, || ownership.is_absent(absence));
    assert_eq!(one.store.count("lobby"), 1);
    one.expire_lingering(Duration::from_secs(20));
    assert_eq!(one.store.count("lobby"), 0);
}
