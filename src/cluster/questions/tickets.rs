//! [`Tickets`]: the sessions that other nodes may take.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::adapter::NodeId;

/// The sessions that were offered to other nodes, until they take them. Plain code: time is an argument. `H` is what gives
/// a session away, to be used or dropped without a lock held.
#[derive(Debug)]
pub(crate) struct Tickets<H> {
    last: u64,
    offered: BTreeMap<u64, (NodeId, H)>,
    /// When the offers end, in order. They may be taken already.
    ends: VecDeque<(Duration, u64)>,
}

/// How long a session waits to be taken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// How many sessions may be on offer before another one is not offered.
pub(crate) const MAX_OFFERED: usize = 4096;

impl<H> Tickets<H> {
    /// Returns whether there is no room for another offer.
    pub(crate) fn is_full(&self) -> bool {
        self.offered.len() >= MAX_OFFERED
    }

    /// Offers a session to a node. Returns the ticket.
    pub(crate) fn offer(&mut self, to: NodeId, session: H, now: Duration) -> u64 {
        self.last += 1;
        self.offered.insert(self.last, (to, session));
        self.ends.push_back((now.saturating_add(PATIENCE), self.last));
        self.last
    }

    /// Takes what was offered to this node.
    pub(crate) fn take(&mut self, node: NodeId, ticket: u64) -> Option<H> {
        self.offered.get(&ticket).filter(|(to, _)| *to == node)?;
        self.offered.remove(&ticket).map(|(_, session)| session)
    }

    /// Ends the offers that nobody has taken in time.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<H> {
        let mut ended = Vec::new();
        while let Some((_, ticket)) = self.ends.front().filter(|(at, _)| *at <= now) {
            ended.extend(self.offered.remove(ticket).map(|(_, session)| session));
            self.ends.pop_front();
        }
        ended
    }
}

impl<H> Default for Tickets<H> {
    fn default() -> Self {
        Self { last: 0, offered: BTreeMap::new(), ends: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: NodeId = NodeId(1);
    const BOB: NodeId = NodeId(2);

    #[test]
    fn a_session_is_taken_once_and_by_the_node_to_which_it_was_offered() {
        let mut tickets = Tickets::default();
        let ticket = tickets.offer(ANN, "session", Duration::ZERO);
        assert_eq!([tickets.take(BOB, ticket), tickets.take(ANN, ticket + 1)], [None, None]);
        assert_eq!(tickets.take(ANN, ticket), Some("session"));
        assert_eq!(tickets.take(ANN, ticket), None);
        assert!(tickets.expire(PATIENCE).is_empty());
    }

    #[test]
    fn an_offer_that_nobody_takes_ends() {
        let mut tickets = Tickets::default();
        let ticket = tickets.offer(ANN, "first", Duration::ZERO);
        tickets.offer(ANN, "second", Duration::from_millis(1));
        assert!(tickets.expire(PATIENCE - Duration::from_millis(1)).is_empty());
        assert_eq!(tickets.expire(PATIENCE), ["first"]);
        assert_eq!(tickets.take(ANN, ticket), None);
        assert_eq!(tickets.expire(Duration::MAX), ["second"]);
    }

    #[test]
    fn offers_are_bounded_until_they_are_taken_or_end() {
        let mut tickets = Tickets::default();
        let mut last = 0;
        for _ in 0..MAX_OFFERED {
            assert!(!tickets.is_full());
            last = tickets.offer(ANN, (), Duration::ZERO);
        }
        assert!(tickets.is_full());
        tickets.take(ANN, last);
        assert!(!tickets.is_full());
        assert_eq!(tickets.expire(PATIENCE).len(), MAX_OFFERED - 1);
    }
}
