//! What is known of one replica: an observed-remove set.
//!
//! Every operation has a number and either adds an entry, which it names, or removes one. Two things make
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
#[derive(Clone, Debug, Default)]
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

    /// An operation of the replica itself, which adds an entry of that number.
    pub(super) fn add(&mut self, entry: Entry) {
        self.seen.insert(entry.dot());
        self.entries.insert(entry.dot(), entry);
    }

    /// An operation of the replica itself, which removes an entry. It never adds another one under
    /// the same number: once that one was removed, its number would be said to be seen without what
    /// it removed.
    pub(super) fn remove(&mut self, operation: u64, entry: &Entry) {
        self.seen.insert(operation);
        self.entries.remove(&entry.dot());
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::entry::Parts;
    use super::*;

    /// What a replica did, one operation after the other.
    struct History {
        replica: Replica,
        /// After each number of operations.
        states: Vec<(State, Log)>,
    }

    impl History {
        fn new(operations: &[(bool, Index)], max_log: usize) -> Self {
            let replica = Replica { name: "one".into(), incarnation: 1 };
            let mut states = vec![(State::default(), Log::default())];
            for (operation, (is_removal, which)) in (1..).zip(operations) {
                let (mut state, mut log) = states.last().expect("a state").clone();
                let entries: Vec<_> = state.entries().cloned().collect();
                if *is_removal && !entries.is_empty() {
                    state.remove(operation, which.get(&entries));
                    log.push(operation, which.get(&entries).dot(), max_log);
                } else {
                    state.add(entry(&replica, operation));
                }
                states.push((state, log));
            }
            Self { replica, states }
        }

        fn last(&self) -> &State {
            &self.states.last().expect("a state").0
        }

        fn log(&self) -> &Log {
            &self.states.last().expect("a state").1
        }

        /// What came to be said of it: deltas and whole states, in pieces, by itself and others.
        fn fragments(&self, said: &[Said]) -> Vec<Fragment> {
            let said = said.iter().flat_map(|Said { from, to, known, by_itself, size }| {
                let (state, log) = &self.states[to.index(self.states.len())];
                let known = known.iter().map(|index| index.index(self.states.len()) as u64);
                let known =
                    Seen::up_to(from.index(self.states.len()) as u64).union(&Seen::of(known));
                let log = (*by_itself).then_some(log);
                state.missing(&self.replica, &known.without([0]), log, *size)
            });
            said.collect()
        }
    }

    #[derive(Clone, Debug)]
    struct Said {
        from: Index,
        to: Index,
        known: Vec<Index>,
        by_itself: bool,
        size: usize,
    }

    fn entry(replica: &Replica, dot: u64) -> Entry {
        let (topic, key) = ("room".into(), "ann".into());
        Entry::new(replica, dot, Parts { age: dot, topic, key, meta: "{}".into(), prev: None })
    }

    fn history() -> impl Strategy<Value = History> {
        (vec((any::<bool>(), any::<Index>()), 1..40), 0..20usize)
            .prop_map(|(operations, max_log)| History::new(&operations, max_log))
    }

    fn said() -> impl Strategy<Value = Vec<Said>> {
        let known = vec(any::<Index>(), 0..6);
        let said = (any::<Index>(), any::<Index>(), known, any::<bool>(), 1..600usize).prop_map(
            |(from, to, known, by_itself, size)| Said { from, to, known, by_itself, size },
        );
        vec(said, 1..12)
    }

    fn merged<'a>(fragments: impl IntoIterator<Item = &'a Fragment>) -> State {
        let mut state = State::default();
        for fragment in fragments {
            state.merge(fragment.clone());
        }
        state
    }

    fn as_fragment(replica: &Replica, state: &State) -> Fragment {
        let entries = state.entries().cloned().collect();
        Fragment { replica: replica.clone(), seen: state.seen().clone(), entries }
    }

    impl PartialEq for State {
        fn eq(&self, other: &Self) -> bool {
            self.seen == other.seen && self.entries == other.entries
        }
    }

    impl std::fmt::Debug for History {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_tuple("History").field(self.last()).field(self.log()).finish()
        }
    }

    proptest! {
        #[test]
        fn the_order_of_merges_makes_no_difference(history in history(), said in said(), shift: Index) {
            let mut fragments = history.fragments(&said);
            let one_way = merged(&fragments);
            let middle = shift.index(fragments.len() + 1);
            fragments.rotate_left(middle);
            fragments[..middle.min(1)].reverse();
            prop_assert_eq!(&merged(&fragments), &one_way);
            fragments.reverse();
            prop_assert_eq!(&merged(&fragments), &one_way);
        }

        #[test]
        fn merging_twice_makes_no_difference(history in history(), said in said()) {
            let fragments = history.fragments(&said);
            let once = merged(&fragments);
            let twice = merged(fragments.iter().flat_map(|fragment| [fragment, fragment]));
            let again = merged(fragments.iter().chain(&fragments));
            prop_assert_eq!(&twice, &once);
            prop_assert_eq!(&again, &once);
        }

        #[test]
        fn merges_in_between_make_no_difference(history in history(), said in said(), cut: Index) {
            let fragments = history.fragments(&said);
            let (left, right) = fragments.split_at(cut.index(fragments.len() + 1));
            let parts = [left, right].map(|part| as_fragment(&history.replica, &merged(part)));
            prop_assert_eq!(merged(&parts), merged(&fragments));
        }

        #[test]
        fn what_is_missing_makes_it_whole(history in history(), said in said(), by_itself: bool) {
            let mut state = merged(&history.fragments(&said));
            let log = by_itself.then_some(history.log());
            for fragment in history.last().missing(&history.replica, state.seen(), log, 300) {
                state.merge(fragment);
            }
            prop_assert_eq!(&state, history.last());
        }

        #[test]
        fn a_removal_removes_only_what_was_removed(history in history(), said in said()) {
            let mut state = State::default();
            for fragment in history.fragments(&said) {
                state.merge(fragment);
                let known = history.last().entries().filter(|entry| state.seen().contains(entry.dot()));
                for entry in known {
                    prop_assert!(state.contains(entry), "{entry:?} is not there");
                }
            }
        }

        #[test]
        fn what_was_removed_stays_so(history in history(), said in said()) {
            let mut state = State::default();
            let mut removed = Seen::default();
            for fragment in history.fragments(&said) {
                state.merge(fragment);
                let there: Vec<_> = state.entries().map(Entry::dot).collect();
                prop_assert!(there.iter().all(|dot| !removed.contains(*dot)));
                removed = removed.union(&state.seen().without(there));
            }
        }

        #[test]
        fn a_seen_removal_has_removed(history in history(), said in said()) {
            let mut state = State::default();
            for fragment in history.fragments(&said) {
                state.merge(fragment);
                for &(operation, dot) in &history.log().removals {
                    let is_there = state.entries.contains_key(&dot);
                    prop_assert!(!(state.seen().contains(operation) && is_there));
                }
            }
        }

        #[test]
        fn changes_say_what_a_merge_did(history in history(), said in said()) {
            let mut state = State::default();
            for fragment in history.fragments(&said) {
                let mut entries: Vec<_> = state.entries().cloned().collect();
                let changes = state.merge(fragment);
                prop_assert!(changes.leaves.iter().all(|entry| entries.contains(entry)));
                entries.retain(|entry| !changes.leaves.contains(entry));
                prop_assert!(changes.joins.iter().all(|entry| !entries.contains(entry)));
                entries.extend(changes.joins);
                entries.sort_unstable();
                prop_assert!(entries.iter().eq(state.entries()));
            }
        }
    }

    #[test]
    fn what_arrived_in_order_is_remembered_as_one_range() {
        let (mut state, replica) =
            (State::default(), Replica { name: "one".into(), incarnation: 1 });
        for dot in (1..1000).step_by(2) {
            let entry = entry(&replica, dot);
            state.add(entry.clone());
            state.remove(dot + 1, &entry);
        }
        assert_eq!(state.seen().ranges(), [(1, 1000)]);
        assert_eq!(state.entries().count(), 0);
    }

    #[test]
    fn the_log_remembers_no_more_than_it_may() {
        let mut log = Log::default();
        (1..100).for_each(|operation| log.push(2 * operation, 2 * operation - 1, 10));
        assert_eq!(log.removals.len(), 10);
        assert!(log.reaches(178) && !log.reaches(177));
    }
}
