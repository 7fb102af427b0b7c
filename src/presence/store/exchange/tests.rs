use std::sync::Arc;

use tower_channels_transports::Memory;

use super::*;
use crate::presence::store::{SHARDS, shard_of};
use crate::presence::tracker::Owner;
use crate::presence::types::Presences;

const ONE: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const NOW: Duration = Duration::from_secs(1);

/// The store of a node, with its memory.
struct Node {
    id: NodeId,
    store: PresenceStore,
    memory: Arc<Memory>,
    owner: Owner,
}

impl Node {
    fn new(id: NodeId) -> Self {
        let memory = Memory::new(usize::MAX);
        let store = PresenceStore::new(4096, &memory.account(), Some(id));
        let owner = store.new_owner();
        Self { id, store, memory: Arc::new(memory), owner }
    }

    fn track(&self, topic: &str, key: &str) {
        self.store.track(self.owner, &topic.into(), &key.into(), "{}").expect("a new key");
    }

    fn untrack(&self, topic: &str, key: &str) {
        assert!(self.store.untrack(self.owner, &topic.into(), &key.into()));
    }

    /// Passes messages to another node, and the answers back. Returns the topics that changed there.
    fn send(&self, to: &Self, messages: Vec<Outgoing>) -> HashSet<SmolStr> {
        let mut topics = HashSet::new();
        for message in messages {
            let (changed, replies) = to.receive(self.id, &message).expect("a message");
            topics.extend(changed);
            to.send(self, replies);
        }
        topics
    }

    fn receive(
        &self,
        from: NodeId,
        message: &Outgoing,
    ) -> Result<(HashSet<SmolStr>, Vec<Outgoing>), DecodeError> {
        self.store.receive(from, message.shard, message.encode().as_bytes(), NOW)
    }

    /// Tells another node what happened.
    fn update(&self, to: &Self) -> HashSet<SmolStr> {
        self.send(to, self.store.collect())
    }

    /// Takes all steps towards the standing of a node. Returns their number, and the topics that
    /// changed.
    fn settle(&self, node: NodeId, standing: Standing) -> (usize, HashSet<SmolStr>) {
        self.store.set_standing(node, standing);
        let (mut steps, mut topics) = (0, HashSet::new());
        for shard in 0..SHARDS {
            loop {
                let (changed, is_unfinished) = self.store.settle(node, shard);
                topics.extend(changed);
                if !is_unfinished {
                    break;
                }
                steps += 1;
            }
        }
        (steps, topics)
    }

    /// The keys on a topic that joined and left since the last call.
    fn take(&self, topic: &str) -> (Vec<String>, Vec<String>) {
        let keys = |presences: &Presences| presences.keys().map(Into::into).collect();
        let taken = self.store.take(&topic.into());
        let diff = taken.map(|taken| taken.diff).expect("something to announce");
        (keys(&diff.joins), keys(&diff.leaves))
    }

    fn list(&self, topic: &str) -> Vec<String> {
        self.store.list(topic).keys().map(Into::into).collect()
    }
}

/// Two nodes that hear each other.
fn pair() -> (Node, Node) {
    let (one, other) = (Node::new(ONE), Node::new(OTHER));
    one.store.set_standing(OTHER, Standing::Up);
    other.store.set_standing(ONE, Standing::Up);
    (one, other)
}

fn topics<const N: usize>(topics: [&str; N]) -> HashSet<SmolStr> {
    topics.into_iter().map(Into::into).collect()
}

/// Every node has to agree on this, of whatever release.
#[test]
fn a_topic_has_its_shard_on_every_node() {
    let shards = ["", "a", "lobby", "room:1", "room:2", "user:42", "räume"].map(shard_of);
    assert_eq!(shards, [5, 12, 3, 3, 6, 2, 7]);
    assert_eq!(SHARDS, 16);
}

