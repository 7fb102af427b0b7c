//! [`Node`]: a tracker, with the membership that a cluster keeps for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smol_str::SmolStr;

use super::apply;
use crate::adapter::NodeId;
use crate::presence::tracker::replication::peer::Peer;
use crate::presence::tracker::replication::{Config, Message, Standing};
use crate::presence::tracker::{Entry, Replica, Tracker};

/// What a node sends.
#[derive(Clone)]
pub(super) enum Packet {
    /// A heartbeat with the clock.
    Beat(u64),
    /// A message of the tracker.
    Presence(String),
    /// The last words of a node.
    Bye,
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) tracker: Tracker,
    pub(super) is_running: bool,
    /// Whether it hears nothing, itself included, and so does not take silence for an end.
    pub(super) is_deaf: bool,
    /// The metas that the node tracks, by owner, topic and key.
    pub(super) tracked: BTreeMap<(u64, SmolStr, SmolStr), SmolStr>,
    /// The listing as an observer of the diffs sees it.
    pub(super) view: BTreeSet<Entry>,
    /// The dots of the entries of others whose removal the node has observed.
    pub(super) removed: BTreeMap<NodeId, BTreeSet<u64>>,
    /// Whether there is anything to collect.
    changed: Arc<AtomicBool>,
    /// When the last heartbeat was sent.
    last_beat: Option<Duration>,
    /// When each of the others was heard last, and whether it is up.
    members: BTreeMap<NodeId, (Duration, bool)>,
    /// Those that have said goodbye.
    left: BTreeSet<NodeId>,
    /// Those whose entries are being shown or hidden.
    settling: BTreeSet<NodeId>,
}

const BEAT: Duration = Duration::from_millis(500);
const DOWN_AFTER: Duration = Duration::from_millis(1500);
const GONE_AFTER: Duration = Duration::from_secs(5);

/// How many entries are shown or hidden at a time.
const STEP: usize = 2;

impl Node {
    pub(super) fn new(id: NodeId) -> Self {
        let changed = Arc::new(AtomicBool::new(false));
        let pause = Duration::from_millis(250);
        let config = Config { max_removals: 4, max_message: 400, pause };
        let replica = Replica { node: id, shard: 0 };
        let tracker = Tracker::replicated(replica, config, Arc::clone(&changed));
        let (tracked, view, removed, members, left, settling) = Default::default();
        let (is_running, is_deaf, last_beat) = (true, false, None);
        Self {
            id,
            tracker,
            is_running,
            is_deaf,
            tracked,
            view,
            removed,
            changed,
            last_beat,
            members,
            left,
            settling,
        }
    }

    /// Looks at the clock. Returns what is to be sent to all.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<Packet> {
        self.expire(now);
        self.settle();
        let mut packets = Vec::new();
        if self.changed.swap(false, Ordering::Relaxed) {
            packets.extend(self.tracker.collect().into_messages().map(Packet::from));
        }
        if self.last_beat.is_none_or(|last| now - last >= BEAT) {
            self.last_beat = Some(now);
            packets.push(Packet::Beat(self.tracker.clock()));
        }
        packets
    }

    /// Handles what another node has sent, and returns what is to be sent to it.
    pub(super) fn receive(&mut self, from: NodeId, packet: Packet, now: Duration) -> Vec<Packet> {
        if self.left.contains(&from) {
            return Vec::new();
        }
        if let Packet::Bye = packet {
            self.left.insert(from);
            if self.members.remove(&from).is_some() {
                self.set_standing(from, Standing::Gone);
            }
            return Vec::new();
        }
        let was_up = self.members.insert(from, (now, true)).is_some_and(|(_, was_up)| was_up);
        if !was_up {
            self.set_standing(from, Standing::Up);
        }
        match packet {
            Packet::Beat(clock) => {
                self.tracker.hear_clock(from, clock, now).into_iter().map(Packet::from).collect()
            }
            Packet::Presence(json) => {
                let replica = Replica { node: from, shard: 0 };
                let message = Message::decode(json.as_bytes(), replica);
                let message = message.expect("a message of a replica");
                let received = self.tracker.receive(from, message, now);
                apply(&received.visible, &mut self.view);
                let replies = received.answer.into_messages().chain(received.request);
                replies.map(Packet::from).collect()
            }
            Packet::Bye => Vec::new(),
        }
    }

    /// It hears again. What the others sent meanwhile says nothing of them.
    pub(super) fn hear_again(&mut self, now: Duration) {
        if std::mem::take(&mut self.is_deaf) {
            self.members.values_mut().for_each(|(last_heard, _)| *last_heard = now);
        }
    }

    /// Takes a step towards the standing of each node that changed its own.
    pub(super) fn settle(&mut self) {
        for node in std::mem::take(&mut self.settling) {
            let settled = self.tracker.settle(node, STEP);
            apply(&settled.diff, &mut self.view);
            if settled.is_unfinished {
                self.settling.insert(node);
            } else if self.peer(node).is_none() {
                self.removed.remove(&node);
            }
        }
    }

    /// What its tracker knows of another node.
    pub(super) fn peer(&self, node: NodeId) -> Option<&Peer> {
        self.tracker.replication.as_ref()?.peers.get(&node)
    }

    fn expire(&mut self, now: Duration) {
        if self.is_deaf {
            return;
        }
        for (node, (last_heard, is_up)) in self.members.clone() {
            let silence = now - last_heard;
            if silence >= GONE_AFTER {
                self.members.remove(&node);
                self.set_standing(node, Standing::Gone);
            } else if silence >= DOWN_AFTER && is_up {
                self.members.insert(node, (last_heard, false));
                self.set_standing(node, Standing::Down);
            }
        }
    }

    fn set_standing(&mut self, node: NodeId, standing: Standing) {
        self.tracker.set_standing(node, standing);
        self.settling.insert(node);
    }
}

impl From<Message> for Packet {
    fn from(message: Message) -> Self {
        Self::Presence(message.encode())
    }
}
