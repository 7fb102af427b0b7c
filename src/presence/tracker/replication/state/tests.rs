use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::adapter::NodeId;
use crate::presence::tracker::entry::{Fields, Replica};

/// The local history of a replica.
struct History {
    /// The state and the removal log after each number of operations, from 0.
    states: Vec<(ReplicaState, RemovalLog)>,
}

impl History {
    fn new(operations: &[(bool, Index)], max_removals: usize) -> Self {
        let mut states = vec![(ReplicaState::default(), RemovalLog::default())];
        for (dot, (is_remove, which)) in (1..).zip(operations) {
            let (mut state, mut log) = states.last().expect("a state").clone();
            let entries: Vec<_> = state.entries().cloned().collect();
            if *is_remove && !entries.is_empty() {
                state.remove(dot, which.get(&entries));
                log.push(dot, which.get(&entries).dot(), max_removals);
            } else {
                state.add(entry(dot));
            }
            states.push((state, log));
        }
        Self { states }
    }

    fn last(&self) -> &ReplicaState {
        &self.states.last().expect("a state").0
    }

    fn log(&self) -> &RemovalLog {
        &self.states.last().expect("a state").1
    }

    /// The fragments in which the replica and its peers send the deltas.
    fn fragments(&self, deltas: &[Delta]) -> Vec<Fragment> {
        let fragments = deltas.iter().flat_map(|Delta { since, to, known, max_size }| {
            let (state, log) = &self.states[to.index(self.states.len())];
            let since = CausalContext::up_to(since.index(self.states.len()) as u64);
            let known = known.iter().map(|index| index.index(self.states.len()) as u64);
            let known = since.union(&known.collect());
            state.delta(&known.without([0]), log).split(*max_size)
        });
        fragments.collect()
    }
}

/// A delta up to some moment of a history, for a peer that has observed some of it.
#[derive(Clone, Debug)]
struct Delta {
    /// The contiguous prefix that the peer has observed.
    since: Index,
    /// The number of operations at the moment of sending.
    to: Index,
    /// Further dots that the peer has observed.
    known: Vec<Index>,
    max_size: usize,
}

fn entry(dot: u64) -> Entry {
    let replica = Replica { node: NodeId(1), shard: 0 };
    let (topic, key, meta) = ("room".into(), "ann".into(), "{}".into());
    Entry::new(replica, dot, Fields { timestamp: dot, topic, key, meta, prev: None })
}

fn history() -> impl Strategy<Value = History> {
    (vec((any::<bool>(), any::<Index>()), 1..40), 0..20usize)
        .prop_map(|(operations, max_removals)| History::new(&operations, max_removals))
}

fn deltas() -> impl Strategy<Value = Vec<Delta>> {
    let known = vec(any::<Index>(), 0..6);
    let delta = (any::<Index>(), any::<Index>(), known, 1..600usize)
        .prop_map(|(since, to, known, max_size)| Delta { since, to, known, max_size });
    vec(delta, 1..12)
}

fn merged<'a>(fragments: impl IntoIterator<Item = &'a Fragment>) -> ReplicaState {
    let mut state = ReplicaState::default();
    for fragment in fragments {
        state.merge(fragment.clone());
    }
    state
}

fn as_fragment(state: &ReplicaState) -> Fragment {
    Fragment { context: state.context().clone(), entries: state.entries().cloned().collect() }
}

impl PartialEq for ReplicaState {
    fn eq(&self, other: &Self) -> bool {
        self.context == other.context && self.entries == other.entries
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("History").field(self.last()).field(self.log()).finish()
    }
}

