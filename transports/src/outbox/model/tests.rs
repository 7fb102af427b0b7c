use super::*;

/// Pseudo-random bytes, the same in every run.
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[test]
fn short_walks() {
    for seed in 1..=20_000 {
        std::panic::catch_unwind(|| walk(&bytes(seed, 120)))
            .unwrap_or_else(|_| panic!("seed {seed}"));
    }
}

#[test]
fn long_walks() {
    for seed in 1..=100 {
        std::panic::catch_unwind(|| walk(&bytes(seed, 20_000)))
            .unwrap_or_else(|_| panic!("seed {seed}"));
    }
}

#[test]
fn a_client_sees_nothing_of_it_that_its_session_moves() {
    for seed in 1..=2_000 {
        let bytes = bytes(seed, 300);
        assert!(walk_on(&bytes, true) == walk_on(&bytes, false), "seed {seed}");
    }
}
