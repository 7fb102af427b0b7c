//! [`Search`]: where the newest messages of a topic begin. Plain code.

/// Finds a number from which on about as many messages of a topic follow as are wanted. The numbers of a topic lie among
/// those of others, so it is asked at some places how many follow, and guessed between two of them.
#[derive(Debug)]
pub(crate) struct Search {
    /// A number from which on enough follow, and how many.
    low: (u64, u64),
    /// A number from which on too few follow, and how many.
    high: (u64, u64),
    wanted: u64,
    steps: u32,
    /// The end that moved last, and how often in a row.
    moved: Option<(End, i32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Low,
    High,
}

/// How many more than wanted may be read in vain: half as many, within these bounds. A message costs less than a question.
const SURPLUS: std::ops::RangeInclusive<u64> = 8..=64;

/// Every so many steps the search halves what is left.
const HALVING: u32 = 4;

/// A search that takes longer ends where it is.
const MAX_STEPS: u32 = 64;

impl Search {
    /// Begins with the oldest number and how many follow from there on, itself included, and with a number from which on
    /// fewer than wanted do.
    pub(crate) fn new(oldest: (u64, u64), end: (u64, u64), wanted: u64) -> Self {
        Self { low: oldest, high: end, wanted, steps: 0, moved: None }
    }

    fn surplus(&self) -> u64 {
        (self.wanted / 2).clamp(*SURPLUS.start(), *SURPLUS.end())
    }

    /// The weights of both ends for the next guess: an end that stays weighs half as much each time.
    fn weights(&self) -> (f64, f64) {
        let faded = |moves: i32| 0.5_f64.powi(moves - 1);
        match self.moved {
            None => (1.0, 1.0),
            Some((End::Low, moves)) => (1.0, faded(moves)),
            Some((End::High, moves)) => (faded(moves), 1.0),
        }
    }

    /// The next place to ask. `None` if the search is over.
    pub(crate) fn next(&mut self) -> Option<u64> {
        let ((low, most), (high, least)) = (self.low, self.high);
        let width = high.saturating_sub(low);
        let is_found = most <= self.wanted.saturating_add(self.surplus());
        if is_found || width < 2 || self.steps >= MAX_STEPS {
            return None;
        }
        self.steps += 1;
        // Regula falsi, with the weights of the Illinois method: evenly distributed messages are found at once.
        let share = if self.steps.is_multiple_of(HALVING) {
            0.5
        } else {
            let aim = self.wanted.saturating_add(self.surplus() / 2);
            let (low_weight, high_weight) = self.weights();
            let above = most.saturating_sub(aim).max(1) as f64 * low_weight;
            let below = aim.saturating_sub(least).max(1) as f64 * high_weight;
            above / (above + below)
        };
        Some((low + (width as f64 * share) as u64).clamp(low + 1, high - 1))
    }

    /// Takes the answer: the first message from there on, and how many follow, itself included; or none.
    pub(crate) fn answer(&mut self, asked: u64, found: Option<(u64, u64)>) {
        let end = match found {
            Some((number, count)) if count >= self.wanted => {
                self.low = (number.max(asked), count);
                End::Low
            }
            _ => {
                self.high = (asked, found.map_or(0, |(_, count)| count));
                End::High
            }
        };
        let moves = self.moved.filter(|(last, _)| *last == end).map_or(0, |(_, moves)| moves);
        self.moved = Some((end, moves + 1));
    }

    /// Where to read from.
    pub(crate) fn start(&self) -> u64 {
        self.low.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns where the search ends, how many follow from there, and how often it asked.
    fn search(numbers: &[u64], wanted: u64) -> (u64, usize, u32) {
        let following = |from: u64| {
            let at = numbers.partition_point(|number| *number < from);
            numbers.get(at).map(|number| (*number, (numbers.len() - at) as u64))
        };
        let oldest = following(0).unwrap();
        let end = numbers.last().unwrap() + 1;
        let mut search = Search::new(oldest, (end, 0), wanted);
        while let Some(asked) = search.next() {
            search.answer(asked, following(asked));
        }
        let start = search.start();
        (start, following(start).unwrap().1 as usize, search.steps)
    }

    #[test]
    fn the_newest_of_evenly_distributed_messages_are_found_at_once() {
        let numbers: Vec<_> = (0..10_000).map(|number| 1_000_000 + number * 37).collect();
        for wanted in [1, 50, 500, 5000] {
            let (_, found, steps) = search(&numbers, wanted);
            assert!((wanted..=wanted + 64).contains(&(found as u64)), "{found} of {wanted}");
            assert!(steps <= 2, "{steps} steps");
        }
    }

    #[test]
    fn messages_that_lie_anyhow_are_found_in_some_steps() {
        let bursts = (0..100)
            .flat_map(|burst| (0..100).map(move |number| burst * burst * 1_000_000 + number));
        let numbers: Vec<_> = bursts.chain((1 << 36)..(1 << 36) + 1000).collect();
        for wanted in [1, 50, 999, 1000, 1001, 5000, 10_999] {
            let (_, found, steps) = search(&numbers, wanted);
            assert!((wanted..=wanted + 64).contains(&(found as u64)), "{found} of {wanted}");
            assert!(steps <= 30, "{steps} steps for {wanted}");
        }
    }

    #[test]
    fn all_are_taken_if_there_are_hardly_more() {
        let numbers: Vec<_> = (5..105).collect();
        for wanted in [70, 100, 200, u64::MAX] {
            assert_eq!(search(&numbers, wanted), (5, 100, 0));
        }
    }

    #[test]
    fn an_end_is_found_also_if_the_messages_change_meanwhile() {
        let mut search = Search::new((0, 1000), (u64::MAX, 0), 10);
        while let Some(asked) = search.next() {
            search.answer(asked, Some((asked, 5000)));
        }
        assert!(search.start() < u64::MAX);
    }
}