proptest! {
    #[test]
    fn merging_is_commutative(history in history(), deltas in deltas(), shift: Index) {
        let mut fragments = history.fragments(&deltas);
        let in_order = merged(&fragments);
        let middle = shift.index(fragments.len() + 1);
        fragments.rotate_left(middle);
        prop_assert_eq!(&merged(&fragments), &in_order);
        fragments.reverse();
        prop_assert_eq!(&merged(&fragments), &in_order);
    }

    #[test]
    fn merging_is_idempotent(history in history(), deltas in deltas()) {
        let fragments = history.fragments(&deltas);
        let once = merged(&fragments);
        let each_twice = merged(fragments.iter().flat_map(|fragment| [fragment, fragment]));
        let all_twice = merged(fragments.iter().chain(&fragments));
        prop_assert_eq!(&each_twice, &once);
        prop_assert_eq!(&all_twice, &once);
    }

    #[test]
    fn merging_is_associative(history in history(), deltas in deltas(), cut: Index) {
        let fragments = history.fragments(&deltas);
        let (left, right) = fragments.split_at(cut.index(fragments.len() + 1));
        let halves = [left, right].map(|half| as_fragment(&merged(half)));
        prop_assert_eq!(merged(&halves), merged(&fragments));
    }

    #[test]
    fn the_delta_completes_a_partial_state(history in history(), deltas in deltas()) {
        let mut state = merged(&history.fragments(&deltas));
        for fragment in history.last().delta(state.context(), history.log()).split(300) {
            state.merge(fragment);
        }
        prop_assert_eq!(&state, history.last());
    }

    #[test]
    fn an_observed_entry_that_was_not_removed_is_live(history in history(), deltas in deltas()) {
        let mut state = ReplicaState::default();
        for fragment in history.fragments(&deltas) {
            state.merge(fragment);
            let observed =
                history.last().entries().filter(|entry| state.context().contains(entry.dot()));
            for entry in observed {
                prop_assert!(state.contains(entry), "{entry:?} is missing");
            }
        }
    }

    #[test]
    fn a_removed_entry_never_reappears(history in history(), deltas in deltas()) {
        let mut state = ReplicaState::default();
        let mut removed = CausalContext::default();
        for fragment in history.fragments(&deltas) {
            state.merge(fragment);
            let live: Vec<_> = state.entries().map(Entry::dot).collect();
            prop_assert!(live.iter().all(|dot| !removed.contains(*dot)));
            removed = removed.union(&state.context().without(live));
        }
    }

    #[test]
    fn an_observed_remove_has_taken_effect(history in history(), deltas in deltas()) {
        let mut state = ReplicaState::default();
        for fragment in history.fragments(&deltas) {
            state.merge(fragment);
            for &(dot, removed) in &history.log().removals {
                let is_live = state.entries.contains_key(&removed);
                prop_assert!(!(state.context().contains(dot) && is_live));
            }
        }
    }

    #[test]
    fn the_diff_of_a_merge_leads_from_the_old_entries_to_the_new(
        history in history(),
        deltas in deltas(),
    ) {
        let mut state = ReplicaState::default();
        for fragment in history.fragments(&deltas) {
            let mut entries: Vec<_> = state.entries().cloned().collect();
            let diff = state.merge(fragment);
            prop_assert!(diff.leaves.iter().all(|entry| entries.contains(entry)));
            entries.retain(|entry| !diff.leaves.contains(entry));
            prop_assert!(diff.joins.iter().all(|entry| !entries.contains(entry)));
            entries.extend(diff.joins);
            entries.sort_unstable();
            prop_assert!(entries.iter().eq(state.entries()));
        }
    }
}

#[test]
fn a_context_of_many_ranges_removes_the_same_as_one_of_few() {
    let entries: Vec<_> = (1..=1000).map(entry).collect();
    for step in [2, 3, 40, 500] {
        let mut state = ReplicaState::default();
        entries.iter().for_each(|entry| state.add(entry.clone()));
        let context = (step..=1000).step_by(step as usize).collect();
        let diff = state.merge(Fragment { context, entries: Vec::new() });
        let removed: Vec<_> = diff.leaves.iter().map(Entry::dot).collect();
        assert_eq!(removed, (step..=1000).step_by(step as usize).collect::<Vec<_>>());
        assert!(state.entries().all(|entry| entry.dot() % step != 0));
    }
}

#[test]
fn a_removed_entry_leaves_nothing_but_a_range_of_dots() {
    let mut state = ReplicaState::default();
    for dot in (1..1000).step_by(2) {
        let entry = entry(dot);
        state.add(entry.clone());
        state.remove(dot + 1, &entry);
    }
    assert_eq!(state.context().ranges(), [(1, 1000)]);
    assert_eq!(state.entries().count(), 0);
}

#[test]
fn the_removal_log_drops_its_oldest_removes() {
    let mut log = RemovalLog::default();
    (1..100).for_each(|n| log.push(2 * n, 2 * n - 1, 10));
    assert_eq!(log.removals.len(), 10);
    assert!(log.reaches(178) && !log.reaches(177));
}