#[test]
fn an_entry_comes_changes_and_goes_on_the_other_node() {
    let (one, other) = pair();
    one.track("lobby", "ann");
    assert_eq!(one.update(&other), topics(["lobby"]));
    assert_eq!(other.list("lobby"), ["ann"]);
    assert_eq!(other.take("lobby"), (vec!["ann".to_owned()], vec![]));
    let meta = r#"{"a":1}"#;
    one.store.update(one.owner, &"lobby".into(), &"ann".into(), meta).expect("tracked");
    assert_eq!(one.update(&other), topics(["lobby"]));
    let (here, there) = (one.store.list("lobby"), other.store.list("lobby"));
    let json = |list| serde_json::to_string(&list).expect("JSON");
    assert_eq!(json(&here), json(&there));
    assert_eq!(other.take("lobby"), (vec!["ann".to_owned()], vec!["ann".to_owned()]));
    one.untrack("lobby", "ann");
    one.update(&other);
    assert!(other.list("lobby").is_empty());
    assert_eq!(other.take("lobby"), (vec![], vec!["ann".to_owned()]));
}

#[test]
fn nothing_is_collected_twice_or_without_an_operation() {
    let (one, _) = pair();
    assert!(one.store.collect().is_empty());
    ["a", "b", "c", "d"].iter().for_each(|topic| one.track(topic, "ann"));
    let collected = one.store.collect();
    let shards: HashSet<_> = collected.iter().map(|message| message.shard).collect();
    assert_eq!(collected.len(), shards.len());
    assert!(one.store.collect().is_empty());
    assert_eq!(one.store.clocks().iter().sum::<u64>(), 4);
}

#[test]
fn a_store_that_is_alone_collects_nothing() {
    let memory = Memory::new(usize::MAX);
    let store = PresenceStore::new(4096, &memory.account(), None);
    store.track(store.new_owner(), &"lobby".into(), &"ann".into(), "{}").expect("a new key");
    assert!(store.collect().is_empty());
}

#[test]
fn a_node_that_joins_asks_for_what_is_there() {
    let (one, other) = (Node::new(ONE), Node::new(OTHER));
    (0..3000).for_each(|index| one.track("lobby", &format!("user {index}")));
    (0..40).for_each(|index| one.track(&format!("room:{index}"), "ann"));
    one.store.collect();
    other.store.set_standing(ONE, Standing::Up);
    let requests = other.store.hear_clocks(ONE, &one.store.clocks(), NOW);
    assert_eq!(requests.len(), SHARDS);
    assert!(other.store.hear_clocks(ONE, &one.store.clocks(), NOW).is_empty(), "not at once");
    let (_, answer) = one.receive(OTHER, &requests[shard_of("lobby")]).expect("a request");
    assert!(answer.len() >= 4);
    assert!(answer.iter().all(|piece| piece.encode().len() < 96 * 1024));
    other.send(&one, requests);
    assert_eq!(other.store.count("lobby"), 3000);
    assert!((0..40).all(|index| other.store.count(&format!("room:{index}")) == 1));
    assert!(other.store.hear_clocks(ONE, &one.store.clocks(), NOW * 9).is_empty());
}

#[test]
fn the_entries_of_a_silent_node_leave_and_come_back_a_thousand_at_a_time() {
    let (one, other) = pair();
    (0..2500).for_each(|index| one.track("lobby", &format!("user {index}")));
    other.track("lobby", "bob");
    one.update(&other);
    other.take("lobby");
    let (steps, changed) = other.settle(ONE, Standing::Down);
    assert_eq!((steps, changed), (2, topics(["lobby"])));
    assert_eq!(other.list("lobby"), ["bob"]);
    assert_eq!(other.take("lobby").1.len(), 2500);
    one.untrack("lobby", "user 7");
    one.update(&other);
    assert_eq!(other.list("lobby"), ["bob"]);
    other.settle(ONE, Standing::Up);
    assert_eq!(other.store.count("lobby"), 2500);
    assert_eq!(other.take("lobby").0.len(), 2499);
}

#[test]
fn the_memory_of_another_nodes_entries_is_reserved_until_it_is_gone() {
    let (one, other) = pair();
    (0..1500).for_each(|index| one.track("lobby", &format!("user {index}")));
    one.update(&other);
    let all = other.memory.reserved();
    assert!(all >= 1500 * 512, "{all}");
    other.settle(ONE, Standing::Down);
    (0..500).for_each(|index| one.untrack("lobby", &format!("user {index}")));
    one.update(&other);
    let fewer = other.memory.reserved();
    assert!((1000 * 512..all - 400 * 512).contains(&fewer), "{fewer} of {all}");
    other.settle(ONE, Standing::Up);
    assert_eq!(other.memory.reserved(), fewer);
    (500..1500).for_each(|index| one.untrack("lobby", &format!("user {index}")));
    one.track("lobby", "last");
    one.update(&other);
    other.settle(ONE, Standing::Gone);
    assert_eq!(other.memory.reserved(), 0);
}

