//! [`Lingering`]: the entries of channels that have moved to another node.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use smol_str::SmolStr;

use super::tracker::Owner;

/// The owners of entries that stay until those of the same clients have come from another node: so no key is absent
/// meanwhile. Plain code.
///
/// A *ticket* names a session that has moved, with all its channels.
#[derive(Debug, Default)]
pub(super) struct Lingering {
    /// The time as of the last call of [`expire`](Self::expire).
    now: Duration,
    tickets: HashMap<u64, Ticket>,
    /// When which ticket is due.
    due: BTreeSet<(Duration, u64)>,
}

#[derive(Debug)]
struct Ticket {
    due: Duration,
    /// With their topics.
    owners: Vec<(Owner, SmolStr)>,
}

/// How long entries stay if nothing is heard of the session.
const LONGEST: Duration = Duration::from_secs(20);

/// How long they stay once the session has its channels again: until the new entries have arrived everywhere.
const OVERLAP: Duration = Duration::from_secs(1);

impl Lingering {
    /// Adds an owner, whose entries are on one topic.
    pub(super) fn add(&mut self, ticket: u64, owner: Owner, topic: SmolStr) {
        let due = self.now.saturating_add(LONGEST);
        let new = || Ticket { due, owners: Vec::new() };
        let ticket_state = self.tickets.entry(ticket).or_insert_with(new);
        ticket_state.owners.push((owner, topic));
        self.due.insert((ticket_state.due, ticket));
    }

    /// Returns whether no ticket waits.
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// Returns whether entries of this session stay.
    pub(super) fn has(&self, ticket: u64) -> bool {
        self.tickets.contains_key(&ticket)
    }

    /// The session has its channels again, or will not have them.
    pub(super) fn release(&mut self, ticket: u64) {
        let due = self.now.saturating_add(OVERLAP);
        if let Some(state) = self.tickets.get_mut(&ticket).filter(|state| due < state.due) {
            self.due.remove(&(state.due, ticket));
            self.due.insert((due, ticket));
            state.due = due;
        }
    }

    /// Removes the owners whose entries have stayed long enough.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<(Owner, SmolStr)> {
        self.now = now;
        let mut expired = Vec::new();
        while let Some((due, ticket)) = self.due.first().copied()
            && due <= now
        {
            self.due.pop_first();
            expired.extend(self.tickets.remove(&ticket).into_iter().flat_map(|it| it.owners));
        }
        if self.tickets.is_empty() && self.tickets.capacity() > 0 {
            // A crowd that moved at once leaves no large map behind.
            self.tickets = HashMap::new();
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn expire(lingering: &mut Lingering, now: u64) -> Vec<u64> {
        lingering.expire(at(now)).into_iter().map(|(owner, _)| owner.0).collect()
    }

    #[test]
    fn entries_stay_for_twenty_seconds_or_one_after_their_release() {
        let mut all = Lingering::default();
        assert!(expire(&mut all, 5000).is_empty());
        all.add(1, Owner(10), "a".into());
        all.add(1, Owner(11), "b".into());
        all.add(2, Owner(20), "a".into());
        assert!(expire(&mut all, 7000).is_empty());
        all.release(1);
        all.release(1);
        all.release(3);
        assert_eq!([1, 2, 3].map(|ticket| all.has(ticket)), [true, true, false]);
        assert!(expire(&mut all, 7999).is_empty());
        assert_eq!(expire(&mut all, 8000), [10, 11]);
        assert!(!all.has(1));
        assert!(expire(&mut all, 24_999).is_empty());
        assert_eq!(expire(&mut all, 25_000), [20]);
        assert!(all.due.is_empty() && all.is_empty() && all.tickets.capacity() == 0);
    }

    #[test]
    fn a_release_makes_nothing_stay_longer() {
        let mut all = Lingering::default();
        all.add(1, Owner(10), "a".into());
        expire(&mut all, 19_500);
        all.release(1);
        assert_eq!(expire(&mut all, 20_000), [10]);
    }

    #[test]
    fn a_channel_that_comes_after_the_release_stays_as_long_as_the_others() {
        let mut all = Lingering::default();
        all.add(1, Owner(10), "a".into());
        all.release(1);
        all.add(1, Owner(11), "b".into());
        assert_eq!(expire(&mut all, 1000), [10, 11]);
    }
}
