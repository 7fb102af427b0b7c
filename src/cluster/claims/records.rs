//! [`Records`]: the sessions that this node has, and the store's records of them.

mod followed;
mod given;
mod owned;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::followed::{Look, Recoverable};
use self::given::Given;
pub(super) use self::given::PATIENCE as GIVEN;
use self::owned::{Owned, Standing};
pub(super) use self::task::{Answer, Call, Next, Task};
use super::claim::Held;
use super::record::SessionRecord;
use crate::adapter::{NodeId, Record, Revision};

/// The sessions of an endpoint that this node has found or begun, and what is due to keep the store right about them.
/// Plain code: it hands out tasks, and is told what came of them.
#[derive(Debug)]
pub(super) struct Records {
    node: NodeId,
    owned: BTreeMap<Arc<str>, Owned>,
    /// When the next write is due of those that nobody is working at.
    due: BTreeSet<(u64, Arc<str>)>,
    given: Given,
    /// After which id the check of all sessions goes on.
    checking: Option<Option<Arc<str>>>,
    /// Tells one holding of an id from the next.
    last_serial: u32,
    unrecorded: usize,
}

/// For how long the store keeps a record.
pub(super) const TTL: Duration = Duration::from_secs(3600);

/// After how many milliseconds a record is written again, so that the store keeps it.
const REFRESH: u64 = 20 * 60 * 1000;

/// How often a removal is tried. A record that stays names a node that will not know the session.
const REMOVALS: u8 = 3;

/// How many tasks follow each other at once, if other nodes keep writing.
const ROUNDS: u8 = 3;

impl Records {
    pub(super) fn new(node: NodeId) -> Self {
        Self {
            node,
            owned: BTreeMap::new(),
            due: BTreeSet::new(),
            given: Given::default(),
            checking: None,
            last_serial: 0,
            unrecorded: 0,
        }
    }

    /// How many sessions have no record yet.
    pub(super) fn unrecorded(&self) -> usize {
        self.unrecorded
    }

    /// This node has the session. `now` is the time in milliseconds since any moment.
    pub(super) fn own(&mut self, id: &Arc<str>, socket: u64, held: Held, now: u64) {
        let due = now + if held.is_recorded { REFRESH } else { pause(0) };
        self.insert(id, socket, held, due);
    }

    /// This node has the session that was another's, whose record it has seen and is to replace at once.
    pub(super) fn take(&mut self, id: &Arc<str>, socket: u64, held: Held, now: u64) {
        self.insert(id, socket, held, now);
    }

    fn insert(&mut self, id: &Arc<str>, socket: u64, held: Held, due: u64) {
        // A client that comes back to its session.
        let followed = self.owned.get_mut(id).and_then(|owned| owned.followed.take());
        self.forget(id);
        self.given.remove(id);
        self.last_serial = self.last_serial.wrapping_add(1);
        let Held { generation, seen, is_recorded } = held;
        let serial = self.last_serial;
        let standing = if is_recorded { Standing::Recorded } else { Standing::Unrecorded };
        let owned = Owned {
            generation,
            seen,
            socket,
            due,
            serial,
            standing,
            is_busy: false,
            failed: 0,
            followed,
        };
        self.unrecorded += usize::from(!is_recorded);
        self.owned.insert(Arc::clone(id), owned);
        self.due.insert((due, Arc::clone(id)));
    }

    /// The session has ended here: its record is removed.
    pub(super) fn release(&mut self, id: &str, now: u64) {
        let Some(owned) = self.owned.get_mut(id) else { return };
        if owned.standing == Standing::Ended {
            return;
        }
        if owned.standing == Standing::Unrecorded {
            if !owned.is_busy {
                // There is none, or not of this generation.
                self.forget(id);
                return;
            }
            owned.seen = None;
        }
        self.unrecorded -= usize::from(owned.standing == Standing::Unrecorded);
        (owned.standing, owned.failed) = (Standing::Ended, 0);
        self.schedule(id, now);
    }

    /// The session is no longer here, and its record is somebody else's affair. Returns what is known of that.
    pub(super) fn forget(&mut self, id: &str) -> Option<Held> {
        let (id, owned) = self.owned.remove_entry(id)?;
        self.unrecorded -= usize::from(owned.standing == Standing::Unrecorded);
        let held = owned.held();
        self.due.remove(&(owned.due, id));
        Some(held)
    }