#[test]
fn a_node_that_is_gone_is_ignored_until_it_is_up_and_then_asked_for_everything() {
    let (one, other) = pair();
    one.track("lobby", "ann");
    one.update(&other);
    other.settle(ONE, Standing::Gone);
    assert!(other.list("lobby").is_empty());
    one.track("lobby", "bob");
    assert!(one.update(&other).is_empty());
    assert!(other.store.hear_clocks(ONE, &one.store.clocks(), NOW).is_empty());
    other.settle(ONE, Standing::Up);
    other.send(&one, other.store.hear_clocks(ONE, &one.store.clocks(), NOW));
    assert_eq!(other.list("lobby"), ["ann", "bob"]);
}

#[test]
fn entries_beyond_the_limits_of_a_node_are_refused_and_others_are_not() {
    let (one, other) = pair();
    let meta = format!("{{\"text\":\"{}\"}}", "x".repeat(5000));
    one.store.track(one.owner, &"lobby".into(), &"large".into(), &meta).expect("a new key");
    one.track("lobby", "toString");
    one.track("lobby", &"k".repeat(256));
    one.track("lobby", "ann");
    one.update(&other);
    assert_eq!(other.list("lobby"), ["ann"]);
    assert!(other.store.hear_clocks(ONE, &one.store.clocks(), NOW).is_empty(), "asks for them");
    one.untrack("lobby", "large");
    one.update(&other);
    assert_eq!(other.list("lobby"), ["ann"]);
}

#[test]
fn an_entry_of_a_topic_that_belongs_to_another_shard_is_refused() {
    let (one, other) = pair();
    one.track("lobby", "ann");
    let message = one.store.collect().remove(0);
    let wrong = (message.shard + 1) % SHARDS as u32;
    let json = message.encode();
    assert!(other.store.receive(ONE, wrong, json.as_bytes(), NOW).expect("a message").0.is_empty());
    assert!(other.list("lobby").is_empty());
}

#[test]
fn malformed_messages_and_unknown_shards_are_errors() {
    let (one, other) = pair();
    one.track("lobby", "ann");
    let json = one.store.collect().remove(0).encode();
    let receive = |shard, json: &str| other.store.receive(ONE, shard, json.as_bytes(), NOW);
    assert!(receive(SHARDS as u32, &json).is_err());
    assert!(receive(u32::MAX, &json).is_err());
    assert!(receive(0, &json[1..]).is_err());
    assert!(other.list("lobby").is_empty());
}

#[test]
fn a_meta_with_spaces_is_listed_as_valid_json() {
    let other = pair().1;
    for (meta, n) in [("{ }", 1), (r#"{ "a" : 1 }"#, 2)] {
        let json = format!(
            r#"{{"v":1,"state":{{"seen":[0,{n}],"entries":[{{"n":{n},"age":1,"topic":"lobby","key":"ann","meta":{meta}}}]}}}}"#
        );
        let shard = shard_of("lobby") as u32;
        other.store.receive(ONE, shard, json.as_bytes(), NOW).expect("a message");
        let list = serde_json::to_value(other.store.list("lobby")).expect("valid JSON");
        assert!(list["ann"]["metas"][0]["phx_ref"].is_string(), "{list}");
    }
}

#[test]
fn changes_that_nobody_follows_are_discarded_unless_they_are_about_to_be_announced() {
    let (one, other) = pair();
    one.track("lobby", "ann");
    one.update(&other);
    other.store.discard("lobby");
    assert!(other.store.take(&"lobby".into()).is_none());
    one.track("lobby", "bob");
    one.update(&other);
    assert!(other.store.schedule("lobby"));
    other.store.discard("lobby");
    assert_eq!(other.take("lobby").0, ["bob"]);
    assert_eq!(other.list("lobby"), ["ann", "bob"]);
}
