//! The state of one replica: an observed-remove set without tombstones.
//!
//! Every operation has a dot. An add creates the entry that carries its dot; a remove deletes one
//! entry. The state consists of the causal context, which holds the dots observed, and of the live
//! entries. An entry whose dot has been observed but which is not live has been removed, so a
//! remove leaves no tombstone behind, only dots, and those collapse into ranges.
//!
//! A [`Fragment`] is a delta: a subset of the dots, with their live entries. Merging is
//! commutative, associative and idempotent, so fragments may be duplicated, delayed and reordered.
//! This requires a fragment to be *causally closed*: if its context holds the dot of a remove, it
//! holds the dot of the removed entry as well.

use std::collections::{BTreeMap, VecDeque};

use super::clock::CausalContext;
use super::entry::{Diff, Entry, Replica};

/// The maximum number of ranges in a causal context. A fragment that would exceed it is dropped,
/// and requested again later.
const MAX_RANGES: usize = 1 << 20;

/// The approximate encoded size of an entry in bytes, without its topic, key and meta.
const ENTRY_OVERHEAD: usize = 96;

#[derive(Clone, Debug, Default)]
pub(super) struct ReplicaState {
    context: CausalContext,
    /// The live entries by dot.
    entries: BTreeMap<u64, Entry>,
}

/// A causally closed part of a replica's state.
#[derive(Clone, Debug)]
pub(super) struct Fragment {
    pub(super) replica: Replica,
    pub(super) context: CausalContext,
    /// The live entries in the context, in ascending order of their dots.
    pub(super) entries: Vec<Entry>,
}

/// The latest removes of the local replica.
///
/// A delta interval contains removes of entries that are older than the interval. The log supplies
/// the dots of those entries, which the state itself no longer has.
#[derive(Clone, Debug, Default)]
pub(super) struct RemovalLog {
    /// The dot of each remove and the dot of the entry it removed.
    removals: VecDeque<(u64, u64)>,
    /// The dot of the latest remove dropped from the log, or 0.
    truncated_to: u64,
}

impl ReplicaState {
    pub(super) fn context(&self) -> &CausalContext {
        &self.context
    }

    /// The live entries in ascending order of their dots.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn contains(&self, entry: &Entry) -> bool {
        self.entries.get(&entry.dot()) == Some(entry)
    }

    /// Applies an add of the local replica.
    pub(super) fn add(&mut self, entry: Entry) {
        self.context.insert(entry.dot());
        self.entries.insert(entry.dot(), entry);
    }

    /// Applies a remove of the local replica.
    ///
    /// An operation never both removes and adds, so an update takes two. Otherwise, once the new
    /// entry was removed in its turn, a delta would hold that operation's dot without the dot of
    /// the entry it had removed, and would not be causally closed.
    pub(super) fn remove(&mut self, dot: u64, entry: &Entry) {
        self.context.insert(dot);
        self.entries.remove(&entry.dot());
    }

    /// Merges a fragment and returns the entries that appeared and disappeared.
    pub(super) fn merge(&mut self, Fragment { context, entries, .. }: Fragment) -> Diff {
        let mut diff = Diff::default();
        let union = self.context.union(&context);
        if union.ranges().len() > MAX_RANGES {
            return diff;
        }
        let is_live = |dot: &u64| entries.binary_search_by_key(dot, Entry::dot).is_ok();
        for &(first, last) in context.ranges() {
            let removed = self.entries.range(first..=last).filter(|(dot, _)| !is_live(dot));
            diff.leaves.extend(removed.map(|(_, entry)| entry.clone()));
        }
        for entry in &diff.leaves {
            self.entries.remove(&entry.dot());
        }
        for entry in entries {
            if !self.context.contains(entry.dot()) {
                self.entries.insert(entry.dot(), entry.clone());
                diff.joins.push(entry);
            }
        }
        self.context = union;
        diff
    }

    /// Returns the delta between `known`, the context of another replica, and this state, as
    /// fragments of about `max_size` bytes.
    ///
    /// `log` is present if this is the state of the local replica. If it reaches back far enough,
    /// the delta starts at the contiguous prefix of `known`; otherwise it covers the full context.
    pub(super) fn delta(
        &self,
        replica: &Replica,
        known: &CausalContext,
        log: Option<&RemovalLog>,
        max_size: usize,
    ) -> Vec<Fragment> {
        if known.is_superset(&self.context) {
            return Vec::new();
        }
        // Both are causally closed: the full context, and an interval together with the dots of
        // the entries removed in it.
        let since = known.prefix();
        let context = match log.and_then(|log| log.removed_since(since)) {
            Some(removed) => {
                CausalContext::interval(since, self.context.prefix()).union(&removed.collect())
            }
            None => self.context.clone(),
        };
        // Live entries that the other replica has need no repetition. Their dots are left out of
        // the context: a dot without its entry would remove the entry.
        let live =
            context.ranges().iter().flat_map(|&(first, last)| self.entries.range(first..=last));
        let (known, new): (Vec<_>, Vec<_>) =
            live.map(|(_, entry)| entry).partition(|entry| known.contains(entry.dot()));
        let context = context.without(known.into_iter().map(Entry::dot));
        split(replica, &context, &new, max_size)
    }
}

/// Splits a delta into fragments of about `max_size` bytes.
///
/// Each fragment omits the dots of the entries that are in other fragments. Those dots belong to
/// live entries, which no remove refers to, so each fragment is causally closed if the delta is,
/// and can be merged alone.
fn split(
    replica: &Replica,
    context: &CausalContext,
    entries: &[&Entry],
    max_size: usize,
) -> Vec<Fragment> {
    let mut cuts = vec![0];
    let mut size = 0;
    for (index, entry) in entries.iter().enumerate() {
        let added = ENTRY_OVERHEAD + entry.topic().len() + entry.key().len() + entry.meta().len();
        if size > 0 && size + added > max_size {
            cuts.push(index);
            size = 0;
        }
        size += added;
    }
    cuts.push(entries.len());
    let fragment = |cut: &[usize]| {
        let (before, rest) = entries.split_at(cut[0]);
        let (entries, after) = rest.split_at(cut[1] - cut[0]);
        Fragment {
            replica: replica.clone(),
            context: context.without(before.iter().chain(after).map(|entry| entry.dot())),
            entries: entries.iter().map(|&entry| entry.clone()).collect(),
        }
    };
    cuts.windows(2).map(fragment).collect()
}

impl RemovalLog {
    /// Appends a remove, and drops the oldest ones if there are more than `max`.
    pub(super) fn push(&mut self, dot: u64, removed: u64, max: usize) {
        self.removals.push_back((dot, removed));
        while self.removals.len() > max {
            self.truncated_to = self.removals.pop_front().map_or(0, |(dot, _)| dot);
        }
    }

    /// Returns whether the log holds every remove after the dot `since`.
    pub(super) fn reaches(&self, since: u64) -> bool {
        since >= self.truncated_to
    }

    /// The dots of the entries removed after the dot `since`, if the log reaches back that far.
    fn removed_since(&self, since: u64) -> Option<impl Iterator<Item = u64>> {
        let first = self.removals.partition_point(|&(dot, _)| dot <= since);
        self.reaches(since).then(|| self.removals.range(first..).map(|&(_, removed)| removed))
    }
}

#[cfg(test)]
mod tests;
