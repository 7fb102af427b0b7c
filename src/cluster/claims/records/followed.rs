//! [`Followed`]: a session whose record says from where its topics go on.

use std::fmt;
use std::sync::{Arc, Weak};

use super::super::left::{Left, LeftTopic};
use super::{Records, Standing};

/// A session that goes on on another node if this one dies.
pub(crate) trait Recoverable: Send + Sync + 'static {
    /// The topics with a history that its client knows to have joined, each with a position at or after its join behind
    /// which everything is the client's.
    fn topics(&self) -> Vec<LeftTopic>;

    /// Looks how far the client has received what it was sent. Everything that was delivered up to `number` was
    /// delivered before now. Called once or several times a second; `now` is in milliseconds.
    fn look(&self, number: u64, now: u64) -> Look;
}

/// How far a client has received what it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// The number up to which it has everything, 0 if none is known. `None` if it has no topics to go on with.
    pub(crate) number: Option<u64>,
    /// Whether it has no connection, or has not received what it was sent 5 s ago.
    pub(crate) is_behind: bool,
    /// Whether it has topics that it does not know yet to have joined.
    pub(crate) is_joining: bool,
    /// Whether [`topics`](Recoverable::topics) has changed by this look.
    pub(crate) has_changed: bool,
}

/// What is followed of a session.
pub(super) struct Followed {
    session: Weak<dyn Recoverable>,
    /// The number up to which its client has everything, as of the last look.
    number: Option<u64>,
    /// The number that its record is to name, if the horizon of the node does not count for it.
    own: Option<u64>,
    /// Since when.
    own_since: u64,
    /// Whether the record in the store counts on the horizon of the node, or may do so.
    is_bound: bool,
    is_stale: bool,
}

/// After how many milliseconds a change is written.
const BATCH: u64 = 100;

/// How long a session has a number of its own at least, in milliseconds.
const HYSTERESIS: u64 = 5000;

/// After how many milliseconds a number of its own is written again that has grown.
const RENEWAL: u64 = 20_000;

impl Followed {
    /// What the record is to say. It counts as written.
    pub(super) fn left(&mut self) -> Option<Left> {
        let topics = self.session.upgrade()?.topics();
        self.is_stale = false;
        // From now on, as nobody may learn that it was written.
        self.is_bound |= self.own.is_none() && !topics.is_empty();
        (!topics.is_empty()).then_some(Left { topics, since: self.own })
    }

    /// It was written.
    pub(super) fn stored(&mut self, left: Option<&Left>) {
        self.is_bound = left.is_some_and(|left| left.since.is_none());
    }

    /// It may not be what the store has.
    pub(super) fn set_stale(&mut self) {
        self.is_stale = true;
    }

    /// When the record is written next, if it is not what it is to be.
    pub(super) fn due(&self, now: u64) -> Option<u64> {
        self.is_stale.then(|| now.saturating_add(BATCH))
    }

    /// The number that the horizon must not exceed.
    fn bound(&self) -> Option<u64> {
        let is_apart = self.own.is_some() && !self.is_bound;
        self.number.filter(|_| !is_apart && self.session.strong_count() > 0)
    }

    /// Takes the result of a look, while the horizon of the node is no higher than `highest`. Returns whether the record has
    /// to change.
    fn take(&mut self, look: Look, highest: u64, now: u64) -> bool {
        // Its record counts on the horizon once its client has as much.
        let is_current = look.number >= Some(highest) && !look.is_behind;
        let is_new = self.number.is_none();
        self.number = look.number;
        let age = now.saturating_sub(self.own_since);
        let own = match self.own {
            None => look.number.filter(|_| look.is_behind || (is_new && !is_current)),
            Some(_) if is_current && age >= HYSTERESIS => None,
            Some(own) if look.number > Some(own) && age >= RENEWAL => look.number,
            own => own,
        };
        let has_changed = own != self.own;
        if has_changed {
            (self.own, self.own_since) = (own, now);
        }
        self.is_stale |= has_changed || look.has_changed;
        has_changed || look.has_changed
    }
}

impl Records {
    /// Lets the record of a session that is here say from where it goes on. If it `continues` one, it has yet to receive
    /// what is older than this node's horizon.
    pub(in crate::cluster::claims) fn follow(
        &mut self,
        id: &str,
        session: Weak<dyn Recoverable>,
        continues: bool,
        now: u64,
    ) {
        if let Some(owned) = self.owned.get_mut(id) {
            let own = continues.then_some(0);
            owned.followed = Some(Box::new(Followed {
                session,
                number: None,
                own,
                own_since: now,
                is_bound: false,
                is_stale: false,
            }));
        }
    }

    /// Returns what the record of a followed session is to say.
    pub(in crate::cluster::claims) fn left(&mut self, id: &str) -> Option<Left> {
        self.owned.get_mut(id)?.followed.as_mut()?.left()
    }

    /// The record of a session was written, as its client has come back to it.
    pub(in crate::cluster::claims) fn stored(&mut self, id: &str, left: Option<&Left>) {
        if let Some(followed) = self.owned.get_mut(id).and_then(|it| it.followed.as_mut()) {
            followed.stored(left);
        }
    }

    /// The topics of a followed session have changed.
    pub(in crate::cluster::claims) fn change(&mut self, id: &str, now: u64) {
        let Some(owned) = self.owned.get_mut(id) else { return };
        let Some(followed) = &mut owned.followed else { return };
        followed.is_stale = true;
        self.write_soon(id, now);
    }

    /// Returns the followed sessions.
    pub(in crate::cluster::claims) fn followed(
        &self,
    ) -> impl Iterator<Item = (&Arc<str>, Arc<dyn Recoverable>)> {
        let owned = self.owned.iter().filter(|(_, owned)| owned.standing != Standing::Ended);
        owned.filter_map(|(id, owned)| Some((id, owned.followed.as_ref()?.session.upgrade()?)))
    }

    /// Returns a followed session.
    pub(in crate::cluster::claims) fn session(&self, id: &str) -> Option<Arc<dyn Recoverable>> {
        self.owned.get(id)?.followed.as_ref()?.session.upgrade()
    }

    /// Takes the result of a look at a session, while the horizon of the node is no higher than `highest`.
    pub(in crate::cluster::claims) fn looked(
        &mut self,
        id: &str,
        look: Look,
        highest: u64,
        now: u64,
    ) {
        let Some(owned) = self.owned.get_mut(id) else { return };
        let Some(followed) = &mut owned.followed else { return };
        if followed.take(look, highest, now) {
            self.write_soon(id, now);
        }
    }

    /// The number up to which the clients of all followed sessions have everything, but for those whose records name their
    /// own. `None` without any.
    pub(in crate::cluster::claims) fn horizon(&self) -> Option<u64> {
        let owned = self.owned.values().filter(|owned| owned.standing != Standing::Ended);
        owned.filter_map(|owned| owned.followed.as_ref()?.bound()).min()
    }

    fn write_soon(&mut self, id: &str, now: u64) {
        let Some(owned) = self.owned.get(id) else { return };
        if owned.standing == Standing::Recorded {
            let due = owned.due.min(now.saturating_add(BATCH));
            self.schedule(id, due);
        }
    }
}

impl fmt::Debug for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("own", &self.own).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
