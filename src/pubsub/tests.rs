use std::sync::Mutex;
use std::task::Waker;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::cluster::config::ClusterConfig;
use crate::test::{Bus, BusAdapter};
use crate::topics::Membership;
use crate::topics::heard::Heard;
use crate::topics::subscriber::Undelivered;

#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl Inbox for Ear {
    fn deliver(&self, broadcast: &Arc<Broadcast>) -> Result<Option<Waker>, Undelivered> {
        let payload = broadcast.payload().as_json().unwrap_or_default();
        self.0.lock().expect("no panic").push(payload.chars().take(20).collect());
        Ok(None)
    }
}

impl Ear {
    fn len(&self) -> usize {
        self.0.lock().expect("no panic").len()
    }
}

fn node(adapter: BusAdapter) -> PubSub {
    PubSub::with_config(PubSubConfig::new().adapter(adapter)).expect("a valid configuration")
}

fn id(node: &PubSub) -> NodeId {
    node.nodes()[0].id
}

fn listen(node: &PubSub) -> (Arc<Ear>, Membership) {
    let ear = Arc::new(Ear::default());
    let membership = node.registry().add_inbox(&"room".into(), Arc::clone(&ear) as Arc<dyn Inbox>);
    (ear, membership)
}

/// Until all nodes know each other, or everything has arrived.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_has_the_same_number_on_every_node_also_if_it_comes_in_parts() {
    let bus = Bus::new();
    let (one, two) = (node(bus.adapter().max_frame(5000)), node(bus.adapter()));
    settle().await;
    let here = listen(&one).1;
    for (size, number) in [(10, 1), (20_000, 7), (10, 8)] {
        let (ear, there) = listen(&two);
        one.broadcast("room", "news", json!("x".repeat(size)));
        settle().await;
        assert_eq!(ear.len(), 1);
        assert_eq!(there.leave(), Heard::from_iter([(id(&one), number)]));
        assert_eq!(one.heard(), [(id(&one), number)]);
        assert!(two.has_heard(&one.heard()));
    }
    one.broadcast("elsewhere", "news", json!("nobody is here"));
    assert_eq!(one.heard(), [(id(&one), 9)]);
    assert_eq!(here.leave(), Heard::from_iter([(id(&one), 8)]));
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_that_cannot_arrive_elsewhere_has_no_number() {
    let bus = Bus::new();
    let one = node(bus.adapter().max_waiting(10));
    settle().await;
    let (ear, membership) = listen(&one);
    one.broadcast("room", "news", json!("x".repeat(7 << 20)));
    one.local_broadcast("room", "news", json!("of this node"));
    bus.stop();
    one.broadcast("other", "news", json!("it waits"));
    one.broadcast("room", "news", json!("there is no room"));
    assert_eq!(ear.len(), 3);
    assert!(membership.leave().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_another_node_has_heard_is_heard_here_once_it_has_arrived() {
    let bus = Bus::new();
    let (one, two, slow) = (node(bus.adapter()), node(bus.adapter()), node(bus.adapter()));
    settle().await;
    let delay = Duration::from_millis(100);
    for from in [0, 1] {
        bus.set_path(from, 2, crate::test::Path { delay, ..Default::default() });
    }
    one.broadcast("room", "news", json!(1));
    tokio::time::sleep(Duration::from_millis(10)).await;
    two.broadcast("room", "news", json!(2));
    let heard = two.heard();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(one.has_heard(&heard[..1]) && !slow.has_heard(&heard));
    settle().await;
    assert!(one.has_heard(&heard) && two.has_heard(&heard) && slow.has_heard(&heard));
    assert!(PubSub::new().heard().is_empty() && PubSub::new().has_heard(&heard));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hears_some_topics_alone_judges_no_numbers() {
    let bus = Bus::new();
    let one = node(bus.adapter());
    let cluster = ClusterConfig::new().listen(Listen::Topics);
    let config = PubSubConfig::new().adapter(bus.adapter()).cluster(cluster);
    let two = PubSub::with_config(config).expect("a valid configuration");
    settle().await;
    one.broadcast("room", "news", json!(1));
    settle().await;
    assert!(two.has_heard(&[(id(&one), 100)]));
    assert_eq!(two.heard(), [(id(&two), 0)]);
}

#[tokio::test(start_paused = true)]
async fn who_may_have_missed_something_is_known_before_it_is_told() {
    let bus = Bus::new();
    let (one, adapter) = (node(bus.adapter()), bus.adapter());
    let place = adapter.place();
    let two = node(adapter);
    settle().await;
    let resting = two.registry().rest(&"room".into());
    two.listen(Listen::Topics);
    drop(two.hear("room"));
    settle().await;
    assert!(!two.has_pending_gaps() && !resting.missed());
    bus.cut(place);
    bus.heal(place);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(two.has_pending_gaps() && !one.has_pending_gaps());
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(resting.missed() && !two.has_pending_gaps());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broadcasts_that_are_sent_at_once_arrive_everywhere_in_the_order_in_which_they_are_delivered_here()
 {
    const EACH: usize = 300;
    const THREADS: usize = 4;
    let bus = Bus::new();
    let (one, two) = (node(bus.adapter()), node(bus.adapter()));
    let ((here, _here), (there, _there)) = (listen(&one), listen(&two));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let one = &one;
            scope.spawn(move || {
                (0..EACH).for_each(|n| one.broadcast("room", "news", json!([thread, n])));
            });
        }
    });
    let arrive = async {
        while there.len() < EACH * THREADS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrive).await.expect("everything arrives");
    assert_eq!(*here.0.lock().unwrap(), *there.0.lock().unwrap());
}