    /// The session was given to another node, which will write a record of its own.
    pub(super) fn give(&mut self, id: &Arc<str>, to: NodeId, now: u64) {
        self.forget(id);
        self.begin_giving(id, to, now);
    }

    /// The session is being given to another node.
    pub(super) fn begin_giving(&mut self, id: &Arc<str>, to: NodeId, now: u64) {
        self.given.insert(id, to, now);
    }

    /// The session stays here after all, or has ended.
    pub(super) fn keep(&mut self, id: &str) {
        self.given.remove(id);
    }

    /// Returns to which node the session was given in the last `time` milliseconds, but no more than 5 seconds.
    pub(super) fn given_to(&mut self, id: &str, time: u64, now: u64) -> Option<NodeId> {
        self.given.get(id, time, now)
    }

    /// Another node says that it has the session. Returns whether that ends it here.
    pub(super) fn is_taken(&mut self, id: &str, generation: u64) -> bool {
        let owned = self.owned.get(id).filter(|owned| owned.generation < generation);
        let is_taken = owned.is_some_and(|owned| owned.standing != Standing::Ended);
        if is_taken {
            self.forget(id);
        }
        is_taken
    }

    /// Returns the id of a session that this node has, which others may share.
    pub(super) fn own_id(&self, id: &str) -> Option<Arc<str>> {
        self.owned.get_key_value(id).map(|(id, _)| Arc::clone(id))
    }

    /// Returns whether this node has the session.
    pub(super) fn has(&self, id: &str) -> bool {
        self.held(id).is_some()
    }

    /// All sessions are to be checked: the node did not hear the others, who may have taken some for theirs.
    pub(super) fn check_all(&mut self) {
        self.checking = Some(None);
    }

    /// Returns the next task that is due.
    pub(super) fn next(&mut self, now: u64) -> Option<Task> {
        self.given.expire(now);
        let (due, id) = self.due.pop_first()?;
        if due > now {
            self.due.insert((due, id));
            return None;
        }
        let owned = self.owned.get_mut(&id)?;
        owned.is_busy = true;
        let call = match (owned.standing, owned.seen) {
            (Standing::Ended, Some(seen)) => Call::Remove { seen },
            _ => owned.write(self.node),
        };
        Some(Task { id, call, serial: owned.serial, over: None, round: 0 })
    }

    /// Returns the next task of a check of all sessions.
    pub(super) fn next_check(&mut self) -> Option<Task> {
        let after = self.checking.as_ref()?.clone();
        let after = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        // The others are about to be written anyway.
        let is_idle = |owned: &Owned| owned.standing == Standing::Recorded && !owned.is_busy;
        let mut rest = self.owned.range_mut::<str, _>((after, Bound::Unbounded));
        let next = rest.find(|(_, owned)| is_idle(owned));
        self.checking = next.as_ref().map(|(id, _)| Some(Arc::clone(id)));
        let (id, owned) = next?;
        let id = Arc::clone(id);
        owned.is_busy = true;
        self.due.remove(&(owned.due, Arc::clone(&id)));
        Some(Task { id, call: Call::Read, serial: owned.serial, over: None, round: 0 })
    }

    /// Returns whether this node has the session, but of a client with another socket id.
    pub(super) fn is_of_another(&self, id: &str, socket: u64) -> bool {
        self.has(id) && self.owned.get(id).is_some_and(|owned| owned.socket != socket)
    }

    /// Returns what is known of the record of a session that this node has.
    pub(super) fn held(&self, id: &str) -> Option<Held> {
        let owned = self.owned.get(id).filter(|owned| owned.standing != Standing::Ended)?;
        Some(owned.held())
    }

    /// Takes what came of a task.
    pub(super) fn done(&mut self, task: Task, answer: Answer, now: u64) -> Next {
        let tell = |task: Task| match (task.over, task.call) {
            (Some(loser), Call::Write { record, .. }) => {
                Next::Tell { loser, generation: record.generation }
            }
            _ => Next::Nothing,
        };
        let is_same = |owned: &&mut Owned| owned.serial == task.serial;
        let Some(owned) = self.owned.get_mut(&task.id).filter(is_same) else {
            let is_written = matches!(answer, Answer::Replaced(_));
            return if is_written { tell(task) } else { Next::Nothing };
        };
        owned.is_busy = false;
        if owned.standing == Standing::Ended {
            self.done_ended(&task, answer, now);
            return Next::Nothing;
        }
        match answer {
            Answer::Failed => {
                owned.failed = owned.failed.saturating_add(1);
                let due = now + pause(owned.failed);
                self.schedule(&task.id, due);
                Next::Nothing
            }
            Answer::Replaced(revision) => {
                if let (Some(followed), Call::Write { record, .. }) =
                    (&mut owned.followed, &task.call)
                {
                    followed.stored(record.left.as_ref());
                }
                self.record(&task.id, revision, now);
                tell(task)
            }
            Answer::There(there) => self.judge(task, there, now),
        }
    }

