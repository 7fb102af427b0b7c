//! Three nodes beside a simple model of them, driven by bytes: for the tests here and for the fuzz
//! targets. No part of the API.
//!
//! The model knows what each node tracks, and at every step what may not be shown. The network loses,
//! repeats, delays and reorders; nodes are cut off from each other in either direction, restart, and
//! stay away until they are taken for gone. In the end all is mended, and everyone must see the same.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use smol_str::{SmolStr, format_smolstr};

use super::message::Message;
use super::{Changes, Config, Entry, Outgoing, Owner, Replica, Tracker};

const NODES: usize = 3;
const IN_FLIGHT: usize = 30;

/// Walks as the bytes say, then mends everything.
///
/// # Panics
/// If a node shows what it must not, says something else than what it lists, or if in the end one
/// does not show exactly what all of them track.
pub fn walk(bytes: &[u8]) {
    let mut world = World::new();
    for step in bytes.chunks_exact(2) {
        world.step(step[0], usize::from(step[1]));
    }
    world.mend();
}

/// Gives bytes to a replica that knows one other: they may be refused, but if they are, nothing of
/// them counts, and what was taken counts once.
///
/// # Panics
/// If that is not so, or if a message is not read again as it is written.
pub fn receive(bytes: &[u8]) {
    let mut world = World::new();
    (0..6).for_each(|value| world.track(value % 2, value * 7));
    world.settle();
    let Node { tracker, view, .. } = &mut world.nodes[0];
    let Ok((changes, _)) = tracker.receive(world.now, bytes) else {
        assert!(Message::decode(bytes).is_err(), "well-formed and refused");
        return world.check(0);
    };
    apply(&changes, view);
    let again = tracker.receive(world.now, bytes).expect("it was taken before").0;
    assert!(again.joins.is_empty() && again.leaves.is_empty(), "twice is more than once");
    let written = Message::decode(bytes).expect("it was taken").encode();
    let read = Message::decode(written.as_bytes()).expect("a message of its own");
    assert_eq!(read.encode(), written);
    world.check_view(0);
}

struct World {
    now: Duration,
    nodes: Vec<Node>,
    /// From whom, to whom, and what.
    network: Vec<(usize, usize, String)>,
    /// What does not arrive any more: from whom, to whom.
    cuts: HashSet<(usize, usize)>,
    /// Every entry there ever was, with its replica.
    made: BTreeMap<SmolStr, (Replica, Entry)>,
}

struct Node {
    tracker: Tracker,
    is_running: bool,
    tracked: BTreeMap<(u64, SmolStr, SmolStr), SmolStr>,
    /// What an observer makes of the changes.
    view: BTreeSet<Shown>,
    /// What was once known to be removed here.
    buried: HashSet<SmolStr>,
}

/// Topic, key, phx_ref.
type Shown = (SmolStr, SmolStr, SmolStr);

