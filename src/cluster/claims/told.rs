//! [`Told`]: the nodes that are to learn that a session is no longer theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::adapter::NodeId;

/// The nodes that were told that this one has a session of theirs, until they say that they have heard it. Plain code:
/// time is an argument, in milliseconds since any moment.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// With the generation of this node, and when it is told again.
    waiting: BTreeMap<Losing, (u64, u64)>,
    due: BTreeSet<(u64, Losing)>,
}

/// A session of another node that this one has by now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Losing {
    pub(super) node: NodeId,
    pub(super) endpoint: u32,
    pub(super) id: Arc<str>,
}

/// How many may be waiting.
pub(super) const MAX_TOLD: usize = 10_000;

/// After how many milliseconds it is told again.
const REPEAT: u64 = 3000;

impl Told {
    /// A node is being told. Returns `false` if there is no room to do so again.
    pub(super) fn tell(&mut self, losing: Losing, generation: u64, now: u64) -> bool {
        self.remove(&losing);
        let has_room = self.waiting.len() < MAX_TOLD;
        if has_room {
            let due = now + REPEAT;
            self.due.insert((due, losing.clone()));
            self.waiting.insert(losing, (generation, due));
        }
        has_room
    }

    /// A node has heard it, with this generation.
    pub(super) fn heard(&mut self, losing: &Losing, generation: u64) {
        if self.waiting.get(losing).is_some_and(|(told, _)| *told <= generation) {
            self.remove(losing);
        }
    }

    /// Returns the next that is to be told again, with the generation.
    pub(super) fn next(&mut self, now: u64) -> Option<(Losing, u64)> {
        let (_, losing) = self.due.first().filter(|(due, _)| *due <= now)?;
        let losing = losing.clone();
        let generation = self.remove(&losing)?;
        self.tell(losing.clone(), generation, now);
        Some((losing, generation))
    }

    /// It need not be told any more. Returns the generation.
    pub(super) fn remove(&mut self, losing: &Losing) -> Option<u64> {
        let (losing, (generation, due)) = self.waiting.remove_entry(losing)?;
        self.due.remove(&(due, losing));
        Some(generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losing(node: u64, id: &str) -> Losing {
        Losing { node: NodeId(node), endpoint: 0, id: id.into() }
    }

    #[test]
    fn a_node_is_told_every_three_seconds_until_it_has_heard() {
        let mut told = Told::default();
        assert!(told.tell(losing(1, "a"), 7, 0));
        assert_eq!(told.next(REPEAT - 1), None);
        for round in 1..4 {
            assert_eq!(told.next(round * REPEAT), Some((losing(1, "a"), 7)));
            assert_eq!(told.next(round * REPEAT), None);
        }
        told.heard(&losing(1, "a"), 6);
        told.heard(&losing(2, "a"), 7);
        assert!(told.next(u64::MAX / 2).is_some());
        told.heard(&losing(1, "a"), 7);
        assert_eq!(told.next(u64::MAX), None);
        assert!(told.waiting.is_empty() && told.due.is_empty());
    }

    #[test]
    fn what_is_told_last_counts() {
        let mut told = Told::default();
        told.tell(losing(1, "a"), 7, 0);
        told.tell(losing(1, "a"), 9, 1000);
        told.heard(&losing(1, "a"), 7);
        assert_eq!(told.next(REPEAT), None);
        assert_eq!(told.next(1000 + REPEAT), Some((losing(1, "a"), 9)));
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut told = Told::default();
        for number in 0..MAX_TOLD {
            assert!(told.tell(losing(1, &number.to_string()), 1, 0));
        }
        assert!(!told.tell(losing(1, "another"), 1, 0));
        assert!(told.tell(losing(1, "0"), 2, 0), "instead of the one before");
        told.heard(&losing(1, "1"), 1);
        assert!(told.tell(losing(1, "another"), 1, 0));
    }
}
