//! [`PendingDiff`]: the changes of a topic that are yet to be announced.

use std::collections::{BTreeMap, HashMap};

use smol_str::SmolStr;

use super::tracker::Entry;

/// The joins and leaves of a topic since its last diff.
///
/// An entry that came and went in between is not announced, unless a list that was read meanwhile
/// has it. So the size is bounded by the entries that are present and those that were announced.
#[derive(Debug, Default)]
pub(super) struct PendingDiff {
    joins: BTreeMap<u64, Entry>,
    leaves: Vec<Entry>,
    /// The keys of the joins that no list has, by `phx_ref`.
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

    /// A list of the topic is read: it has all joins so far.
    pub(super) fn mark_seen(&mut self) {
        self.unseen = HashMap::new();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.joins.is_empty() && self.leaves.is_empty()
    }

    /// The joins and the leaves, each in order.
    pub(super) fn into_changes(self) -> (Vec<Entry>, Vec<Entry>) {
        (self.joins.into_values().collect(), self.leaves)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tracker::{Owner, Replica, Tracker};
    use super::*;
    use crate::adapter::NodeId;

    fn entries(count: u64) -> Vec<Entry> {
        let replica = Replica { node: NodeId(1), shard: 0 };
        let mut tracker = Tracker::new(replica);
        let mut track = |owner| {
            let entry = tracker.track(Owner(owner), &"t".into(), &"k".into(), "{}".into());
            entry.expect("each owner tracks once")
        };
        (0..count).map(&mut track).collect()
    }

    #[test]
    fn an_entry_that_came_and_went_unseen_is_not_announced() {
        let all = entries(2);
        let mut pending = PendingDiff::default();
        pending.join(all[0].clone());
        pending.join(all[1].clone());
        pending.leave(all[0].clone());
        assert_eq!(pending.into_changes(), (vec![all[1].clone()], vec![]));
    }

    #[test]
    fn an_entry_that_a_list_had_is_announced_although_it_is_gone() {
        let all = entries(1);
        let mut pending = PendingDiff::default();
        pending.join(all[0].clone());
        pending.mark_seen();
        pending.leave(all[0].clone());
        assert_eq!(pending.into_changes(), (all.clone(), all));
    }

    #[test]
    fn a_thousand_updates_between_two_diffs_leave_one_join() {
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
