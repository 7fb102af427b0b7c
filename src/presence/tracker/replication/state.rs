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

/// What one replica has of its own state and another lacks, causally closed.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    /// The dots without a live entry.
    dead: CausalContext,
    /// The live entries, in ascending order of their dots.
    entries: Vec<Entry>,
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
        let mut remove = |(dot, entry): (&u64, &Entry)| {
            if !is_live(dot) {
                diff.leaves.push(entry.clone());
            }
        };
        let ranges = context.ranges();
        if ranges.len() < self.entries.len() / 16 {
            for &(first, last) in ranges {
                self.entries.range(first..=last).for_each(&mut remove);
            }
        } else {
            // A large state in pieces ends with about as many ranges as it has entries.
            let mut rest = ranges.iter().peekable();
            for (dot, entry) in &self.entries {
                while rest.next_if(|(_, last)| last < dot).is_some() {}
                if rest.peek().is_some_and(|(first, _)| first <= dot) {
                    remove((dot, entry));
                }
            }
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
    /// the local replica.
    ///
    /// If the log reaches back far enough, the delta starts at the contiguous prefix of `known`;
    /// otherwise it covers the full context.
    pub(super) fn delta(&self, known: &CausalContext, log: &RemovalLog) -> Delta {
        if known.is_superset(&self.context) {
            return Delta::default();
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
        let ranges = context.ranges().iter();
        let live: Vec<_> =
            ranges.flat_map(|&(first, last)| self.entries.range(first..=last)).collect();
        // Live entries that the other replica has need no repetition. Their dots are left out: a
        // dot without its entry would remove the entry.
        let dead = context.without(live.iter().map(|(dot, _)| **dot));
        let new = live.into_iter().filter(|(dot, _)| !known.contains(**dot));
        Delta { dead, entries: new.map(|(_, entry)| entry.clone()).collect() }
    }
}

impl Delta {
    /// Splits it into fragments of about `max_size` bytes.
    ///
    /// The dots without entries are all in the last one, so that an update shows the new entry before
    /// it takes away the old one. The other fragments have the dots of their entries and no others.
    /// Each is causally closed if the delta is, and can be merged alone.
    pub(super) fn split(self, max_size: usize) -> Vec<Fragment> {
        let Self { dead, entries } = self;
        if entries.is_empty() && dead.ranges().is_empty() {
            return Vec::new();
        }
        let mut fragments = Vec::new();
        let (mut last, mut size) = (Fragment::default(), 0);
        let mut reserve = |last: &mut Fragment, added: usize| {
            if size > 0 && size + added > max_size {
                fragments.push(std::mem::take(last));
                size = 0;
            }
            size += added;
        };
        for entry in entries {
            let texts = entry.topic().len() + entry.key().len() + entry.meta().len();
            reserve(&mut last, ENTRY_OVERHEAD + texts);
            last.context.insert(entry.dot());
            last.entries.push(entry);
        }
        reserve(&mut last, dead.ranges().len() * RANGE_SIZE);
        last.context = last.context.union(&dead);
        fragments.push(last);
        fragments
    }
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
