//! Numbers that are derived from those of two moments. Plain code.

use tower_channels::inspect::ROUND_TRIPS;

/// Returns how many there were in a second.
pub(crate) fn per_second(count: u64, seconds: f64) -> f64 {
    round(count as f64 / seconds.max(0.001))
}

/// Returns a number as it is shown.
pub(crate) fn round(number: f64) -> f64 {
    if number < 100.0 { (number * 10.0).round() / 10.0 } else { number.round() }
}

/// Returns the quantiles 0.5 and 0.95 of what is in classes with the bounds [`ROUND_TRIPS`], in milliseconds, interpolated
/// within their classes. What is in the last class counts as its lower bound. `None` if there is nothing.
pub(crate) fn quantiles(classes: &[u64; ROUND_TRIPS.len() + 1]) -> Option<[f64; 2]> {
    let all: u64 = classes.iter().sum();
    let quantile = |share: f64| {
        let mut below = 0;
        for (index, count) in classes.iter().enumerate() {
            let wanted = share * all as f64 - below as f64;
            if *count > 0 && wanted <= *count as f64 {
                let from = if index == 0 { 0.0 } else { ROUND_TRIPS[index - 1] };
                let to = ROUND_TRIPS.get(index).copied().unwrap_or(from);
                return from + (to - from) * wanted / *count as f64;
            }
            below += count;
        }
        ROUND_TRIPS[ROUND_TRIPS.len() - 1]
    };
    (all > 0).then(|| [0.5, 0.95].map(|share| (quantile(share) * 100.0).round() / 100.0))
}

/// Returns what has been counted since an earlier moment.
pub(crate) fn since<const N: usize>(now: &[u64; N], before: &[u64; N]) -> [u64; N] {
    std::array::from_fn(|index| now[index].saturating_sub(before[index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u64; ROUND_TRIPS.len() + 1] = [0; ROUND_TRIPS.len() + 1];

    #[test]
    fn quantiles_lie_in_the_classes_that_contain_them() {
        assert_eq!(quantiles(&NONE), None);
        let mut classes = NONE;
        (classes[2], classes[9]) = (90, 10);
        let [median, high] = quantiles(&classes).expect("two");
        assert!((0.5..=1.0).contains(&median), "{median}");
        assert!((15.0..=20.0).contains(&high), "{high}");
        classes = NONE;
        classes[ROUND_TRIPS.len()] = 1;
        assert_eq!(quantiles(&classes), Some([5000.0, 5000.0]));
    }

    #[test]
    fn small_numbers_keep_a_digit_behind_the_point() {
        assert_eq!((per_second(1, 3.0), per_second(1001, 2.0)), (0.3, 501.0));
        assert!(per_second(1, 0.0).is_finite());
    }
}
