//! What is known of one replica: an observed-remove set.
//!
//! Every operation has a number; that of one which adds names the entry as well. Two things make
//! the state: which operations have been seen, and which entries are there. An entry that was seen
//! and is not there has been removed, so that removals leave nothing behind but their numbers, and
//! these are ranges.
//!
//! A [`Fragment`] is a part of such a state and merges like one: twice, late or out of order makes
//! no difference. For this it must be *closed*: whoever names a removal names the entry's number
//! too, among the seen ones.

use std::collections::{BTreeMap, VecDeque};

use super::Changes;
use super::clock::Seen;
use super::entry::{Entry, Replica};

/// More ranges than this are not remembered; what would leave more is dropped, and asked for again.
const MAX_RANGES: usize = 1 << 20;

/// How much an entry takes in a message, besides its texts.
const ENTRY_OVERHEAD: usize = 96;

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    seen: Seen,
    entries: BTreeMap<u64, Entry>,
}

/// Of what was seen of a replica, the entries that are there.
#[derive(Clone, Debug)]
pub(super) struct Fragment {
    pub(super) replica: Replica,
    pub(super) seen: Seen,
    /// By ascending numbers, all of them among the seen ones.
    pub(super) entries: Vec<Entry>,
}

/// Which of its own operations removed what, as far back as is remembered.
#[derive(Debug, Default)]
pub(super) struct Log {
    removals: VecDeque<(u64, u64)>,
    forgotten: u64,
}

impl State {
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn contains(&self, entry: &Entry) -> bool {
        self.entries.get(&entry.dot()) == Some(entry)
    }

    /// An operation of the replica itself: it removes an entry, adds one, or does both.
    pub(super) fn operate(&mut self, operation: u64, old: Option<&Entry>, new: Option<&Entry>) {
        self.seen.insert(operation);
        if let Some(old) = old {
            self.entries.remove(&old.dot());
        }
        if let Some(new) = new {
            self.entries.insert(operation, new.clone());
        }
    }

    /// Takes in what a fragment says.
    pub(super) fn merge(&mut self, Fragment { seen, entries, .. }: Fragment) -> Changes {
        let mut changes = Changes::default();
        let union = self.seen.union(&seen);
        if union.ranges().len() > MAX_RANGES {
            return changes;
        }
        let is_there = |dot: &u64| entries.binary_search_by_key(dot, Entry::dot).is_ok();
        for &(first, last) in seen.ranges() {
            let removed = self.entries.range(first..=last).filter(|(dot, _)| !is_there(dot));
            changes.leaves.extend(removed.map(|(_, entry)| entry.clone()));
        }
        for entry in &changes.leaves {
            self.entries.remove(&entry.dot());
        }
        for entry in entries {
            if !self.seen.contains(entry.dot()) {
                self.entries.insert(entry.dot(), entry.clone());
                changes.joins.push(entry);
            }
        }
        self.seen = union;
        changes
    }

    /// What this state has more than somebody who has seen `known`, in fragments of about
    /// `max_size` bytes. `log` is there if it is the replica's own state.
    pub(super) fn missing(
        &self,
        replica: &Replica,
        known: &Seen,
        log: Option<&Log>,
        max_size: usize,
    ) -> Vec<Fragment> {
        if known.covers(&self.seen) {
            return Vec::new();
        }
        // All is closed, and so is what follows a number with all that it removed before.
        let since = known.prefix();
        let seen = match log.and_then(|log| log.removed_after(since)) {
            Some(removed) => Seen::interval(since, self.seen.prefix()).union(&Seen::of(removed)),
            None => self.seen.clone(),
        };
        // That a known entry is still there is said by leaving its number out.
        let there =
            seen.ranges().iter().flat_map(|&(first, last)| self.entries.range(first..=last));
        let (known, new): (Vec<_>, Vec<_>) =
            there.map(|(_, entry)| entry).partition(|entry| known.contains(entry.dot()));
        let seen = seen.without(known.into_iter().map(Entry::dot));
        pieces(replica, &seen, &new, max_size)
    }
}

/// Each piece leaves out the numbers of entries that are in others, and so is closed if the whole
/// is: whichever arrives is right.
fn pieces(replica: &Replica, seen: &Seen, entries: &[&Entry], max_size: usize) -> Vec<Fragment> {
    let mut cuts = vec![0];
    let mut size = 0;
    for (index, entry) in entries.iter().enumerate() {
        let more = ENTRY_OVERHEAD + entry.topic().len() + entry.key().len() + entry.meta().len();
        if size > 0 && size + more > max_size {
            cuts.push(index);
            size = 0;
        }
        size += more;
    }
    cuts.push(entries.len());
    let piece = |cut: &[usize]| {
        let (before, rest) = entries.split_at(cut[0]);
        let (entries, after) = rest.split_at(cut[1] - cut[0]);
        Fragment {
            replica: replica.clone(),
            seen: seen.without(before.iter().chain(after).map(|entry| entry.dot())),
            entries: entries.iter().map(|&entry| entry.clone()).collect(),
        }
    };
    cuts.windows(2).map(piece).collect()
}

impl Log {
    pub(super) fn push(&mut self, operation: u64, removed: u64, max: usize) {
        self.removals.push_back((operation, removed));
        while self.removals.len() > max {
            self.forgotten = self.removals.pop_front().map_or(0, |(operation, _)| operation);
        }
    }

    /// What the operations after `since` removed, if that is still known.
    fn removed_after(&self, since: u64) -> Option<impl Iterator<Item = u64>> {
        let first = self.removals.partition_point(|&(operation, _)| operation <= since);
        (since >= self.forgotten).then(|| self.removals.range(first..).map(|&(_, removed)| removed))
    }

    pub(super) fn reaches(&self, since: u64) -> bool {
        since >= self.forgotten
    }
}
