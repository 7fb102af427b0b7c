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
    for seed in 1..=seeds {
        let bytes = random_bytes(seed, 40 + seed as usize % 6 * 40);
        let result = std::panic::catch_unwind(|| walk(&bytes));
        assert!(result.is_ok(), "seed {seed}");
    }
}
