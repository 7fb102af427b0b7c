//! A model checker for replication: three nodes on a faulty network, compared with a simple model.
//! Used by the tests and the fuzz targets; not part of the API.
//!
//! Bytes drive the simulation. The network loses, duplicates, delays and reorders messages. Links
//! fail in either direction, nodes go deaf, stop, restart under a new id or say goodbye; others take
//! those that are silent for down, and for gone after a while. The model records what each node
//! tracks and which entries must not be visible. At the end all is repaired, and the nodes must
//! converge.

mod node;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use smol_str::{SmolStr, format_smolstr};

use self::node::{Node, Packet};
use super::message::Message;
use super::state::Diff;
use crate::adapter::NodeId;
use crate::presence::tracker::{Entry, Owner, Replica, Tracker};

const NODES: usize = 3;

/// The maximum number of messages in flight. The oldest are lost first.
const IN_FLIGHT: usize = 40;

/// Runs the steps that the bytes encode, then repairs the network and waits for convergence.
///
/// # Panics
/// If a node shows a removed entry, if the diffs that it returned disagree with its listing, or if
/// the nodes do not converge to exactly the entries that all running nodes track.
pub fn walk(bytes: &[u8]) {
    let mut cluster = Cluster::new();
    for step in bytes.chunks_exact(2) {
        cluster.step(step[0], usize::from(step[1]));
    }
    cluster.converge();
}

/// Passes arbitrary bytes as a message to a replica that knows one other.
///
/// # Panics
/// If a rejected message had an effect, if receiving an accepted one is not idempotent, or if an
/// accepted message does not survive encoding and decoding.
pub fn receive(bytes: &[u8]) {
    let mut cluster = Cluster::new();
    (0..6).for_each(|value| cluster.track(value % 2, value * 7));
    cluster.settle();
    let from = cluster.nodes[1].id;
    let decode = |bytes: &[u8]| Message::decode(bytes, Replica { node: from, shard: 0 });
    let Ok(message) = decode(bytes) else { return cluster.check_view(0) };
    let encoded = message.encode();
    let decoded = decode(encoded.as_bytes()).expect("an encoded message");
    assert_eq!(decoded.encode(), encoded);
    let Node { tracker, view, .. } = &mut cluster.nodes[0];
    apply(&tracker.receive(from, message, cluster.now).visible, view);
    let again = tracker.receive(from, decoded, cluster.now).visible;
    assert!(again.joins.is_empty() && again.leaves.is_empty(), "receiving is not idempotent");
    cluster.check_view(0);
}

struct Cluster {
    now: Duration,
    nodes: Vec<Node>,
    network: Vec<InFlight>,
    /// The broken links: sender, recipient.
    cut_links: HashSet<(usize, usize)>,
    /// The entries that each node ever created, by dot.
    created: BTreeMap<NodeId, BTreeMap<u64, Entry>>,
}

#[derive(Clone)]
struct InFlight {
    from: NodeId,
    /// The place of the recipient.
    to: usize,
    /// If it is for one node, it does not reach the next one at this place.
    only: Option<NodeId>,
    packet: Packet,
}