impl World {
    fn new() -> Self {
        let node = |index| Node {
            tracker: tracker(index, 1),
            is_running: true,
            tracked: BTreeMap::new(),
            view: BTreeSet::new(),
            buried: HashSet::new(),
        };
        Self {
            now: Duration::ZERO,
            nodes: (0..NODES).map(node).collect(),
            network: Vec::new(),
            cuts: HashSet::new(),
            made: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: u8, value: usize) {
        let (node, to) = (value % NODES, value / NODES % NODES);
        match step % 24 {
            0..=4 => self.track(node, value / NODES),
            5..=6 => self.update(node, value / NODES),
            7..=8 => self.untrack(node, value / NODES),
            9 => self.untrack_all(node, value / NODES),
            10..=12 => self.pass(Duration::from_millis(value as u64 * 2)),
            13..=16 => self.deliver(value, false),
            17 => self.deliver(value, true),
            18 if !self.network.is_empty() => {
                self.network.swap_remove(value % self.network.len());
            }
            19 => drop(self.cuts.insert((node, to))),
            20 => drop(self.cuts.remove(&(node, to))),
            21 if value >= 160 => self.restart(node),
            21 if value < 32 => self.nodes[node].is_running = false,
            22 if value >= 192 => (0..15).for_each(|_| self.pass(Duration::from_millis(400))),
            22 if value < 64 => (0..4).for_each(|_| self.pass(Duration::from_millis(400))),
            23 => self.deliver_all(),
            _ => {}
        }
        self.check_view(node);
    }

    fn track(&mut self, node: usize, value: usize) {
        let Node { tracker, is_running: true, tracked, view, .. } = &mut self.nodes[node] else {
            return;
        };
        let (owner, topic, key) = place(value);
        let meta = format_smolstr!("{{\"v\":{value}}}");
        let result = tracker.track(Owner(owner), &topic, &key, meta.as_str().into());
        let id = (owner, topic, key);
        assert_eq!(result.is_err(), tracked.contains_key(&id));
        let Ok(entry) = result else { return };
        tracked.insert(id, meta);
        assert!(view.insert(shown(&entry)));
    }

    fn update(&mut self, node: usize, value: usize) {
        let Node { tracker, is_running: true, tracked, view, .. } = &mut self.nodes[node] else {
            return;
        };
        let (owner, topic, key) = place(value);
        let meta = format_smolstr!("{{\"u\":{value}}}");
        let change = |_: &_| meta.as_str().into();
        let Ok((old, new)) = tracker.update(Owner(owner), &topic, &key, change) else {
            return assert!(!tracked.contains_key(&(owner, topic, key)));
        };
        assert_eq!(new.prev(), Some(old.phx_ref()));
        assert_eq!(tracked.insert((owner, topic, key), meta).as_deref(), Some(&**old.meta()));
        assert!(view.remove(&shown(&old)) && view.insert(shown(&new)));
    }

    fn untrack(&mut self, node: usize, value: usize) {
        let Node { tracker, is_running: true, tracked, view, .. } = &mut self.nodes[node] else {
            return;
        };
        let (owner, topic, key) = place(value);
        let old = tracker.untrack(Owner(owner), &topic, &key);
        assert_eq!(old.is_some(), tracked.remove(&(owner, topic, key)).is_some());
        assert!(old.is_none_or(|old| view.remove(&shown(&old))));
    }

    fn untrack_all(&mut self, node: usize, value: usize) {
        let Node { tracker, is_running: true, tracked, view, .. } = &mut self.nodes[node] else {
            return;
        };
        let (owner, ..) = place(value);
        let before = tracked.len();
        tracked.retain(|(other, ..), _| *other != owner);
        let left = tracker.untrack_all(Owner(owner));
        assert_eq!(left.len(), before - tracked.len());
        left.iter().for_each(|old| assert!(view.remove(&shown(old))));
    }

    /// Some time passes, and everyone notices.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        for from in 0..NODES {
            let Node { tracker, is_running: true, view, .. } = &mut self.nodes[from] else {
                continue;
            };
            let (changes, outgoing) = tracker.tick(self.now);
            apply(&changes, view);
            self.send(from, outgoing);
            self.check(from);
        }
    }

    fn send(&mut self, from: usize, outgoing: Vec<Outgoing>) {
        for Outgoing { to: recipient, message } in outgoing {
            for to in 0..NODES {
                let is_meant = recipient.as_ref().is_none_or(|replica| replica.name == name(to));
                if is_meant && self.nodes[to].is_running && !self.cuts.contains(&(from, to)) {
                    self.network.push((from, to, message.clone()));
                }
            }
        }
        // What is late for very long is lost.
        let late = self.network.len().saturating_sub(IN_FLIGHT);
        self.network.drain(..late);
    }

    /// Any message under way arrives, and perhaps stays under way.
    fn deliver(&mut self, value: usize, again: bool) {
        if self.network.is_empty() {
            return;
        }
        let index = value % self.network.len();
        let (_, to, message) = match again {
            true => self.network[index].clone(),
            false => self.network.swap_remove(index),
        };
        let Node { tracker, is_running: true, view, .. } = &mut self.nodes[to] else { return };
        let (changes, outgoing) =
            tracker.receive(self.now, message.as_bytes()).expect("a message of a replica");
        apply(&changes, view);
        self.send(to, outgoing);
        self.check(to);
    }

    fn deliver_all(&mut self) {
        let mut count = 0;
        while !self.network.is_empty() {
            self.deliver(count * 7, false);
            count += 1;
            assert!(count < 2000, "they do not stop talking");
        }
    }

    /// The node comes back, without what it tracked.
    fn restart(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.tracker = tracker(index, node.tracker.replica().incarnation + 1);
        node.is_running = true;
        node.tracked.clear();
        node.view.clear();
        node.buried.clear();
    }

    /// Whole again: what is under way arrives, nothing more is lost, and time passes, at most until
    /// who is away is not shown any more. Once they agree they keep to it.
    fn mend(&mut self) {
        self.cuts.clear();
        for _ in 0..9 {
            self.settle();
            if (0..NODES).all(|node| self.shows_all(node)) {
                break;
            }
        }
        self.settle();
        for node in 0..NODES {
            let tracker = &self.nodes[node].tracker;
            assert!(self.shows_all(node), "{:?}: {:?}", tracker.replica, listed(tracker));
        }
        let orders: HashSet<Vec<_>> = self
            .nodes
            .iter()
            .filter(|node| node.is_running)
            .map(|node| listed(&node.tracker))
            .map(|listed| {
                listed.iter().map(|entry| (shown(entry), entry.prev().cloned())).collect()
            })
            .collect();
        assert!(orders.len() <= 1, "another order");
    }

    /// Whether a node, if it runs, shows what all that run track.
    fn shows_all(&self, node: usize) -> bool {
        let running = self.nodes.iter().filter(|node| node.is_running);
        let tracked = running.flat_map(|node| &node.tracked);
        let mut tracked: Vec<_> =
            tracked.map(|((_, topic, key), meta)| (&**topic, &**key, &**meta)).collect();
        tracked.sort_unstable();
        let Node { tracker, is_running, .. } = &self.nodes[node];
        let listed = listed(tracker);
        let mut shown: Vec<_> = listed
            .iter()
            .map(|entry| (&**entry.topic(), &**entry.key(), &**entry.meta()))
            .collect();
        shown.sort_unstable();
        !is_running || shown == tracked
    }

    /// A heartbeat of everyone arrives, and all that comes of it.
    fn settle(&mut self) {
        self.deliver_all();
        self.pass(Duration::from_millis(500));
        self.deliver_all();
    }

    fn check(&mut self, node: usize) {
        self.check_view(node);
        let tracker = &self.nodes[node].tracker;
        for entry in tracker.replication.own.entries() {
            let made = || (tracker.replica.clone(), entry.clone());
            self.made.entry(entry.phx_ref().clone()).or_insert_with(made);
        }
        self.check_knowledge(node);
    }

    /// The changes told the same as the lists do.
    fn check_view(&self, node: usize) {
        let Node { tracker, view, .. } = &self.nodes[node];
        let listed: Vec<_> = listed(tracker);
        assert_eq!(&listed.iter().map(shown).collect::<BTreeSet<_>>(), view);
        assert_eq!(listed.len(), view.len(), "an entry is listed twice");
        for topic in topics() {
            let keys: BTreeSet<_> = view.iter().filter(|shown| shown.0 == topic).collect();
            let keys: BTreeSet<_> = keys.into_iter().map(|(_, key, _)| key).collect();
            assert_eq!(tracker.count(&topic), keys.len());
        }
    }

    /// What is known of and there is there; what is known to be removed stays so.
    fn check_knowledge(&mut self, index: usize) {
        let tracker = &self.nodes[index].tracker;
        let mut removed = Vec::new();
        for (phx_ref, (replica, entry)) in &self.made {
            let Some(peer) = tracker.replication.others.get(replica) else {
                if tracker.replication.others.is_past(replica) {
                    removed.push(phx_ref.clone());
                }
                continue;
            };
            let is_there = peer.state().contains(entry);
            let maker = self.nodes.iter().find(|node| node.tracker.replica == *replica);
            let is_live = maker.is_some_and(|node| node.tracker.replication.own.contains(entry));
            if peer.state().seen().contains(entry.dot()) && !is_there {
                assert!(!is_live, "{entry:?} was removed by nobody");
                removed.push(phx_ref.clone());
            }
        }
        let Node { view, buried, .. } = &mut self.nodes[index];
        buried.extend(removed);
        assert!(view.iter().all(|(.., phx_ref)| !buried.contains(phx_ref)), "one rose");
    }
}

