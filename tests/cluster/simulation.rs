//! Walks of three nodes on a faulty engine, see `src/test/simulation`.
//!
//! `SEEDS` in the environment sets how many. A walk that fails prints its number: `SEED` runs it alone,
//! `STEPS` shortens it, and with `TRACE` it prints what happens. The fuzz target `cluster` takes the same steps.

use tower_channels::internals::simulation::{history, walk};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Returns the output of an xorshift64* generator.
fn random_bytes(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    let steps = number("STEPS").unwrap_or(60);
    std::iter::repeat_with(next).take(1 + 2 * steps as usize).collect()
}

#[test]
fn nothing_is_lost_in_silence_whatever_breaks() {
    run(1000, |bytes| {
        walk(bytes);
    });
}

#[test]
fn of_a_topic_with_a_history_every_message_comes_once_and_in_one_order_or_the_join_says_so() {
    run(HISTORIES, history::walk);
}

/// How many walks of histories there are.
const HISTORIES: u64 = 150;

/// Takes walks, of which `seeds` are the default.
fn run(seeds: u64, walk: fn(&[u8])) {
    if let Some(seed) = number("SEED") {
        if std::env::var_os("TRACE").is_some() {
            tracing_subscriber::fmt()
                .with_ansi(false)
                .without_time()
                .with_writer(std::io::stderr)
                .with_max_level(tracing::Level::DEBUG)
                .init();
        }
        walk(&random_bytes(seed));
        return;
    }
    let seeds = number("SEEDS").unwrap_or(seeds);
    let walk = |seed| {
        let bytes = random_bytes(seed);
        let result = std::panic::catch_unwind(|| walk(&bytes));
        if result.is_err() {
            eprintln!("SEED={seed}");
        }
        usize::from(result.is_err())
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failed: usize = std::thread::scope(|scope| {
        let part = |first| (first as u64..=seeds).step_by(threads).map(walk).sum::<usize>();
        let parts: Vec<_> = (1..=threads).map(|first| scope.spawn(move || part(first))).collect();
        parts.into_iter().map(|part| part.join().expect("walks are caught")).sum()
    });
    assert_eq!(failed, 0, "of {seeds} walks");
}

#[test]
fn the_same_bytes_are_the_same_walk() {
    for seed in 1..=20 {
        let bytes = random_bytes(seed);
        assert_eq!(walk(&bytes), walk(&bytes), "SEED={seed}");
    }
}
