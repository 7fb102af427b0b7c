//! Which operations of a replica have been seen: a set of numbers, as ranges.
//!
//! A replica numbers its operations from 1. What arrives in order is a single range; what is out of
//! order waits in others until the gaps are filled.

use serde::{Deserialize, Deserializer, Serialize, de};

use super::MAX_NUMBER;

/// Ascending, with a gap before each but the first; both ends belong to a range.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Seen(Vec<(u64, u64)>);

impl Seen {
    /// All from 1 to `last`.
    pub(super) fn up_to(last: u64) -> Self {
        Self::interval(0, last)
    }

    /// All after `from` up to `to`.
    pub(super) fn interval(from: u64, to: u64) -> Self {
        Self(if from < to { vec![(from + 1, to)] } else { vec![] })
    }

    /// These numbers, in any order.
    pub(super) fn of(numbers: impl IntoIterator<Item = u64>) -> Self {
        let mut ranges: Vec<_> = numbers.into_iter().map(|number| (number, number)).collect();
        ranges.sort_unstable();
        Self::joined(ranges)
    }

    /// Up to where all have been seen.
    pub(super) fn prefix(&self) -> u64 {
        self.0.first().map_or(0, |&(first, last)| if first == 1 { last } else { 0 })
    }

    /// Whether something is missing below what has been seen.
    pub(super) fn has_gap(&self) -> bool {
        self.0.len() > 1 || self.0.first().is_some_and(|&(first, _)| first != 1)
    }

    pub(super) fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= number);
        after > 0 && number <= self.0[after - 1].1
    }

    pub(super) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|&(first, last)| {
            let after = self.0.partition_point(|&(start, _)| start <= first);
            after > 0 && last <= self.0[after - 1].1
        })
    }

    pub(super) fn insert(&mut self, number: u64) {
        match self.0.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => *self = self.union(&Self(vec![(number, number)])),
        }
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        Self::joined(std::iter::from_fn(|| match (left.peek(), right.peek()) {
            (Some(a), Some(b)) if b < a => right.next().copied(),
            (Some(_), _) => left.next().copied(),
            (None, _) => right.next().copied(),
        }))
    }

    /// All but these numbers, which ascend.
    pub(super) fn without(&self, numbers: impl IntoIterator<Item = u64>) -> Self {
        let mut numbers = numbers.into_iter().peekable();
        let mut left = Vec::with_capacity(self.0.len());
        for &(mut first, last) in &self.0 {
            while let Some(number) = numbers.next_if(|&number| number <= last) {
                if first < number {
                    left.push((first, number - 1));
                }
                first = first.max(number + 1);
            }
            if first <= last {
                left.push((first, last));
            }
        }
        Self(left)
    }

    /// Of ranges by ascending starts, what they hold together.
    fn joined(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (first, last) in ranges {
            match joined.last_mut() {
                Some((_, end)) if first <= *end + 1 => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ranges = Vec::<(u64, u64)>::deserialize(deserializer)?;
        let mut end = 0;
        for &(first, last) in &ranges {
            if first <= end || last < first || last > MAX_NUMBER {
                return Err(de::Error::custom("these are no ascending ranges"));
            }
            end = last;
        }
        Ok(Self::joined(ranges))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    fn numbers(seen: &Seen) -> BTreeSet<u64> {
        seen.ranges().iter().flat_map(|&(first, last)| first..=last).collect()
    }

    fn is_compact(seen: &Seen) -> bool {
        seen.ranges().iter().all(|(first, last)| first <= last)
            && seen.ranges().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0)
    }

    proptest! {
        #[test]
        fn it_is_a_set(a in btree_set(1..40u64, 0..30), b in btree_set(1..40u64, 0..30)) {
            let (left, right) = (Seen::of(a.clone()), Seen::of(b.clone()));
            let (union, without) = (left.union(&right), left.without(b.iter().copied()));
            prop_assert_eq!(numbers(&left), a.clone());
            prop_assert_eq!(numbers(&union), &a | &b);
            prop_assert_eq!(numbers(&without), &a - &b);
            prop_assert_eq!(left.covers(&right), a.is_superset(&b));
            prop_assert!((1..40).all(|number| left.contains(number) == a.contains(&number)));
            prop_assert!([left, right, union, without].iter().all(is_compact));
        }

        #[test]
        fn in_whatever_order_numbers_come_all_is_one_range(
            numbers in Just((1..30).collect::<Vec<u64>>()).prop_shuffle()
        ) {
            let mut seen = Seen::default();
            numbers.iter().for_each(|&number| seen.insert(number));
            prop_assert_eq!(seen, Seen::up_to(29));
        }
    }

    #[test]
    fn the_prefix_ends_before_the_first_gap() {
        assert_eq!(Seen::default().prefix(), 0);
        assert_eq!(Seen::of([2, 3]).prefix(), 0);
        assert_eq!(Seen::of([1, 2, 4]).prefix(), 2);
    }

    #[test]
    fn a_gap_is_what_is_missing_below() {
        assert!(!Seen::default().has_gap());
        assert!(!Seen::up_to(3).has_gap());
        assert!(Seen::of([2]).has_gap());
        assert!(Seen::of([1, 3]).has_gap());
    }

    #[test]
    fn only_ascending_ranges_of_sane_numbers_are_read() {
        let read = |text: &str| serde_json::from_str::<Seen>(text).ok();
        assert_eq!(read("[[1,2],[3,4],[6,6]]"), Some(Seen::of([1, 2, 3, 4, 6])));
        let bad =
            ["[[0,1]]", "[[2,1]]", "[[1,3],[3,4]]", "[[5,6],[1,2]]", "[[1,9007199254740993]]"];
        assert!(bad.iter().all(|text| read(text).is_none()));
    }
}
