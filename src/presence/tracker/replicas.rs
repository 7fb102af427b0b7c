//! The other replicas: who is up, who is down, who is gone for good.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use smol_str::SmolStr;

use super::clock::Seen;
use super::entry::Replica;
use super::state::{Fragment, State};
use super::{Changes, Config};

/// The most that are known at a time, this one included. Further ones are ignored.
pub(super) const MAX_REPLICAS: usize = 1024;

/// How many of those that are gone are remembered: the latest.
const MAX_GONE: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Replicas {
    /// By name: an older incarnation ends when a newer one is heard of.
    known: BTreeMap<SmolStr, Peer>,
    /// The highest incarnation that was given up, so that nothing late brings it back.
    gone: HashMap<SmolStr, u64>,
    gone_order: VecDeque<SmolStr>,
}

#[derive(Debug)]
pub(super) struct Peer {
    replica: Replica,
    state: State,
    /// When it was heard last, or first heard of.
    heard: Duration,
    /// Whether its entries are shown.
    is_up: bool,
    asked: Option<Duration>,
}

impl Replicas {
    pub(super) fn get(&self, replica: &Replica) -> Option<&Peer> {
        self.known.get(&replica.name).filter(|peer| peer.replica == *replica)
    }

    pub(super) fn get_mut(&mut self, replica: &Replica) -> Option<&mut Peer> {
        self.known.get_mut(&replica.name).filter(|peer| peer.replica == *replica)
    }

    /// What has been seen of a replica.
    pub(super) fn seen(&self, replica: &Replica) -> Seen {
        self.get(replica).map(|peer| peer.state.seen().clone()).unwrap_or_default()
    }

    /// All, and how far they have been seen without a gap.
    pub(super) fn clock(&self) -> impl Iterator<Item = (Replica, u64)> {
        self.known.values().map(|peer| (peer.replica.clone(), peer.state.seen().prefix()))
    }

    /// The newest incarnation of a node that is known or gone.
    pub(super) fn newest(&self, name: &str) -> Option<u64> {
        let known = self.known.get(name).map(|peer| peer.replica.incarnation);
        known.max(self.gone.get(name).copied())
    }

    /// Whether nothing may be learned of this replica any more.
    pub(super) fn is_past(&self, replica: &Replica) -> bool {
        let is_gone = self.gone.get(&replica.name).is_some_and(|gone| replica.incarnation <= *gone);
        is_gone || self.newest(&replica.name).is_some_and(|newest| replica.incarnation < newest)
    }

    pub(super) fn is_up(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|peer| peer.is_up)
    }

    /// A replica that was heard, or heard of. An earlier incarnation ends with that.
    pub(super) fn admit(
        &mut self,
        replica: &Replica,
        now: Duration,
        changes: &mut Changes,
    ) -> Option<&mut Peer> {
        if self.is_past(replica) {
            return None;
        }
        let is_known = self.known.contains_key(&replica.name);
        if !is_known && self.known.len() + 1 >= MAX_REPLICAS {
            return None;
        }
        let new = || Peer {
            replica: replica.clone(),
            state: State::default(),
            heard: now,
            is_up: true,
            asked: None,
        };
        let peer = self.known.entry(replica.name.clone()).or_insert_with(new);
        if peer.replica.incarnation < replica.incarnation {
            peer.hide(changes);
            *peer = new();
        }
        Some(peer)
    }

    /// Hides who has been silent for long and forgets who has been for too long.
    pub(super) fn expire(&mut self, now: Duration, config: &Config, changes: &mut Changes) {
        let mut gone = Vec::new();
        self.known.retain(|_, peer| {
            let silence = now.saturating_sub(peer.heard);
            let is_gone = silence >= config.gone_after;
            if is_gone || silence >= config.down_after {
                peer.hide(changes);
            }
            if is_gone {
                gone.push(peer.replica.clone());
            }
            !is_gone
        });
        gone.into_iter().for_each(|replica| self.give_up(replica));
    }

    /// For a time in which this replica did not listen nobody else is to blame.
    pub(super) fn excuse(&mut self, time: Duration, now: Duration) {
        for peer in self.known.values_mut() {
            peer.heard = (peer.heard + time).min(now);
        }
    }

    fn give_up(&mut self, Replica { name, incarnation }: Replica) {
        if self.gone.insert(name.clone(), incarnation).is_some() {
            self.gone_order.retain(|other| *other != name);
        }
        self.gone_order.push_back(name);
        if self.gone_order.len() > MAX_GONE
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }
}

impl Peer {
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Takes in what a fragment says of it.
    pub(super) fn merge(&mut self, fragment: Fragment, changes: &mut Changes) {
        let merged = self.state.merge(fragment);
        if self.is_up {
            changes.joins.extend(merged.joins);
            changes.leaves.extend(merged.leaves);
        }
    }

    /// It was heard itself. Says whether it had been down.
    pub(super) fn hear(&mut self, now: Duration, changes: &mut Changes) -> bool {
        self.heard = now;
        let was_up = std::mem::replace(&mut self.is_up, true);
        if !was_up {
            changes.joins.extend(self.state.entries().cloned());
        }
        !was_up
    }

    /// Whether to ask it for what is missing: not again before it had the time to answer.
    pub(super) fn ask(&mut self, now: Duration, pause: Duration) -> bool {
        let may = self.asked.is_none_or(|asked| now.saturating_sub(asked) >= pause);
        if may {
            self.asked = Some(now);
        }
        may
    }

    fn hide(&mut self, changes: &mut Changes) {
        if std::mem::replace(&mut self.is_up, false) {
            changes.leaves.extend(self.state.entries().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use smol_str::format_smolstr;

    use super::*;

    fn replica(number: usize) -> Replica {
        Replica { name: format_smolstr!("{number}"), incarnation: 1 }
    }

    #[test]
    fn the_latest_of_those_that_are_gone_are_remembered() {
        let mut replicas = Replicas::default();
        (0..3 * MAX_GONE).for_each(|number| replicas.give_up(replica(number)));
        replicas.give_up(replica(3 * MAX_GONE - 1));
        assert_eq!((replicas.gone.len(), replicas.gone_order.len()), (MAX_GONE, MAX_GONE));
        assert!(replicas.is_past(&replica(3 * MAX_GONE - 1)));
        assert!(!replicas.is_past(&replica(0)));
    }

    #[test]
    fn no_more_replicas_are_known_than_may_be() {
        let mut replicas = Replicas::default();
        for number in 0..2 * MAX_REPLICAS {
            replicas.admit(&replica(number), Duration::ZERO, &mut Changes::default());
        }
        assert_eq!(replicas.known.len(), MAX_REPLICAS - 1);
        let again = replicas.admit(&replica(1), Duration::ZERO, &mut Changes::default());
        assert!(again.is_some());
    }
}
