use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use tower_channels_transports::Memory;

use super::*;
use crate::presence::changes::PresenceChanges;
use crate::presence::config::PresenceConfig;
use crate::presence::tracked::TrackGuard;
use crate::topics::Topics;
use crate::topics::broadcast::Broadcast;
use crate::topics::subscriber::{Inbox, Undelivered};

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
