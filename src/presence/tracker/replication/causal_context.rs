//! The causal context of a replica: the set of its dots that have been observed.
//!
//! A replica numbers its operations from 1, and the number of an operation is its *dot*. Dots
//! observed in order form a single range; dots observed out of order form further ranges, which
//! coalesce as the gaps between them are filled.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::presence::tracker::entry::MAX_COUNTER;

/// A set of dots of one replica, as inclusive ranges.
///
/// The ranges ascend, and at least one dot is missing between two neighbours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CausalContext(Vec<(u64, u64)>);

impl CausalContext {
    /// All dots from 1 to `last`.
    pub(super) fn up_to(last: u64) -> Self {
        Self::interval(0, last)
    }

    /// All dots greater than `after`, up to and including `last`.
    pub(super) fn interval(after: u64, last: u64) -> Self {
        Self(if after < last { vec![(after + 1, last)] } else { vec![] })
    }

    /// The largest dot up to which every dot has been observed, or 0.
    pub(super) fn prefix(&self) -> u64 {
        self.0.first().map_or(0, |&(first, last)| if first == 1 { last } else { 0 })
    }

    /// Returns whether a dot is missing below the largest one.
    pub(super) fn has_gap(&self) -> bool {
        self.0.len() > 1 || self.0.first().is_some_and(|&(first, _)| first != 1)
    }

    pub(super) fn ranges(&self) -> &[(u64, u64)] {
        &self.0
    }

    pub(super) fn contains(&self, dot: u64) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= dot);
        after > 0 && dot <= self.0[after - 1].1
    }

    pub(super) fn is_superset(&self, other: &Self) -> bool {
        other.0.iter().all(|&(first, last)| {
            let after = self.0.partition_point(|&(start, _)| start <= first);
            after > 0 && last <= self.0[after - 1].1
        })
    }

    pub(super) fn insert(&mut self, dot: u64) {
        match self.0.last_mut() {
            Some((_, last)) if *last + 1 == dot => *last = dot,
            Some((_, last)) if *last >= dot => *self = self.union(&Self(vec![(dot, dot)])),
            _ => self.0.push((dot, dot)),
        }
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        Self::coalesce(std::iter::from_fn(|| match (left.peek(), right.peek()) {
            (Some(a), Some(b)) if b < a => right.next().copied(),
            (Some(_), _) => left.next().copied(),
            (None, _) => right.next().copied(),
        }))
    }

    /// The set difference with `dots`, which must ascend.
    pub(super) fn without(&self, dots: impl IntoIterator<Item = u64>) -> Self {
        let mut dots = dots.into_iter().peekable();
        let mut ranges = Vec::with_capacity(self.0.len());
        for &(mut first, last) in &self.0 {
            while let Some(dot) = dots.next_if(|&dot| dot <= last) {
                if first < dot {
                    ranges.push((first, dot - 1));
                }
                first = first.max(dot + 1);
            }
            if first <= last {
                ranges.push((first, last));
            }
        }
        Self(ranges)
    }

    /// Merges ranges that overlap or touch. They must be sorted by their start.
    fn coalesce(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut coalesced: Vec<(u64, u64)> = Vec::new();
        for (first, last) in ranges {
            match coalesced.last_mut() {
                Some((_, end)) if first <= *end + 1 => *end = last.max(*end),
                _ => coalesced.push((first, last)),
            }
        }
        Self(coalesced)
    }
}

/// Collects dots in any order.
impl FromIterator<u64> for CausalContext {
    fn from_iter<I: IntoIterator<Item = u64>>(dots: I) -> Self {
        let mut ranges: Vec<_> = dots.into_iter().map(|dot| (dot, dot)).collect();
        ranges.sort_unstable();
        Self::coalesce(ranges)
    }
}

/// For each range, how many dots are missing before it and how many it has: `[0,3,1,2]` are the dots
/// 1, 2, 3, 5 and 6. A context of a hundred thousand ranges takes four or five bytes for each.
impl Serialize for CausalContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut end = 0;
        serializer.collect_seq(self.0.iter().flat_map(|&(first, last)| {
            let missing = first - 1 - end;
            end = last;
            [missing, last - first + 1]
        }))
    }
}