    /// A task for a session that has ended since is done.
    fn done_ended(&mut self, task: &Task, answer: Answer, now: u64) {
        let Some(owned) = self.owned.get_mut(&task.id) else { return };
        let is_removal = matches!(task.call, Call::Remove { .. });
        match answer {
            Answer::Failed => {
                owned.failed += 1;
                if owned.failed < REMOVALS && owned.seen.is_some() {
                    let due = now + pause(owned.failed);
                    return self.schedule(&task.id, due);
                }
            }
            Answer::Replaced(revision) if !is_removal => {
                owned.seen = Some(revision);
                return self.schedule(&task.id, now);
            }
            Answer::There(Some(there)) if owned.failed < REMOVALS => {
                let record = SessionRecord::decode(there.value);
                let is_own = record
                    .is_some_and(|it| it.owner() == self.node && it.generation == owned.generation);
                if is_own {
                    owned.seen = Some(there.revision);
                    owned.failed += 1;
                    return self.schedule(&task.id, now);
                }
            }
            _ => {}
        }
        self.forget(&task.id);
    }

    /// Decides about what is in the store.
    fn judge(&mut self, task: Task, there: Option<Record>, now: u64) -> Next {
        let Some(owned) = self.owned.get_mut(&task.id) else { return Next::Nothing };
        owned.failed = 0;
        let seen = there.as_ref().map(|there| there.revision);
        let is_unchanged = seen.is_some() && seen == owned.seen;
        if owned.standing == Standing::Recorded && task.call == Call::Read && is_unchanged {
            let due = owned.due;
            self.schedule(&task.id, due);
            return Next::Nothing;
        }
        let record = there.and_then(|there| SessionRecord::decode(there.value));
        let other = record.as_ref().map(SessionRecord::owner).filter(|owner| *owner != self.node);
        match (record, seen) {
            (Some(record), Some(seen)) if record.generation >= owned.generation => {
                if other.is_none() {
                    // It was written though the store did not say so.
                    owned.generation = record.generation;
                    if let Some(followed) = &mut owned.followed {
                        followed.stored(record.left.as_ref());
                        followed.set_stale();
                    }
                    self.record(&task.id, seen, now);
                    return Next::Nothing;
                }
                self.forget(&task.id);
                return Next::End;
            }
            _ => {}
        }
        owned.seen = seen;
        if owned.standing == Standing::Recorded {
            owned.standing = Standing::Unrecorded;
            self.unrecorded += 1;
        }
        if task.round == ROUNDS {
            self.schedule(&task.id, now + pause(0));
            return Next::Nothing;
        }
        owned.is_busy = true;
        let call = owned.write(self.node);
        Next::Again(Task { call, over: other, round: task.round + 1, ..task })
    }

    /// The record of the session is in the store.
    fn record(&mut self, id: &str, revision: Revision, now: u64) {
        let Some(owned) = self.owned.get_mut(id) else { return };
        self.unrecorded -= usize::from(owned.standing == Standing::Unrecorded);
        owned.standing = Standing::Recorded;
        (owned.seen, owned.failed) = (Some(revision), 0);
        let due = owned.followed.as_ref().and_then(|followed| followed.due(now));
        self.schedule(id, due.unwrap_or(now + REFRESH));
    }

    /// Sets when the next task for the session is due, unless somebody is working at one.
    fn schedule(&mut self, id: &str, due: u64) {
        let Some((id, _)) = self.owned.get_key_value(id) else { return };
        let id = Arc::clone(id);
        let Some(owned) = self.owned.get_mut(&id) else { return };
        if !owned.is_busy {
            self.due.remove(&(owned.due, Arc::clone(&id)));
            self.due.insert((due, id));
        }
        owned.due = due;
    }
}

/// How long to wait, in milliseconds, after so many failures.
fn pause(failed: u8) -> u64 {
    1000 << failed.min(2)
}

#[cfg(test)]
mod tests;