fn tracker(node: usize, incarnation: u64) -> Tracker {
    let config = Config {
        heartbeat: Duration::from_millis(500),
        down_after: Duration::from_millis(1500),
        gone_after: Duration::from_secs(5),
        max_log: 4,
        max_message: 400,
    };
    Tracker::with_config(Replica { name: name(node), incarnation }, config)
}

fn name(node: usize) -> SmolStr {
    format_smolstr!("node{node}")
}

fn topics() -> [SmolStr; 2] {
    ["room:1".into(), "room:2".into()]
}

/// An owner, a topic and a key.
fn place(value: usize) -> (u64, SmolStr, SmolStr) {
    let [first, second] = topics();
    let topic = if value & 1 == 0 { first } else { second };
    ((value / 8 % 3) as u64, topic, format_smolstr!("key{}", value / 2 % 2))
}

fn shown(entry: &Entry) -> Shown {
    (entry.topic().clone(), entry.key().clone(), entry.phx_ref().clone())
}

fn apply(changes: &Changes, view: &mut BTreeSet<Shown>) {
    for entry in &changes.leaves {
        assert!(view.remove(&shown(entry)), "{entry:?} left and was not there");
    }
    for entry in &changes.joins {
        assert!(view.insert(shown(entry)), "{entry:?} joined and was there");
        assert!(!changes.leaves.contains(entry), "{entry:?} joined and left");
    }
}

/// All that is shown, by topics and keys, and under each key oldest first.
fn listed(tracker: &Tracker) -> Vec<Entry> {
    let mut listed = Vec::new();
    for topic in tracker.topics.names().collect::<BTreeSet<_>>() {
        let snapshot = tracker.list(topic);
        let keys: BTreeMap<_, _> = snapshot.iter().collect();
        for (key, metas) in keys {
            assert_eq!(metas.iter().count(), tracker.get_by_key(topic, key).len());
            assert!(metas.iter().is_sorted(), "not oldest first");
            listed.extend(metas.iter().cloned());
        }
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// xorshift64*
    fn random(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn nodes_agree_after_whatever_happened_to_them() {
        let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok());
        for seed in 1..=seeds.unwrap_or(30) {
            let bytes = random(seed, 600);
            let result = std::panic::catch_unwind(|| walk(&bytes));
            assert!(result.is_ok(), "seed {seed}");
        }
    }
}