impl<'de> Deserialize<'de> for CausalContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let numbers = Vec::<u64>::deserialize(deserializer)?;
        let mut ranges = Vec::with_capacity(numbers.len() / 2);
        let (pairs, rest) = numbers.as_chunks();
        let mut end = 0u64;
        for &[missing, count] in pairs {
            let first = end.saturating_add(missing).saturating_add(1);
            end = end.saturating_add(missing).saturating_add(count);
            if count == 0 || end > MAX_COUNTER || missing == 0 && first > 1 {
                return Err(de::Error::custom("expected ranges of dots"));
            }
            ranges.push((first, end));
        }
        if !rest.is_empty() {
            return Err(de::Error::custom("expected pairs"));
        }
        Ok(Self(ranges))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use super::*;

    fn context(dots: impl IntoIterator<Item = u64>) -> CausalContext {
        dots.into_iter().collect()
    }

    fn dots(context: &CausalContext) -> BTreeSet<u64> {
        context.ranges().iter().flat_map(|&(first, last)| first..=last).collect()
    }

    fn is_coalesced(context: &CausalContext) -> bool {
        context.ranges().iter().all(|(first, last)| first <= last)
            && context.ranges().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0)
    }

    proptest! {
        #[test]
        fn a_context_behaves_like_a_set_of_dots(
            a in btree_set(1..40u64, 0..30),
            b in btree_set(1..40u64, 0..30),
        ) {
            let (left, right) = (context(a.clone()), context(b.clone()));
            let (union, without) = (left.union(&right), left.without(b.iter().copied()));
            prop_assert_eq!(dots(&left), a.clone());
            prop_assert_eq!(dots(&union), &a | &b);
            prop_assert_eq!(dots(&without), &a - &b);
            prop_assert_eq!(left.is_superset(&right), a.is_superset(&b));
            prop_assert!((1..40).all(|dot| left.contains(dot) == a.contains(&dot)));
            prop_assert!([left, right, union, without].iter().all(is_coalesced));
        }

        #[test]
        fn dots_inserted_in_any_order_coalesce_into_one_range(
            dots in Just((1..30).collect::<Vec<u64>>()).prop_shuffle()
        ) {
            let mut context = CausalContext::default();
            dots.iter().for_each(|&dot| context.insert(dot));
            prop_assert_eq!(context, CausalContext::up_to(29));
        }
    }

    #[test]
    fn the_prefix_ends_before_the_first_gap() {
        assert_eq!(context([]).prefix(), 0);
        assert_eq!(context([2, 3]).prefix(), 0);
        assert_eq!(context([1, 2, 4]).prefix(), 2);
    }

    #[test]
    fn a_missing_lower_dot_is_a_gap() {
        assert!(!context([]).has_gap());
        assert!(!context([1, 2, 3]).has_gap());
        assert!(context([2]).has_gap());
        assert!(context([1, 3]).has_gap());
    }

    #[test]
    fn a_context_is_written_as_gaps_and_lengths() {
        let text = serde_json::to_string(&context([1, 2, 3, 5, 6])).expect("numbers");
        assert_eq!(text, "[0,3,1,2]");
        let parse = |text: &str| serde_json::from_str::<CausalContext>(text).ok();
        assert_eq!(parse(&text), Some(context([1, 2, 3, 5, 6])));
        assert_eq!(parse("[]"), Some(context([])));
        assert_eq!(parse("[4,1]"), Some(context([5])));
        let max = MAX_COUNTER;
        assert_eq!(parse(&format!("[0,{max}]")), Some(CausalContext::up_to(max)));
        let beyond = format!("[0,{max},1,1]");
        for invalid in ["[0]", "[0,0]", "[0,1,0,1]", "[0,1,1]", "[1,18446744073709551615]", &beyond]
        {
            assert_eq!(parse(invalid), None, "{invalid}");
        }
    }
}
