//! [`Sequence`]: whether the numbered frames of one sender have all come.

use std::collections::BTreeSet;

/// The numbers of the topic frames of one sender. Plain code.
///
/// A number that has not come, although a higher one has, may be explained by the sender, or come late. It counts as
/// missing at the second beat after that.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// The highest number that has come or was announced. `None` until the first.
    last: Option<u64>,
    /// The number of the first frame that has come, if it came before anything was known of the sender.
    first: Option<u64>,
    /// What the sender has announced as its last number, a beat ago.
    announced: u64,
    /// The numbers that have not come: since the last beat, and for longer.
    fresh: BTreeSet<u64>,
    overdue: BTreeSet<u64>,
    /// Numbers that will not come, as the sender says.
    explained: BTreeSet<u64>,
    /// More are missing than are listed.
    is_beyond: bool,
}

/// How many missing numbers are listed.
const LISTED: u64 = 4096;

impl Sequence {
    /// Everything after this number is expected. Returns whether frames are missing before the first that has come.
    pub(super) fn begin_after(&mut self, number: u64) -> bool {
        self.last.get_or_insert(number);
        self.first.is_some_and(|first| first > number.saturating_add(1))
    }

    /// Returns whether a lost frame would be noticed.
    pub(super) fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    /// The highest number that has come or was announced.
    pub(super) fn last(&self) -> Option<u64> {
        self.last
    }

    /// Returns whether no number up to this one is still to come.
    pub(super) fn has_all_until(&self, number: u64) -> bool {
        let is_missing = |listed: &BTreeSet<u64>| listed.first().is_some_and(|it| *it <= number);
        let has_all = !self.is_beyond && !is_missing(&self.fresh) && !is_missing(&self.overdue);
        has_all && self.last.is_some_and(|last| number <= last)
    }

    /// Expects nothing until the next frame: what comes is not all that is sent.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// A frame has come. Returns `false` if it has come before.
    pub(super) fn receive(&mut self, number: u64) -> bool {
        match self.last {
            Some(last) if number <= last => {
                return self.fresh.remove(&number) || self.overdue.remove(&number);
            }
            Some(last) => {
                self.is_beyond |=
                    !expect(&mut self.fresh, &mut self.explained, last + 1, number - 1)
            }
            None => self.first = Some(number),
        }
        self.last = Some(number);
        true
    }

    /// The sender says that this was its last number. Returns whether frames are missing.
    pub(super) fn announce(&mut self, number: u64) -> bool {
        let is_missing = self.has_missing_for_long();
        self.overdue = std::mem::take(&mut self.fresh);
        self.is_beyond = false;
        let announced = std::mem::replace(&mut self.announced, number);
        match self.last {
            None => self.last = Some(number),
            // Those that it has announced this time may be on their way.
            Some(last) if last < announced => {
                self.is_beyond |=
                    !expect(&mut self.overdue, &mut self.explained, last + 1, announced);
                self.last = Some(announced);
            }
            Some(_) => {}
        }
        is_missing
    }

    /// The sender says that these were not sent.
    pub(super) fn explain(&mut self, numbers: &[u64]) {
        for number in numbers {
            let is_known = self.fresh.remove(number) || self.overdue.remove(number);
            let is_to_come = self.last.is_some_and(|last| *number > last);
            if !is_known && is_to_come && (self.explained.len() as u64) < LISTED {
                self.explained.insert(*number);
            }
        }
    }

    /// Returns whether frames are missing, or on their way.
    pub(super) fn is_incomplete(&self) -> bool {
        self.has_missing() || self.last.is_some_and(|last| last < self.announced)
    }

    /// The sender will send nothing more, and this was its last number. Returns whether frames are missing.
    pub(super) fn end(&mut self, number: u64) -> bool {
        self.announced = self.announced.max(number);
        self.is_incomplete()
    }

    /// Returns whether frames are missing, for however long.
    pub(super) fn has_missing(&self) -> bool {
        self.has_missing_for_long() || !self.fresh.is_empty()
    }

    fn has_missing_for_long(&self) -> bool {
        self.is_beyond || !self.overdue.is_empty()
    }
}

