//! [`Members`]: the other nodes, as far as this one hears them.
//!
//! A node that was silent for too long is *down*: its presences are hidden until it is heard again. A node that
//! says goodbye, or stays down, is *gone*. Nothing is elected, and nobody is asked for its opinion of others.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::config::ClusterConfig;
use super::sequence::Sequence;
use super::wire::{Beat, Header, Resend, Versions};
use crate::adapter::NodeId;

/// The other nodes. Plain code: time is an argument.
#[derive(Debug)]
pub(crate) struct Members {
    config: ClusterConfig,
    versions: Versions,
    members: BTreeMap<NodeId, Member>,
    /// The latest that said goodbye: what they have sent before may come after it.
    left: VecDeque<NodeId>,
    /// When the node last heard itself.
    heard_self: Duration,
    last_tick: Duration,
    /// Whether every frame of every sender is heard, and in order.
    hears_all: bool,
}

#[derive(Debug)]
pub(crate) struct Member {
    /// What it said of itself last.
    pub(crate) beat: Option<Beat>,
    pub(crate) is_up: bool,
    last_heard: Duration,
    /// Since when the engine has said that it does not hear.
    nobody_since: Option<Duration>,
    last_probe: Duration,
    /// Whether it has not been heard since this node itself did not hear: it may have sent what nobody here knows
    /// of.
    is_unconfirmed: bool,
    topics: Sequence,
    /// The number of the frame to a topic that is being delivered.
    delivering: Option<u64>,
    /// How old it was when this node began to exist, in milliseconds: what it disconnected before concerns no socket of
    /// this node.
    since: u64,
    /// The number of its last disconnect that was carried out. `None` until it is known which concern this node.
    disconnects: Option<u64>,
}

/// A change of membership, or what it entails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is heard, for the first time or again.
    Up(NodeId),
    Down(NodeId),
    /// It will not come back.
    Gone(NodeId),
    /// Frames to topics have not come that this node sent.
    Missing(NodeId),
    /// It is heard, but there are too many.
    Ignored(NodeId),
}

/// What is due.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) changes: Vec<Change>,
    /// The nodes to ask whether they hear, since they were silent.
    pub(crate) probe: Vec<NodeId>,
    /// The node has not heard itself for a while: it is deaf.
    pub(crate) is_deaf: bool,
}

/// How many nodes are known at most. Others are ignored.
const MAX_MEMBERS: usize = 1024;

/// Until this age a node has no clients that could have missed anything.
pub(super) const YOUNG: Duration = Duration::from_secs(1);

impl Members {
    pub(crate) fn new(config: &ClusterConfig, versions: Versions, hears_all: bool) -> Self {
        Self {
            config: config.clone(),
            versions,
            members: BTreeMap::new(),
            left: VecDeque::new(),
            heard_self: Duration::ZERO,
            last_tick: Duration::ZERO,
            hears_all,
        }
    }

