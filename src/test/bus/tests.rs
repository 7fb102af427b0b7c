use std::sync::Arc;

use super::*;
use crate::adapter::Link;

const MS: Duration = Duration::from_millis(1);

/// What a node's inbox got, as text.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl NodeInbox for Notes {
    fn receive(&self, frame: Bytes) {
        self.0.lock().push(String::from_utf8_lossy(&frame).into_owned());
    }

    fn link(&self, link: Link) {
        self.0.lock().push(format!("{link:?}"));
    }

    fn lost(&self, frame: Bytes) {
        self.0.lock().push(format!("lost {}", String::from_utf8_lossy(&frame)));
    }
}

/// Two nodes.
struct Pair {
    bus: Bus,
    adapters: [BusAdapter; 2],
    notes: [Arc<Notes>; 2],
}

async fn pair() -> Pair {
    let bus = Bus::new();
    let adapters = [bus.adapter(), bus.adapter()];
    let notes: [Arc<Notes>; 2] = Default::default();
    for (adapter, notes) in adapters.iter().zip(&notes) {
        adapter.start(NodeId(adapter.place() as u64), notes.clone());
    }
    let pair = Pair { bus, adapters, notes };
    assert_eq!(pair.got(0).await, ["Up"]);
    assert_eq!(pair.got(1).await, ["Up"]);
    pair
}

impl Pair {
    fn say(&self, frame: &'static str) {
        self.adapters[0].publish(Channel::All, frame.into()).unwrap();
    }

    /// What a node has got since the last call.
    async fn got(&self, place: Place) -> Vec<String> {
        sleep(MS / 2).await;
        std::mem::take(&mut self.notes[place].0.lock())
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_delays_loses_and_repeats_frames_in_one_direction() {
    let pair = pair().await;
    pair.bus.set_path(0, 1, Path { delay: 10 * MS, lose: 1, repeat: 1, ..Path::default() });
    ["a", "b", "c"].into_iter().for_each(|frame| pair.say(frame));
    assert_eq!(pair.got(0).await, ["a", "b", "c"]);
    assert!(pair.got(1).await.is_empty());
    sleep(10 * MS).await;
    assert_eq!(pair.got(1).await, ["b", "b", "c"]);
    pair.bus.set_path(0, 1, Path { is_cut: true, ..Path::default() });
    pair.say("d");
    assert_eq!(pair.got(0).await, ["d"]);
    assert!(pair.got(1).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_frame_overtakes_only_on_an_unordered_path() {
    for is_unordered in [false, true] {
        let pair = pair().await;
        pair.bus.set_path(0, 1, Path { delay: 10 * MS, is_unordered, ..Path::default() });
        pair.say("a");
        pair.bus.set_path(0, 1, Path { is_unordered, ..Path::default() });
        pair.say("b");
        sleep(10 * MS).await;
        let expected = if is_unordered { ["b", "a"] } else { ["a", "b"] };
        assert_eq!(pair.got(1).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn frames_on_their_way_are_lost_with_the_line() {
    let pair = pair().await;
    pair.bus.set_path(0, 1, Path { delay: 10 * MS, ..Path::default() });
    pair.say("a");
    pair.bus.cut(1);
    pair.say("b");
    pair.bus.heal(1);
    pair.say("c");
    sleep(10 * MS).await;
    assert_eq!(pair.got(1).await, ["Down", "Up", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_line_delivers_late_and_a_deaf_one_never() {
    let pair = pair().await;
    pair.bus.stall(1);
    pair.say("a");
    assert!(pair.got(1).await.is_empty());
    pair.bus.heal(1);
    assert_eq!(pair.got(1).await, ["a"]);
    pair.bus.deafen(1);
    pair.say("b");
    pair.bus.heal(1);
    pair.say("c");
    assert_eq!(pair.got(1).await, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_deaf_node_hears_when_it_has_reconnected() {
    let pair = pair().await;
    pair.bus.deafen(1);
    assert_eq!(pair.adapters[0].reach(NodeId(1), "a".into()).await, Reached::Nobody);
    pair.adapters[1].reconnect();
    pair.say("b");
    assert_eq!(pair.got(1).await, ["Down", "Up", "b"]);
}

#[tokio::test(start_paused = true)]
async fn frames_wait_for_the_engine_for_their_time() {
    let pair = pair().await;
    pair.bus.stop();
    pair.say("a");
    sleep(1500 * MS).await;
    pair.say("b");
    sleep(1000 * MS).await;
    pair.bus.restart();
    assert_eq!(pair.got(0).await, ["Down", "lost a", "Up", "b"]);
    assert_eq!(pair.got(1).await, ["Down", "Up", "b"]);
}

#[tokio::test(start_paused = true)]
async fn nodes_are_back_one_after_another_if_they_are_to() {
    let pair = pair().await;
    pair.bus.stop();
    pair.bus.restart_apart(10 * MS);
    assert_eq!(pair.got(0).await, ["Down"]);
    pair.say("a");
    sleep(10 * MS).await;
    assert_eq!(pair.got(0).await, ["Up", "a"]);
    assert_eq!(pair.got(1).await, ["Down"]);
    // The first has sent what waited before the second was back.
    sleep(10 * MS).await;
    assert_eq!(pair.got(1).await, ["Up"]);
}

#[tokio::test(start_paused = true)]
async fn a_line_that_stalls_before_its_node_is_back_is_whole_when_it_is_healed() {
    let pair = pair().await;
    pair.bus.stop();
    pair.bus.restart_apart(10 * MS);
    pair.bus.stall(0);
    sleep(20 * MS).await;
    pair.bus.heal(0);
    assert_eq!(pair.got(0).await, ["Down", "Up"]);
}

#[tokio::test(start_paused = true)]
async fn frames_to_topics_have_an_order_of_their_own_on_a_path_that_has_two() {
    let pair = pair().await;
    let path = Path { delay: 10 * MS, has_two_orders: true, ..Path::default() };
    pair.bus.set_path(0, 1, path);
    pair.adapters[0].publish(Channel::Topic("t"), "a".into()).unwrap();
    pair.say("b");
    assert_eq!(pair.got(1).await, ["b"]);
    sleep(10 * MS).await;
    assert_eq!(pair.got(1).await, ["a"]);
}