impl Cluster {
    fn new() -> Self {
        Self {
            now: Duration::ZERO,
            nodes: (0..NODES).map(|place| Node::new(NodeId(place as u64))).collect(),
            network: Vec::new(),
            cut_links: HashSet::new(),
            created: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: u8, value: usize) {
        let (node, to) = (value % NODES, value / NODES % NODES);
        match step % 26 {
            0..=4 => self.track(node, value / NODES),
            5..=6 => self.update(node, value / NODES),
            7..=8 => self.untrack(node, value / NODES),
            9 => self.untrack_all(node, value / NODES),
            10..=12 => self.advance(Duration::from_millis(value as u64 * 2)),
            13..=16 => self.deliver(value, false),
            17 => self.deliver(value, true),
            18 if !self.network.is_empty() => {
                self.network.swap_remove(value % self.network.len());
            }
            19 => drop(self.cut_links.insert((node, to))),
            20 => drop(self.cut_links.remove(&(node, to))),
            21 if value >= 176 => self.restart(node),
            21 if value < 16 => self.leave(node),
            21 if value < 32 => self.nodes[node].is_running = false,
            22 if value >= 192 => (0..15).for_each(|_| self.advance(Duration::from_millis(400))),
            22 if value < 64 => (0..4).for_each(|_| self.advance(Duration::from_millis(400))),
            23 => self.deliver_all(),
            24 if value < 64 => self.nodes[node].is_deaf = true,
            24..=25 => self.nodes[node].hear_again(self.now),
            _ => {}
        }
        if step % 26 < 10 {
            self.check(node);
        }
    }

    fn track(&mut self, node: usize, value: usize) {
        let Node { tracker, is_running: true, tracked, view, .. } = &mut self.nodes[node] else {
            return;
        };
        let (owner, topic, key) = target(value);
        let meta = format_smolstr!("{{\"v\":{value}}}");
        let result = tracker.track(Owner(owner), &topic, &key, meta.as_str().into());
        let id = (owner, topic, key);
        assert_eq!(result.is_err(), tracked.contains_key(&id));
        let Ok(entry) = result else { return };
        tracked.insert(id, meta);
        assert!(view.insert(entry));
    }

    fn update(&mut self, node: usize, value: usize) {
        let Node { tracker, is_running: true, tracked, view, .. } = &mut self.nodes[node] else {
            return;
        };
        let (owner, topic, key) = target(value);
        let meta = format_smolstr!("{{\"u\":{value}}}");
        let change = |_: &_| meta.as_str().into();
        let Ok((old, new)) = tracker.update(Owner(owner), &topic, &key, change) else {
            return assert!(!tracked.contains_key(&(owner, topic, key)));
        };
        assert_eq!(new.prev(), Some(old.phx_ref()));
        assert_eq!(tracked.insert((owner, topic, key), meta).as_deref(), Some(&**old.meta()));
        assert!(view.remove(&old) && view.insert(new));
    }

    fn untrack(&mut self, node: usize, value: usize) {
        let Node { tracker, is_running: true, tracked, view, .. } = &mut self.nodes[node] else {
            return;
        };
        let (owner, topic, key) = target(value);
        let old = tracker.untrack(Owner(owner), &topic, &key);
        assert_eq!(old.is_some(), tracked.remove(&(owner, topic, key)).is_some());
        assert!(old.is_none_or(|old| view.remove(&old)));
    }

    fn untrack_all(&mut self, node: usize, value: usize) {
        let Node { tracker, is_running: true, tracked, view, .. } = &mut self.nodes[node] else {
            return;
        };
        let (owner, ..) = target(value);
        let before = tracked.len();
        tracked.retain(|(other, ..), _| *other != owner);
        let removed = tracker.untrack_all(Owner(owner));
        assert_eq!(removed.len(), before - tracked.len());
        removed.iter().for_each(|old| assert!(view.remove(old)));
    }

    /// Advances the time on all running nodes.
    fn advance(&mut self, time: Duration) {
        self.now += time;
        for node in 0..NODES {
            if self.nodes[node].is_running {
                let packets = self.nodes[node].tick(self.now);
                self.send(node, None, packets);
                self.check_view(node);
            }
        }
    }

    fn send(&mut self, from: usize, only: Option<NodeId>, packets: Vec<Packet>) {
        for packet in packets {
            for to in 0..NODES {
                let is_recipient = to != from && only.is_none_or(|only| self.nodes[to].id == only);
                if is_recipient && !self.cut_links.contains(&(from, to)) {
                    let (from, packet) = (self.nodes[from].id, packet.clone());
                    self.network.push(InFlight { from, to, only, packet });
                }
            }
        }
        let excess = self.network.len().saturating_sub(IN_FLIGHT);
        self.network.drain(..excess);
    }

    /// Delivers one of the messages in flight. If it is `duplicated`, a copy stays in flight.
    fn deliver(&mut self, value: usize, duplicated: bool) {
        if self.network.is_empty() {
            return;
        }
        let index = value % self.network.len();
        let InFlight { from, to, only, packet } = match duplicated {
            true => self.network[index].clone(),
            false => self.network.swap_remove(index),
        };
        let node = &mut self.nodes[to];
        if node.is_running && !node.is_deaf && only.is_none_or(|only| node.id == only) {
            let replies = node.receive(from, packet, self.now);
            self.send(to, Some(from), replies);
            self.check_view(to);
            self.check_removals(to, from);
        }
    }

    fn deliver_all(&mut self) {
        let mut count = 0;
        while !self.network.is_empty() {
            self.deliver(count * 7, false);
            count += 1;
            assert!(count < 2000, "the exchange of messages does not end");
        }
    }

    /// Starts another node at this place, which tracks nothing.
    fn restart(&mut self, place: usize) {
        let id = NodeId(self.nodes[place].id.0 + NODES as u64);
        self.nodes[place] = Node::new(id);
    }

    /// Stops a node after it has told the others.
    fn leave(&mut self, place: usize) {
        if std::mem::take(&mut self.nodes[place].is_running) {
            self.send(place, None, vec![Packet::Bye]);
        }
    }

    /// Repairs everything and asserts that the nodes converge, at the latest once stopped nodes are
    /// down, and stay converged.
    fn converge(&mut self) {
        self.cut_links.clear();
        self.nodes.iter_mut().for_each(|node| node.hear_again(self.now));
        for _ in 0..12 {
            self.settle();
            if (0..NODES).all(|node| self.is_converged(node)) {
                break;
            }
        }
        self.settle();
        for node in 0..NODES {
            let Node { id, tracker, .. } = &self.nodes[node];
            assert!(self.is_converged(node), "{id}: {:?}", listed(tracker));
        }
        let listings: HashSet<Vec<_>> = self
            .nodes
            .iter()
            .filter(|node| node.is_running)
            .map(|node| listed(&node.tracker))
            .map(|listed| {
                listed.iter().map(|it| (it.phx_ref().clone(), it.prev().cloned())).collect()
            })
            .collect();
        assert!(listings.len() <= 1, "the order of the metas differs between nodes");
    }

    /// Returns whether a node is stopped, or shows exactly what all running nodes track.
    fn is_converged(&self, node: usize) -> bool {
        let running = self.nodes.iter().filter(|node| node.is_running);
        let tracked = running.flat_map(|node| &node.tracked);
        let mut tracked: Vec<_> =
            tracked.map(|((_, topic, key), meta)| (&**topic, &**key, &**meta)).collect();
        tracked.sort_unstable();
        let Node { tracker, is_running, .. } = &self.nodes[node];
        let listed = listed(tracker);
        let mut visible: Vec<_> = listed
            .iter()
            .map(|entry| (&**entry.topic(), &**entry.key(), &**entry.meta()))
            .collect();
        visible.sort_unstable();
        !is_running || visible == tracked
    }

    /// Delivers a heartbeat of every node, and all messages that result from it.
    fn settle(&mut self) {
        self.deliver_all();
        self.advance(Duration::from_millis(500));
        self.deliver_all();
        (0..12).for_each(|_| self.nodes.iter_mut().for_each(Node::settle));
    }

    /// Records what a node has created, and checks its listing.
    fn check(&mut self, node: usize) {
        self.check_view(node);
        let Node { id, tracker, .. } = &self.nodes[node];
        let created = self.created.entry(*id).or_default();
        for entry in tracker.replication.iter().flat_map(|it| it.local.entries()) {
            created.entry(entry.dot()).or_insert_with(|| entry.clone());
        }
    }

    /// Asserts that the diffs of a node add up to its listing.
    fn check_view(&self, node: usize) {
        let Node { tracker, view, .. } = &self.nodes[node];
        let mut count = 0;
        for topic in tracker.topics.names() {
            for entry in tracker.list(topic).iter().flat_map(|(_, metas)| metas.iter()) {
                assert!(view.contains(entry), "{entry:?} did not join");
                count += 1;
            }
        }
        assert_eq!(count, view.len(), "an entry is listed twice, or has not left");
    }

    /// Asserts that a node lacks an observed entry of another only if that removed it, and that no
    /// entry reappears whose removal was observed, unless all of its node was forgotten since.
    fn check_removals(&mut self, place: usize, from: NodeId) {
        let origin = self.nodes.iter().find(|node| node.id == from);
        let origin = origin.and_then(|node| node.tracker.replication.as_ref());
        let Some(peer) = self.nodes[place].peer(from) else { return };
        let mut newly_removed = Vec::new();
        for (dot, entry) in self.created.get(&from).into_iter().flatten() {
            if peer.state().context().contains(*dot) && !peer.state().contains(entry) {
                let is_live_there = origin.is_some_and(|origin| origin.local.contains(entry));
                assert!(!is_live_there, "{entry:?} is missing but was not removed");
                newly_removed.push(*dot);
            }
        }
        let mut live: HashSet<_> = peer.state().entries().map(Entry::dot).collect();
        let removed = self.nodes[place].removed.entry(from).or_default();
        removed.extend(newly_removed);
        live.retain(|dot| removed.contains(dot));
        assert!(live.is_empty(), "removed entries reappeared: {live:?}");
    }
}

fn topics() -> [SmolStr; 2] {
    ["room:1".into(), "room:2".into()]
}

/// The owner, topic and key that a value stands for.
fn target(value: usize) -> (u64, SmolStr, SmolStr) {
    let [first, second] = topics();
    let topic = if value & 1 == 0 { first } else { second };
    ((value / 8 % 3) as u64, topic, format_smolstr!("key{}", value / 2 % 2))
}

fn apply(diff: &Diff, view: &mut BTreeSet<Entry>) {
    for entry in &diff.leaves {
        assert!(view.remove(entry), "{entry:?} left but was not visible");
    }
    for entry in &diff.joins {
        assert!(view.insert(entry.clone()), "{entry:?} joined but was visible already");
        assert!(!diff.leaves.contains(entry), "{entry:?} joined and left in one diff");
    }
}

/// All visible entries by topic and key, those of a key oldest first.
fn listed(tracker: &Tracker) -> Vec<Entry> {
    let mut listed = Vec::new();
    for topic in tracker.topics.names().collect::<BTreeSet<_>>() {
        let snapshot = tracker.list(topic);
        let keys: BTreeMap<_, _> = snapshot.iter().collect();
        assert_eq!(tracker.count(topic), keys.len());
        for (key, metas) in keys {
            assert_eq!(metas.iter().count(), tracker.get_by_key(topic, key).len());
            assert!(metas.iter().is_sorted(), "the metas of a key are not oldest first");
            listed.extend(metas.iter().cloned());
        }
    }
    listed
}

#[cfg(test)]
mod tests;
