use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn refs(numbers: impl IntoIterator<Item = u64>) -> HandledRefs {
    let mut refs = HandledRefs::default();
    numbers.into_iter().for_each(|number| refs.insert(number));
    refs
}

#[test]
fn refs_that_ascend_are_one_range() {
    assert_eq!(refs(1..=1000).to_json(), "[[1,1000]]");
    assert_eq!(HandledRefs::default().to_json(), "[]");
}

#[test]
fn a_ref_that_is_missing_leaves_a_gap_which_it_closes() {
    let mut refs = refs([1, 2, 4, 5]);
    assert_eq!(refs.to_json(), "[[1,2],[4,5]]");
    assert!(!refs.contains(3));
    refs.insert(3);
    assert_eq!(refs.to_json(), "[[1,5]]");
}

#[test]
fn the_largest_numbers_overflow_nothing() {
    let refs = refs([u64::MAX, 0, u64::MAX - 1, 1]);
    assert_eq!(refs.to_json(), format!("[[0,1],[{},{}]]", u64::MAX - 1, u64::MAX));
}

#[test]
fn nothing_is_held_before_the_first_ref_and_no_more_than_the_bound_after_many() {
    let used = allocation_counter::measure(|| drop(HandledRefs::default()));
    assert_eq!(used.bytes_total, 0);
    let ordinary = refs((1..=10_000).filter(|number| number % 5000 != 0));
    assert!(ordinary.ranges.capacity() * size_of::<(u64, u64)>() <= 64, "{ordinary:?}");
    let refs = refs((0..10_000).map(|number| 2 * number));
    assert!(refs.ranges.capacity() * size_of::<(u64, u64)>() <= HandledRefs::MAX_SIZE);
    assert!(refs.contains(1), "the lowest gaps are closed");
    assert!(!refs.contains(19_997), "the highest are not");
}

#[test]
fn only_numbers_as_javascript_writes_them_count() {
    let number = |json: &str| number(&Ref::from_json(json).expect(json));
    assert_eq!(number(r#""12""#), Some(12));
    assert_eq!(number("12"), Some(12));
    assert_eq!(number(r#""0""#), Some(0));
    assert_eq!(number(r#""9007199254740991""#), Some((1 << 53) - 1));
    for other in [r#""9007199254740992""#, r#""012""#, r#""+1""#, r#""-1""#, "-1", r#""""#, "null"]
    {
        assert_eq!(number(other), None, "{other}");
    }
    for other in [r#""1.5""#, r#""handled""#, r#""123456789012345678901""#, r#"" 1""#] {
        assert_eq!(number(other), None, "{other}");
    }
    assert_eq!(super::number(&Ref::from_bytes(b"\xff").expect("it is short")), None);
}

proptest! {
    /// Refs in any order, with repeats and gaps, as concurrent requests bring them.
    #[test]
    fn within_the_bound_it_is_a_set(numbers in prop::collection::vec(0_u64..64, 0..200)) {
        let (mut refs, mut model) = (HandledRefs::default(), BTreeSet::new());
        for number in numbers {
            refs.insert(number);
            model.insert(number);
        }
        for number in 0..64 {
            prop_assert_eq!(refs.contains(number), model.contains(&number));
        }
        let is_sorted = refs.ranges.is_sorted_by(|(_, last), (first, _)| last + 1 < *first);
        prop_assert!(is_sorted, "{:?}", refs);
    }

    #[test]
    fn no_ref_that_was_handled_is_ever_forgotten(numbers in prop::collection::vec(0_u64..2000, 0..800)) {
        let mut refs = HandledRefs::default();
        let mut handled = BTreeSet::new();
        for number in numbers {
            if !refs.contains(number) {
                refs.insert(number);
                handled.insert(number);
            }
            prop_assert!(refs.contains(number));
            prop_assert!(refs.ranges.len() <= MAX_RANGES);
        }
        prop_assert!(handled.iter().all(|number| refs.contains(*number)));
    }
}

#[test]
fn ranges_of_another_node_are_taken_as_far_as_they_are_valid() {
    let valid = [(0, 0), (2, 5), (7, 9)];
    assert_eq!(HandledRefs::from_ranges(valid).ranges(), valid);
    for wrong in [(5, 4), (9, 12), (10, 12), (1, 2), (20, u64::MAX)] {
        let ranges = [(0, 0), (2, 5), (7, 9), wrong, (30, 31)];
        assert_eq!(HandledRefs::from_ranges(ranges).ranges(), valid, "{wrong:?}");
    }
    let many = (0..1000).map(|n| (2 * n, 2 * n));
    assert_eq!(HandledRefs::from_ranges(many).ranges().len(), MAX_RANGES);
}
