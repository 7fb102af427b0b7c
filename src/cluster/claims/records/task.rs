//! What is to be done in the store.

use std::sync::Arc;

use super::super::record::SessionRecord;
use crate::adapter::{NodeId, Record, Revision};

/// Something to do in the store.
#[derive(Debug)]
pub(in crate::cluster::claims) struct Task {
    pub(in crate::cluster::claims) id: Arc<str>,
    pub(in crate::cluster::claims) call: Call,
    pub(super) serial: u32,
    /// The node whose record is overwritten.
    pub(super) over: Option<NodeId>,
    /// How many tasks of the same turn came before.
    pub(super) round: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster::claims) enum Call {
    Read,
    Write { seen: Option<Revision>, record: SessionRecord },
    Remove { seen: Revision },
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster::claims) enum Answer {
    Replaced(Revision),
    /// This is there: it was read, or a write was refused for it.
    There(Option<Record>),
    Failed,
}

/// What follows from it.
#[derive(Debug)]
pub(in crate::cluster::claims) enum Next {
    Nothing,
    /// This is to be done at once.
    Again(Task),
    /// The other node is to be told that this one has the session, with this generation.
    Tell {
        loser: NodeId,
        generation: u64,
    },
    /// Another node has the session: it ends here.
    End,
}
