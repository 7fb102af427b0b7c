//! [`Owned`]: one session of this node.

use super::super::claim::Held;
use super::super::record::SessionRecord;
use super::Call;
use super::followed::Followed;
use crate::adapter::{NodeId, Revision};

/// A session that this node has, or whose record it has to remove.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) generation: u64,
    pub(super) seen: Option<Revision>,
    pub(super) socket: u64,
    pub(super) due: u64,
    pub(super) serial: u32,
    pub(super) standing: Standing,
    pub(super) is_busy: bool,
    /// How often the store has failed since it last answered.
    pub(super) failed: u8,
    /// If its record says from where it goes on.
    pub(super) followed: Option<Box<Followed>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Recorded,
    Unrecorded,
    /// The session has ended: its record is to be removed.
    Ended,
}

impl Owned {
    pub(super) fn held(&self) -> Held {
        let is_recorded = self.standing == Standing::Recorded;
        Held { generation: self.generation, seen: self.seen, is_recorded }
    }

    pub(super) fn write(&mut self, node: NodeId) -> Call {
        let mut record = SessionRecord::new(node, self.generation, self.socket);
        record.left = self.followed.as_mut().and_then(|followed| followed.left());
        Call::Write { seen: self.seen, record }
    }
}
