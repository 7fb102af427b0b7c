//! [`Disconnects`]: the latest disconnects of this node, for nodes that have missed some.

use std::collections::VecDeque;

use smol_str::SmolStr;

use super::wire;

/// The latest disconnects of this node, numbered from 1. Plain code.
#[derive(Debug, Default)]
pub(super) struct Disconnects {
    ids: VecDeque<SmolStr>,
    /// The number of the last.
    last: u64,
}

/// How many are kept.
const KEPT: usize = 1024;

impl Disconnects {
    /// Adds one, and returns what to tell the others.
    pub(super) fn push(&mut self, id: &str) -> wire::Disconnects {
        self.last += 1;
        self.ids.push_back(id.into());
        if self.ids.len() > KEPT {
            self.ids.pop_front();
        }
        wire::Disconnects { first: self.last, ids: vec![id.into()], is_answer: false }
    }

    /// The number of the last.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Returns those from this number on, or the oldest that are kept.
    pub(super) fn since(&self, number: u64) -> wire::Disconnects {
        let oldest = self.last + 1 - self.ids.len() as u64;
        let first = number.clamp(oldest, self.last + 1);
        let ids = self.ids.range((first - oldest) as usize..).map(ToString::to_string).collect();
        wire::Disconnects { first, ids, is_answer: true }
    }
}

/// What a node does with the disconnects of another.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Disconnects these, and knows those up to this number.
    Apply(Vec<String>, u64),
    /// Asks for those from this number on.
    Ask(u64),
}

/// Decides about disconnects that have come. `next` is the number that is expected.
pub(super) fn plan(next: u64, disconnects: wire::Disconnects) -> Plan {
    let wire::Disconnects { first, mut ids, is_answer } = disconnects;
    if first > next && !is_answer {
        return Plan::Ask(next);
    }
    let known = usize::try_from(next.saturating_sub(first)).unwrap_or(usize::MAX);
    let last = first.saturating_add(ids.len() as u64).saturating_sub(1);
    ids.drain(..known.min(ids.len()));
    Plan::Apply(ids, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disconnects(count: usize) -> Disconnects {
        let mut all = Disconnects::default();
        (1..=count).for_each(|number| drop(all.push(&number.to_string())));
        all
    }

    fn apply(ids: &[&str], last: u64) -> Plan {
        Plan::Apply(ids.iter().map(ToString::to_string).collect(), last)
    }

    #[test]
    fn each_is_applied_once_and_in_order() {
        let mut all = Disconnects::default();
        assert_eq!(plan(1, all.push("a")), apply(&["a"], 1));
        assert_eq!(plan(2, all.push("b")), apply(&["b"], 2));
        assert_eq!(plan(3, all.since(1)), apply(&[], 2));
        assert_eq!(plan(2, all.since(1)), apply(&["b"], 2));
    }

    #[test]
    fn what_was_missed_is_asked_for_and_comes_with_the_answer() {
        let mut all = disconnects(3);
        assert_eq!(plan(2, all.push("4")), Plan::Ask(2));
        assert_eq!(plan(2, all.since(2)), apply(&["2", "3", "4"], 4));
    }

    #[test]
    fn what_is_no_longer_kept_is_not_asked_for_again() {
        let all = disconnects(KEPT + 10);
        let Plan::Apply(ids, last) = plan(1, all.since(1)) else { panic!() };
        assert_eq!((ids.len(), &*ids[0], last), (KEPT, "11", KEPT as u64 + 10));
    }

    #[test]
    fn numbers_from_elsewhere_can_be_anything() {
        for number in [0, 1, 5, u64::MAX] {
            drop(disconnects(3).since(number));
            drop(disconnects(0).since(number));
            for first in [0, 1, u64::MAX] {
                let ids = vec!["a".into(), "b".into()];
                plan(number, wire::Disconnects { first, ids, is_answer: true });
            }
        }
    }
}
