//! [`Given`]: to whom a node has given sessions lately.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::adapter::NodeId;

/// The sessions that were given to other nodes lately: their records may still name this one.
#[derive(Debug, Default)]
pub(super) struct Given {
    to: BTreeMap<Arc<str>, (NodeId, u64)>,
    /// When they were given, in order. They may have come back since.
    at: VecDeque<(u64, Arc<str>)>,
}

/// For how many milliseconds that is known: by then the other node has written its record.
pub(in crate::cluster::claims) const PATIENCE: u64 = 5000;

impl Given {
    pub(super) fn insert(&mut self, id: &Arc<str>, to: NodeId, now: u64) {
        self.expire(now);
        self.to.insert(Arc::clone(id), (to, now));
        self.at.push_back((now, Arc::clone(id)));
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.to.remove(id);
    }

    /// Returns to which node the session was given in the last `time` milliseconds.
    pub(super) fn get(&mut self, id: &str, time: u64, now: u64) -> Option<NodeId> {
        self.expire(now);
        let (to, at) = self.to.get(id)?;
        (now.saturating_sub(*at) < time).then_some(*to)
    }

    /// Forgets what is old.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some((at, id)) = self.at.front()
            && now.saturating_sub(*at) >= PATIENCE
        {
            if self.to.get(id).is_some_and(|(_, latest)| latest == at) {
                self.to.remove(id);
            }
            self.at.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_for_five_seconds() {
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        let mut given = Given::default();
        given.insert(&a, NodeId(1), 1000);
        given.insert(&b, NodeId(1), 2000);
        assert_eq!(given.get("a", 300, 1299), Some(NodeId(1)));
        assert_eq!(given.get("a", 300, 1300), None);
        given.insert(&a, NodeId(2), 4000);
        assert_eq!(given.get("a", PATIENCE, 8999), Some(NodeId(2)), "the last one counts");
        given.remove("a");
        assert_eq!(given.get("a", PATIENCE, 8999), None);
        given.expire(9000);
        assert!(given.to.is_empty() && given.at.is_empty());
    }
}