    /// The nodes and what is known of them, gone ones excepted.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(id, member)| (*id, member))
    }

    /// Returns how many nodes are up, without this one.
    pub(crate) fn count_up(&self) -> usize {
        self.members.values().filter(|member| member.is_up).count()
    }

    /// Returns whether a node is known, also if it is silent.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.members.contains_key(&node)
    }

    /// Returns whether a node has left, or is silent.
    pub(crate) fn is_away(&self, node: NodeId) -> bool {
        let member = self.members.get(&node);
        member.map_or_else(|| self.left.contains(&node), |member| !member.is_up)
    }

    /// Returns whether a node has said goodbye, of the latest that have.
    pub(crate) fn has_left(&self, node: NodeId) -> bool {
        self.left.contains(&node)
    }

    /// The version to write: the highest that all nodes read, also those that may come back. The lowest as long as one
    /// has not said what it reads, or none is known.
    pub(crate) fn version(&self) -> u8 {
        let Versions { min, max } = self.versions;
        let reads = |member: &Member| {
            let max = member.beat.as_ref().map(|beat| u8::try_from(beat.max_version));
            max.map_or(min, |max| max.unwrap_or(u8::MAX))
        };
        self.members.values().map(reads).min().map_or(min, |read| read.clamp(min, max))
    }

    /// A frame of this node itself has come back.
    pub(crate) fn hear_self(&mut self, now: Duration) {
        self.heard_self = now;
    }

    /// A frame of another node has come.
    pub(crate) fn hear(&mut self, from: NodeId, now: Duration) -> Option<Change> {
        let is_full = self.members.len() >= MAX_MEMBERS;
        let member = match self.members.entry(from) {
            Entry::Occupied(member) => member.into_mut(),
            Entry::Vacant(_) if self.left.contains(&from) => return None,
            Entry::Vacant(_) if is_full => return Some(Change::Ignored(from)),
            Entry::Vacant(place) => place.insert(Member::new()),
        };
        member.last_heard = now;
        member.nobody_since = None;
        let was_up = std::mem::replace(&mut member.is_up, true);
        (!was_up).then_some(Change::Up(from))
    }

    /// A beat has come, from a node that was [heard](Self::hear). `age` is how long this node has existed.
    pub(crate) fn beat(&mut self, from: NodeId, beat: Beat, age: Duration) -> Option<Change> {
        let member = self.members.get_mut(&from)?;
        member.is_unconfirmed = false;
        let (is_first, is_younger) = (member.beat.is_none(), is_younger(&beat, age));
        if is_first {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            // A beat that is late says that this node has begun earlier.
            member.since = beat.age.saturating_sub(age);
        }
        let mut is_missing = false;
        if self.hears_all {
            if is_first {
                is_missing = match is_younger {
                    true => member.topics.begin_after(0),
                    // It was there when this node began, which has not heard it since.
                    false => age >= YOUNG,
                };
            }
            is_missing |= member.topics.announce(beat.topics);
        }
        if beat.disconnects == 0 {
            member.disconnects.get_or_insert(0);
        }
        member.beat = Some(beat);
        is_missing.then_some(Change::Missing(from))
    }

    /// A frame to a topic has come, from a node that was [heard](Self::hear). Returns `false` if it has come before. If it
    /// `is_wanted` and has not, it is being delivered until [`deliver`](Self::deliver).
    pub(crate) fn receive(&mut self, header: Header, is_wanted: bool) -> bool {
        let member = self.members.get_mut(&header.from).filter(|_| self.hears_all);
        member.is_none_or(|member| {
            let is_new = member.topics.receive(header.number);
            member.delivering = (is_new && is_wanted).then_some(header.number);
            is_new
        })
    }

    /// A frame to a topic is delivered.
    pub(crate) fn deliver(&mut self, header: Header) {
        if let Some(member) = self.members.get_mut(&header.from) {
            member.delivering = None;
        }
    }

    /// The highest number of a frame to a topic that has come from each node that is up, or that it has announced. Empty
    /// if lost frames are not noticed by their numbers.
    pub(crate) fn heard(&self) -> impl Iterator<Item = (NodeId, u64)> {
        let judged = self.iter().filter(|(_, member)| self.hears_all && member.is_up);
        let numbers = judged.filter_map(|(id, member)| Some((id, member.topics.last()?)));
        numbers.filter(|(_, number)| *number > 0)
    }

    /// Returns whether every frame to a topic of this node up to this number is delivered, or was never missed. True if
    /// lost frames are not noticed by their numbers.
    pub(crate) fn has_heard(&self, (node, number): (NodeId, u64)) -> bool {
        let has_come = |member: &Member| {
            let is_delivered = member.delivering.is_none_or(|under_way| number < under_way);
            is_delivered && member.topics.has_all_until(number)
        };
        // A node that has left here sends nothing that could come.
        let has_left = || self.left.contains(&node);
        !self.hears_all || self.members.get(&node).map_or_else(has_left, has_come)
    }

    /// A node says that these of its frames were not sent.
    pub(crate) fn explain(&mut self, from: NodeId, numbers: &[u64]) {
        if let Some(member) = self.members.get_mut(&from) {
            member.topics.explain(numbers);
        }
    }

    /// The number of the first disconnect of this node that is not carried out yet, if it is known.
    pub(crate) fn next_disconnect(&self, from: NodeId) -> Option<u64> {
        self.members.get(&from)?.disconnects.map(|last| last.saturating_add(1))
    }

    /// What to ask this node for whose last beat tells of disconnects that are not carried out.
    pub(crate) fn missing_disconnects(&self, from: NodeId) -> Option<Resend> {
        let member = self.members.get(&from)?;
        let first = self.next_disconnect(from).unwrap_or(1);
        let is_missing = first <= member.beat.as_ref()?.disconnects;
        is_missing.then_some(Resend { first, since: member.since })
    }

    /// The disconnects of this node up to this number are carried out.
    pub(crate) fn disconnected(&mut self, from: NodeId, number: u64) {
        if let Some(member) = self.members.get_mut(&from) {
            member.disconnects = member.disconnects.max(Some(number));
        }
    }

    /// A node has said goodbye. `topics` is the number of its last frame to a topic.
    pub(crate) fn bye(&mut self, from: NodeId, topics: u64) -> Vec<Change> {
        if !self.left.contains(&from) {
            self.left.push_back(from);
            if self.left.len() > MAX_MEMBERS {
                self.left.pop_front();
            }
        }
        let Some(mut member) = self.members.remove(&from) else { return Vec::new() };
        let is_missing = self.hears_all && member.topics.end(topics);
        let missing = is_missing.then_some(Change::Missing(from));
        std::iter::once(Change::Gone(from)).chain(missing).collect()
    }

    /// The engine says that this node does not hear it.
    pub(crate) fn nobody(&mut self, node: NodeId, now: Duration) {
        if let Some(member) = self.members.get_mut(&node) {
            member.nobody_since.get_or_insert(now);
        }
    }

    /// This node does not hear the engine any more.
    pub(crate) fn link_down(&mut self) {
        self.members.values_mut().for_each(|member| member.is_unconfirmed = true);
    }

    /// This node hears the engine again. Its own silence is not held against the others.
    pub(crate) fn link_up(&mut self, now: Duration) {
        self.heard_self = now;
        for member in self.members.values_mut() {
            (member.last_heard, member.nobody_since) = (now, None);
        }
    }

    /// Returns whether lost frames are noticed by their numbers.
    pub(crate) fn sees_gaps(&self) -> bool {
        self.hears_all && self.members.values().all(|member| member.topics.has_begun())
    }

    /// Whether every topic is heard from now on. Returns whether frames may have been missed before, which will not be
    /// noticed any more.
    pub(crate) fn set_hears_all(&mut self, hears_all: bool) -> bool {
        let heard_all = std::mem::replace(&mut self.hears_all, hears_all);
        let is_in_doubt = |it: &Member| it.is_unconfirmed || it.topics.is_incomplete();
        let is_missing = heard_all && self.members.values().any(is_in_doubt);
        self.members.values_mut().for_each(|member| member.topics.forget());
        is_missing
    }

    /// Looks at the clock. To be called several times per beat, while the link is up.
    pub(crate) fn tick(&mut self, now: Duration) -> Due {
        let ClusterConfig { beat, down_after, deaf_after, gone_after, .. } = self.config;
        self.excuse(now);
        let is_deaf = now.saturating_sub(self.heard_self) >= deaf_after;
        let mut due = Due { is_deaf, ..Due::default() };
        // Who does not hear itself has no reason to believe that others are silent.
        if now.saturating_sub(self.heard_self) >= beat.saturating_mul(2) {
            return due;
        }
        self.members.retain(|id, member| {
            let silence = now.saturating_sub(member.last_heard);
            // After an engine was away, its word does not count yet: the node may connect a little later.
            let nobody_since = member.nobody_since.filter(|_| !member.is_unconfirmed);
            let is_unheard = nobody_since.is_some_and(|it| now.saturating_sub(it) >= beat / 2);
            if member.is_up && (is_unheard || silence >= down_after) {
                member.is_up = false;
                due.changes.push(Change::Down(*id));
                if std::mem::take(&mut member.is_unconfirmed) || member.topics.has_missing() {
                    due.changes.push(Change::Missing(*id));
                    member.topics.forget();
                }
            } else if member.is_up
                && silence >= beat.saturating_mul(3) / 2
                && now.saturating_sub(member.last_probe) >= beat / 4
            {
                member.last_probe = now;
                due.probe.push(*id);
            }
            let is_gone = !member.is_up && silence >= gone_after;
            if is_gone {
                due.changes.push(Change::Gone(*id));
            }
            !is_gone
        });
        due
    }
}

impl Members {
    /// Does not hold against the others, nor the link, that this process itself did nothing for a while: what they sent
    /// meanwhile is yet to be read.
    fn excuse(&mut self, now: Duration) {
        let pause = now.saturating_sub(std::mem::replace(&mut self.last_tick, now));
        if pause < self.config.beat / 2 {
            return;
        }
        let later = |time: Duration| (time + pause).min(now);
        self.heard_self = later(self.heard_self);
        for member in self.members.values_mut() {
            (member.last_heard, member.nobody_since) = (later(member.last_heard), None);
        }
    }
}

/// Returns whether the sender of a beat began to exist after this node, which is so old.
fn is_younger(beat: &Beat, age: Duration) -> bool {
    Duration::from_millis(beat.age) < age
}

impl Member {
    fn new() -> Self {
        Self {
            beat: None,
            is_up: false,
            last_heard: Duration::ZERO,
            nobody_since: None,
            last_probe: Duration::ZERO,
            is_unconfirmed: false,
            topics: Sequence::default(),
            delivering: None,
            since: 0,
            disconnects: None,
        }
    }
}

#[cfg(test)]
mod tests;
