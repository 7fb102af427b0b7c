use super::*;

/// Returns the output of an xorshift64* generator.
fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// `SEEDS` in the environment sets the number of walks, 2000 by default: of 20 to 120 steps.
#[test]
fn one_node_has_the_session_whatever_has_happened() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(2000);
    let bytes = |seed| random_bytes(seed, 40 + seed as usize % 6 * 40);
    let has_failed = |seed: &u64| std::panic::catch_unwind(|| walk(&bytes(*seed))).is_err();
    let failed: Vec<_> = (1..=seeds).filter(has_failed).collect();
    assert!(failed.is_empty(), "seeds {failed:?}");
}

/// A step, and whose it is or how long it lasts.
const CONNECT: u8 = 0;
const WAIT: u8 = 9;
const CUT: u8 = 16;
const MEND: u8 = 17;

#[test]
fn an_older_session_that_could_not_be_recorded_does_not_end_the_newest_one() {
    let steps = [
        [CONNECT, 0],
        [WAIT, 3],
        // It begins there without the store.
        [CUT, 1],
        [CONNECT, 1],
        [WAIT, 90],
        [CONNECT, 0],
        [WAIT, 3],
        [MEND, 1],
    ];
    walk(steps.as_flattened());
}
