//! What happened on a topic and was not announced yet.

use std::collections::{BTreeMap, HashMap};

use smol_str::SmolStr;

use super::tracker::Entry;

/// Comings and goings since the last announcement.
///
/// What came and went again in between need not be announced, unless a list was handed out meanwhile
/// that had it. So this is about as large as what is tracked and what was announced.
#[derive(Debug, Default)]
pub(super) struct PendingDiff {
    joins: BTreeMap<u64, Entry>,
    leaves: Vec<Entry>,
    /// The joins that nobody has seen, by their refs.
    unseen: HashMap<SmolStr, u64>,
    last: u64,
}

impl PendingDiff {
    pub(super) fn join(&mut self, entry: Entry) {
        self.last += 1;
        self.unseen.insert(entry.phx_ref().clone(), self.last);
        self.joins.insert(self.last, entry);
    }

    pub(super) fn leave(&mut self, entry: Entry) {
        match self.unseen.remove(entry.phx_ref()) {
            Some(join) => drop(self.joins.remove(&join)),
            None => self.leaves.push(entry),
        }
    }

    /// Somebody sees what is there.
    pub(super) fn seen(&mut self) {
        self.unseen = HashMap::new();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.joins.is_empty() && self.leaves.is_empty()
    }

    /// The joins and the leaves, in their order.
    pub(super) fn into_changes(self) -> (Vec<Entry>, Vec<Entry>) {
        (self.joins.into_values().collect(), self.leaves)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tracker::{Config, Owner, Replica, Tracker};
    use super::*;

    fn entries(count: u64) -> Vec<Entry> {
        let replica = Replica { name: "test".into(), incarnation: 1 };
        let mut tracker = Tracker::new(replica, Config::default());
        let mut track = |owner| {
            let entry = tracker.track(Owner(owner), &"t".into(), &"k".into(), "{}".into());
            entry.expect("each owner tracks once")
        };
        (0..count).map(&mut track).collect()
    }

    #[test]
    fn what_came_and_went_unseen_is_not_announced() {
        let all = entries(2);
        let mut pending = PendingDiff::default();
        pending.join(all[0].clone());
        pending.join(all[1].clone());
        pending.leave(all[0].clone());
        assert_eq!(pending.into_changes(), (vec![all[1].clone()], vec![]));
    }

    #[test]
    fn what_somebody_has_seen_is_announced_even_if_it_is_gone() {
        let all = entries(1);
        let mut pending = PendingDiff::default();
        pending.join(all[0].clone());
        pending.seen();
        pending.leave(all[0].clone());
        assert_eq!(pending.into_changes(), (all.clone(), all));
    }

    #[test]
    fn a_thousand_updates_between_two_announcements_leave_one_join() {
        let all = entries(1001);
        let mut pending = PendingDiff::default();
        pending.leave(all[0].clone());
        for pair in all[1..].windows(2) {
            pending.join(pair[0].clone());
            pending.leave(pair[0].clone());
        }
        pending.join(all[1000].clone());
        assert_eq!(pending.into_changes(), (vec![all[1000].clone()], vec![all[0].clone()]));
    }
}
