//! [`Disconnects`]: the latest disconnects of this node, for nodes that have missed some.

use std::collections::VecDeque;
use std::time::Duration;

use smol_str::SmolStr;

use super::wire;

/// The latest disconnects of this node, numbered from 1. Plain code: time is an argument.
#[derive(Debug, Default)]
pub(super) struct Disconnects {
    /// The ids, and how old the node was.
    latest: VecDeque<(SmolStr, Duration)>,
    /// The number of the last.
    last: u64,
}

/// How many are kept.
const KEPT: usize = 1024;

impl Disconnects {
    /// Adds one, and returns what to tell the others.
    pub(super) fn push(&mut self, id: &str, age: Duration) -> wire::Disconnects {
        self.last += 1;
        self.latest.push_back((id.into(), age));
        if self.latest.len() > KEPT {
            self.latest.pop_front();
        }
        wire::Disconnects { first: self.last, ids: vec![id.into()], is_answer: false }
    }

    /// The number of the last.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Returns those that are asked for, as far as they are kept.
    pub(super) fn answer(&self, asked: wire::Resend) -> wire::Disconnects {
        let oldest = self.last + 1 - self.latest.len() as u64;
        let since = Duration::from_millis(asked.since);
        let before = self.latest.partition_point(|(_, age)| *age < since) as u64;
        let first = asked.first.clamp(oldest + before, self.last + 1);
        let asked = self.latest.range((first - oldest) as usize..);
        let ids = asked.map(|(id, _)| id.to_string()).collect();
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

    /// One disconnect a second.
    fn disconnects(count: usize) -> Disconnects {
        let mut all = Disconnects::default();
        (1..=count).for_each(|number| drop(push(&mut all, number)));
        all
    }

    fn push(all: &mut Disconnects, number: usize) -> wire::Disconnects {
        all.push(&number.to_string(), Duration::from_secs(number as u64))
    }

    fn asked(first: u64) -> wire::Resend {
        wire::Resend { first, since: 0 }
    }

    fn apply(ids: &[&str], last: u64) -> Plan {
        Plan::Apply(ids.iter().map(ToString::to_string).collect(), last)
    }

    #[test]
    fn each_is_applied_once_and_in_order() {
        let mut all = Disconnects::default();
        assert_eq!(plan(1, push(&mut all, 1)), apply(&["1"], 1));
        assert_eq!(plan(2, push(&mut all, 2)), apply(&["2"], 2));
        assert_eq!(plan(3, all.answer(asked(1))), apply(&[], 2));
        assert_eq!(plan(2, all.answer(asked(1))), apply(&["2"], 2));
    }

    #[test]
    fn what_was_missed_is_asked_for_and_comes_with_the_answer() {
        let mut all = disconnects(3);
        assert_eq!(plan(2, push(&mut all, 4)), Plan::Ask(2));
        assert_eq!(plan(2, all.answer(asked(2))), apply(&["2", "3", "4"], 4));
    }

    #[test]
    fn a_node_that_has_begun_later_asks_for_no_older_ones() {
        let all = disconnects(4);
        let since = |since| all.answer(wire::Resend { first: 1, since });
        assert_eq!(since(3000).ids, ["3", "4"]);
        assert_eq!(plan(1, since(3001)), apply(&["4"], 4));
        assert_eq!(plan(1, since(5000)), apply(&[], 4));
    }

    #[test]
    fn what_is_no_longer_kept_is_not_asked_for_again() {
        let all = disconnects(KEPT + 10);
        let Plan::Apply(ids, last) = plan(1, all.answer(asked(1))) else { panic!() };
        assert_eq!((ids.len(), &*ids[0], last), (KEPT, "11", KEPT as u64 + 10));
    }

    #[test]
    fn numbers_from_elsewhere_can_be_anything() {
        for number in [0, 1, 5, u64::MAX] {
            for since in [0, 2000, u64::MAX] {
                drop(disconnects(3).answer(wire::Resend { first: number, since }));
                drop(disconnects(0).answer(wire::Resend { first: number, since }));
            }
            for first in [0, 1, u64::MAX] {
                let ids = vec!["a".into(), "b".into()];
                plan(number, wire::Disconnects { first, ids, is_answer: true });
            }
        }
    }
}