/// Adds numbers that have not come, but for those that are explained. Returns `false` if there are more than are listed.
fn expect(
    missing: &mut BTreeSet<u64>,
    explained: &mut BTreeSet<u64>,
    first: u64,
    last: u64,
) -> bool {
    if first > last {
        return true;
    }
    let room = LISTED.saturating_sub(missing.len() as u64);
    let unexplained = (first..=last).filter(|number| !explained.contains(number));
    missing.extend(unexplained.take(usize::try_from(room).unwrap_or(0)));
    let is_listed = last - first < room;
    // Nothing before this is expected any more.
    *explained = explained.split_off(&last.saturating_add(1));
    is_listed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive<const N: usize>(sequence: &mut Sequence, numbers: [u64; N]) -> [bool; N] {
        numbers.map(|number| sequence.receive(number))
    }

    #[test]
    fn each_number_is_taken_once_also_if_it_comes_late() {
        let mut sequence = Sequence::default();
        assert_eq!(
            receive(&mut sequence, [5, 6, 6, 5, 9, 7, 8, 7, 10]),
            [true, true, false, false, true, true, true, false, true]
        );
        assert!(!sequence.has_missing());
    }

    #[test]
    fn what_has_not_come_counts_as_missing_at_the_second_beat_and_once() {
        let mut sequence = Sequence::default();
        receive(&mut sequence, [1, 3]);
        assert_eq!([3, 3, 3].map(|number| sequence.announce(number)), [false, true, false]);
        assert_eq!(receive(&mut sequence, [2, 4]), [false, true]);
    }

    #[test]
    fn what_comes_late_or_is_explained_is_not_missing() {
        let mut sequence = Sequence::default();
        receive(&mut sequence, [1, 3, 5]);
        assert!(!sequence.announce(5));
        assert!(sequence.receive(2));
        sequence.explain(&[4, 6]);
        assert!(!sequence.announce(5));
        assert!(!sequence.receive(4));
        assert!(sequence.receive(7));
        assert!(!sequence.has_missing(), "it was explained before it was missed");
    }

    #[test]
    fn the_last_frames_are_missing_too() {
        let mut sequence = Sequence::default();
        sequence.receive(1);
        assert!(!sequence.is_incomplete());
        let missing = [3, 3, 3, 3].map(|number| sequence.announce(number));
        assert_eq!(missing, [false, false, true, false]);
        assert_eq!(receive(&mut sequence, [4]), [true]);
    }

    #[test]
    fn frames_that_a_beat_has_overtaken_are_taken() {
        let mut sequence = Sequence::default();
        sequence.receive(1);
        sequence.announce(3);
        sequence.announce(3);
        assert_eq!(receive(&mut sequence, [2, 3, 3]), [true, true, false]);
        assert!(!sequence.announce(3));
    }

    #[test]
    fn a_sender_that_is_new_has_sent_nothing_before_its_first_frame() {
        let mut sequence = Sequence::default();
        assert!(!sequence.begin_after(0));
        receive(&mut sequence, [2]);
        assert!(sequence.has_missing());
    }

    #[test]
    fn a_frame_that_came_before_its_sender_was_known_was_the_first_or_others_are_missing() {
        for first in [1, 2] {
            let mut sequence = Sequence::default();
            receive(&mut sequence, [first]);
            assert_eq!(sequence.begin_after(0), first == 2);
        }
    }

    #[test]
    fn a_sender_that_is_heard_for_the_first_time_owes_nothing_that_it_sent_before() {
        let mut sequence = Sequence::default();
        assert_eq!([10, 10, 10].map(|number| sequence.announce(number)), [false; 3]);
        assert_eq!(receive(&mut sequence, [11]), [true]);
    }

    #[test]
    fn nothing_is_missing_after_a_time_in_which_not_everything_was_heard() {
        let mut sequence = Sequence::default();
        receive(&mut sequence, [1]);
        sequence.forget();
        receive(&mut sequence, [9]);
        assert!(!sequence.has_missing());
    }

    #[test]
    fn a_sender_that_ends_has_nothing_on_its_way() {
        let end = |numbers: [u64; 2], last| {
            let mut sequence = Sequence::default();
            receive(&mut sequence, numbers);
            sequence.end(last)
        };
        assert!(!end([1, 2], 2));
        assert!(end([1, 2], 3));
        assert!(end([1, 3], 3));
    }

    #[test]
    fn a_gap_that_is_too_long_to_be_listed_is_missing_all_the_same() {
        let mut sequence = Sequence::default();
        receive(&mut sequence, [1, u64::MAX]);
        assert!(sequence.fresh.len() as u64 <= LISTED);
        assert!(sequence.announce(u64::MAX));
        let mut sequence = Sequence::default();
        sequence.receive(1);
        assert_eq!([u64::MAX; 3].map(|number| sequence.announce(number)), [false, false, true]);
        for number in [0, 5, u64::MAX] {
            sequence.receive(number);
            sequence.announce(number);
            sequence.end(number);
        }
    }
}
