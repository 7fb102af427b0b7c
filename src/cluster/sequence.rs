//! [`Sequence`]: whether the numbered frames of one sender have all come.

/// The numbers of the frames of one kind from one sender. Plain code.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sequence {
    /// The last number that has come, or is known to have been missed. `None` until the first.
    last: Option<u64>,
    /// The number of the first frame that has come, if it came before anything was known of the sender.
    first: Option<u64>,
    /// What the sender has announced as its last number, a beat ago.
    announced: u64,
}

/// What the number of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is the next one, or the first.
    Next,
    /// It has come before.
    Repeated,
    /// Others before it have not come.
    AfterGap,
}

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

    /// Expects nothing until the next frame: what comes is not all that is sent.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// A frame has come.
    pub(super) fn receive(&mut self, number: u64) -> Arrival {
        let arrival = match self.last {
            Some(last) if number <= last => return Arrival::Repeated,
            Some(last) if number - 1 > last => Arrival::AfterGap,
            Some(_) => Arrival::Next,
            None => {
                self.first = Some(number);
                Arrival::Next
            }
        };
        self.last = Some(number);
        arrival
    }

    /// The sender says that this was its last number. Returns whether frames are missing that it had announced the
    /// time before: those of this time may be on their way.
    pub(super) fn announce(&mut self, number: u64) -> bool {
        let announced = std::mem::replace(&mut self.announced, number);
        let Some(last) = &mut self.last else {
            self.last = Some(number);
            return false;
        };
        let is_missing = *last < announced;
        *last = (*last).max(announced);
        is_missing
    }
}

#[cfg(test)]
mod tests {
    use super::Arrival::{AfterGap, Next, Repeated};
    use super::*;

    fn receive<const N: usize>(sequence: &mut Sequence, numbers: [u64; N]) -> [Arrival; N] {
        numbers.map(|number| sequence.receive(number))
    }

    #[test]
    fn numbers_that_were_left_out_are_a_gap_and_others_come_once() {
        let mut sequence = Sequence::default();
        assert_eq!(
            receive(&mut sequence, [5, 6, 6, 5, 8, 7, 9]),
            [Next, Next, Repeated, Repeated, AfterGap, Repeated, Next]
        );
    }

    #[test]
    fn a_sender_that_is_new_has_sent_nothing_before_its_first_frame() {
        let mut sequence = Sequence::default();
        assert!(!sequence.begin_after(0));
        assert_eq!(receive(&mut sequence, [2]), [AfterGap]);
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
    fn the_last_frames_are_missing_if_they_have_not_come_a_beat_later() {
        let mut sequence = Sequence::default();
        sequence.receive(1);
        assert!(!sequence.announce(3), "they may be on their way");
        assert!(sequence.announce(3));
        assert!(!sequence.announce(3), "a gap is reported once");
        assert_eq!(receive(&mut sequence, [4]), [Next]);
        assert!(!sequence.announce(4));
        assert!(!sequence.announce(4));
    }

    #[test]
    fn a_sender_that_is_heard_for_the_first_time_owes_nothing_that_it_sent_before() {
        let mut sequence = Sequence::default();
        assert!(!sequence.announce(10));
        assert!(!sequence.announce(10));
        assert_eq!(receive(&mut sequence, [11]), [Next]);
    }

    #[test]
    fn nothing_is_missing_after_a_time_in_which_not_everything_was_heard() {
        let mut sequence = Sequence::default();
        receive(&mut sequence, [1]);
        sequence.forget();
        assert_eq!(receive(&mut sequence, [9]), [Next]);
    }
}
