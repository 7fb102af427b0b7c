//! [`Peer`]: what is known of a replica of another node.

use std::time::Duration;

use super::state::{Diff, Fragment, ReplicaState};
use crate::presence::tracker::entry::Entry;

/// What a node is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is heard: its entries are visible.
    Up,
    /// It is silent: its entries are hidden until it is heard again.
    Down,
    /// It has left, or was silent for too long: its entries are forgotten.
    Gone,
}

#[derive(Debug)]
pub(super) struct Peer {
    state: ReplicaState,
    standing: Standing,
    /// An entry is visible if its dot is greater. While entries are hidden it goes up, and down
    /// while they are shown.
    hidden_to: u64,
    /// When it was last asked for missing operations, or when a piece of its answer came last.
    last_request: Option<Duration>,
}

/// The maximum number of ranges in two causal contexts that are merged: 64 MiB.
const MAX_RANGES: usize = 1 << 22;

/// More than any dot.
const ALL: u64 = u64::MAX;

impl Peer {
    /// Creates a peer that is up.
    pub(super) fn new() -> Self {
        let state = ReplicaState::default();
        Self { state, standing: Standing::Up, hidden_to: 0, last_request: None }
    }

    pub(super) fn state(&self) -> &ReplicaState {
        &self.state
    }

    pub(super) fn into_state(self) -> ReplicaState {
        self.state
    }

    pub(super) fn is_gone(&self) -> bool {
        self.standing == Standing::Gone
    }

    /// Changes what is to be visible, which [`settle`](Self::settle) does.
    pub(super) fn set_standing(&mut self, standing: Standing) {
        self.standing = standing;
    }

    pub(super) fn is_visible(&self, entry: &Entry) -> bool {
        entry.dot() > self.hidden_to
    }

    /// Returns whether what is visible accords with the standing.
    pub(super) fn is_settled(&self) -> bool {
        self.hidden_to == if self.standing == Standing::Up { 0 } else { ALL }
    }

    /// Shows or hides up to `max` entries, which must not be zero: the newest first, or the oldest.
    pub(super) fn settle(&mut self, max: usize) -> Diff {
        let mut diff = Diff::default();
        if self.standing == Standing::Up {
            diff.joins.extend(self.state.entries_to(self.hidden_to).rev().take(max).cloned());
            let is_done = diff.joins.len() < max;
            let last = diff.joins.last().filter(|_| !is_done);
            self.hidden_to = last.map_or(0, |entry| entry.dot() - 1);
        } else {
            diff.leaves.extend(self.state.entries_after(self.hidden_to).take(max).cloned());
            let is_done = diff.leaves.len() < max;
            let last = diff.leaves.last().filter(|_| !is_done);
            self.hidden_to = last.map_or(ALL, Entry::dot);
        }
        diff
    }

    /// Merges a fragment of its state. Returns what changed in it, visible or not; `None` if it was
    /// refused, as its context has too many ranges.
    pub(super) fn merge(&mut self, fragment: Fragment) -> Option<Diff> {
        let ranges = self.state.context().ranges().len() + fragment.context.ranges().len();
        (ranges <= MAX_RANGES).then(|| self.state.merge(fragment))
    }

    /// Returns whether a request may be sent, and records it.
    pub(super) fn start_request(&mut self, now: Duration, pause: Duration) -> bool {
        let is_due = self.last_request.is_none_or(|last| now.saturating_sub(last) >= pause);
        if is_due {
            self.last_request = Some(now);
        }
        is_due
    }

    /// A piece of its answer has come, and more will follow.
    pub(super) fn extend_request(&mut self, now: Duration) {
        self.last_request = Some(now);
    }
}
