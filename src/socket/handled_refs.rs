//! [`HandledRefs`], the refs that a session does not handle again.

use std::fmt::Write as _;

use crate::message::Ref;

/// The numeric refs that a session has handled, over all its connections: a sorted list of ranges.
///
/// The refs of one client only grow, so the list has one range, and another one for each gap that was
/// left by a message that did not arrive, or by a ref that the client took for something else. Refs
/// that arrive out of order, as over concurrent requests, close their gaps again.
///
/// Over the bound the lowest gap is closed: no ref is ever handled twice, and one that is missing for
/// so long counts as handled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HandledRefs {
    /// Ascending, and not adjacent. Both ends are included.
    ranges: Vec<(u64, u64)>,
}

impl HandledRefs {
    /// The most that it holds outside of itself, in bytes.
    pub(super) const MAX_SIZE: usize = MAX_RANGES * size_of::<(u64, u64)>();

    /// Creates them from ranges as [`ranges`](Self::ranges) returns them. What follows a wrong one is left out.
    pub(super) fn from_ranges(ranges: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut valid = Vec::<(u64, u64)>::new();
        for (first, last) in ranges.into_iter().take(MAX_RANGES) {
            let follows = valid.last().is_none_or(|(_, before)| first.saturating_sub(1) > *before);
            if !follows || first > last || last > MAX_SAFE_INTEGER {
                break;
            }
            valid.push((first, last));
        }
        Self { ranges: valid }
    }

    /// The ranges, ascending, with both ends included.
    pub(super) fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Adds a ref.
    pub(super) fn insert(&mut self, number: u64) {
        // Mostly it is the one after the last.
        if let Some((_, last)) = self.ranges.last_mut()
            && last.checked_add(1) == Some(number)
        {
            *last = number;
            return;
        }
        let at = self.first_not_below(number);
        let next = self.ranges.get(at).copied();
        if next.is_some_and(|(first, _)| first <= number) {
            return;
        }
        let previous = at.checked_sub(1).and_then(|before| self.ranges.get(before).copied());
        let follows = previous.is_some_and(|(_, last)| last.checked_add(1) == Some(number));
        let precedes = next.is_some_and(|(first, _)| number.checked_add(1) == Some(first));
        match (follows, precedes) {
            (true, true) => self.close_gap(at - 1),
            (true, false) => self.ranges[at - 1].1 = number,
            (false, true) => self.ranges[at].0 = number,
            (false, false) if self.ranges.len() < MAX_RANGES => {
                self.ranges.insert(at, (number, number));
            }
            (false, false) => {
                self.close_gap(0);
                self.insert(number);
            }
        }
    }

    /// Joins the range at `index` with the next one.
    fn close_gap(&mut self, index: usize) {
        let (_, last) = self.ranges.remove(index + 1);
        self.ranges[index].1 = last;
    }

    /// Returns whether the ref counts as handled.
    pub(super) fn contains(&self, number: u64) -> bool {
        self.ranges.get(self.first_not_below(number)).is_some_and(|(first, _)| *first <= number)
    }

    /// The index of the first range that does not end below `number`.
    fn first_not_below(&self, number: u64) -> usize {
        self.ranges.partition_point(|(_, last)| *last < number)
    }

    /// Returns the ranges as JSON, such as `[[1,40],[42,42]]`.
    pub(super) fn to_json(&self) -> String {
        let mut json = String::from("[");
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            // Writing into memory cannot fail.
            let _ = write!(json, "{comma}[{first},{last}]");
        }
        json.push(']');
        json
    }
}

/// Gaps close when what was lost is repeated; those that stay are old. phoenix.js leaves a few with
/// each connection.
const MAX_RANGES: usize = 64;

/// Returns the number that a ref is, as a string or an integer. `None` for any other ref, and for a
/// number that JavaScript cannot count to.
pub(super) fn number(reference: &Ref) -> Option<u64> {
    let text = reference.as_json()?;
    let digits = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let is_canonical = digits == "0" || !digits.starts_with(['0', '+']);
    digits.parse().ok().filter(|number| is_canonical && *number <= MAX_SAFE_INTEGER)
}

const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests;
