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
use std::ops::Bound;

use super::causal_context::CausalContext;
use crate::presence::tracker::entry::Entry;

/// The approximate encoded size of an entry in bytes, without its topic, key and meta.
const ENTRY_OVERHEAD: usize = 96;

/// The approximate encoded size of a range of dots in bytes.
const RANGE_SIZE: usize = 6;

#[derive(Clone, Debug, Default)]
pub(crate) struct ReplicaState {
    context: CausalContext,
    /// The live entries by dot.
    entries: BTreeMap<u64, Entry>,
}

/// A causally closed part of a replica's state.
#[derive(Clone, Debug, Default)]
pub(super) struct Fragment {
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

/// The effect of a message, or of a change of standing.
///
/// An update is a leave of the old entry and a join of the new one. No entry is in both lists, so
/// they lead from the previous listing to the current one in whichever order they are applied.
#[derive(Debug, Default)]
pub(crate) struct Diff {
    pub(crate) joins: Vec<Entry>,
    pub(crate) leaves: Vec<Entry>,
}

impl ReplicaState {
    pub(super) fn context(&self) -> &CausalContext {
        &self.context
    }

    /// The live entries in ascending order of their dots.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The live entries whose dots are greater than `dot`, in ascending order.
    pub(super) fn entries_after(&self, dot: u64) -> impl Iterator<Item = &Entry> {
        self.entries.range((Bound::Excluded(dot), Bound::Unbounded)).map(|(_, entry)| entry)
    }

    /// The live entries whose dots are not greater than `dot`, in ascending order.
    pub(super) fn entries_to(&self, dot: u64) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.range(..=dot).map(|(_, entry)| entry)
    }

    #[cfg(any(test, fuzzing, feature = "unstable-internals"))]
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
    pub(super) fn merge(&mut self, Fragment { context, entries }: Fragment) -> Diff {
        let mut diff = Diff::default();
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
        self.context = self.context.union(&context);
        diff
    }

    /// Returns the delta between `known`, what another replica has of this state, which is that of
    /// the local replica, as fragments of about `max_size` bytes.
    ///
    /// If the log reaches back far enough, the delta starts at the contiguous prefix of `known`;
    /// otherwise it covers the full context.
    pub(super) fn delta(
        &self,
        known: &CausalContext,
        log: &RemovalLog,
        max_size: usize,
    ) -> Vec<Fragment> {
        if known.is_superset(&self.context) {
            return Vec::new();
        }
        // Both are causally closed: the full context, and an interval together with the dots of
        // the entries removed in it.
        let since = known.prefix();
        let context = match log.removed_since(since) {
            Some(removed) => {
                CausalContext::interval(since, self.context.prefix()).union(&removed.collect())
            }
            None => self.context.clone(),
        };
        // Live entries that the other replica has need no repetition. Their dots are left out of
        // the context: a dot without its entry would remove the entry.
        let live =
            context.ranges().iter().flat_map(|&(first, last)| self.entries.range(first..=last));
        let live: Vec<_> = live.map(|(_, entry)| entry).collect();
        let dead = context.without(live.iter().map(|entry| entry.dot()));
        let new = live.into_iter().filter(|entry| !known.contains(entry.dot()));
        split(dead, new, max_size)
    }
}

/// Splits a delta into fragments of about `max_size` bytes.
///
/// The dots without entries are all in the last one, so that an update shows the new entry before it
/// takes away the old one. The other fragments have the dots of their entries and no others. Each is
/// causally closed if the delta is, and can be merged alone.
fn split<'a>(
    dead: CausalContext,
    entries: impl Iterator<Item = &'a Entry>,
    max_size: usize,
) -> Vec<Fragment> {
    let mut fragments = vec![Fragment::default()];
    let mut size = 0;
    let mut begin = |added: usize, fragments: &mut Vec<Fragment>| {
        if size > 0 && size + added > max_size {
            fragments.push(Fragment::default());
            size = 0;
        }
        size += added;
    };
    for entry in entries {
        let added = ENTRY_OVERHEAD + entry.topic().len() + entry.key().len() + entry.meta().len();
        begin(added, &mut fragments);
        let Some(Fragment { context, entries }) = fragments.last_mut() else { break };
        context.insert(entry.dot());
        entries.push(entry.clone());
    }
    begin(dead.ranges().len() * RANGE_SIZE, &mut fragments);
    if let Some(Fragment { context, .. }) = fragments.last_mut() {
        *context = context.union(&dead);
    }
    fragments
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
