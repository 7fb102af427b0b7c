//! What the topics show, as functions of the time.

use serde_json::{Value, json};

/// The prices of four companies.
pub(super) fn prices(step: u64) -> Value {
    let price = |(company, base): (u64, f64)| {
        // Noise at several scales looks like a market.
        let scales = [(128, 0.05), (32, 0.02), (8, 0.008), (1, 0.002)];
        let noise = scales.map(|(scale, weight)| weight * noise(company, step, scale));
        (base * (1.0 + noise.iter().sum::<f64>()) * 100.0).round() / 100.0
    };
    let companies = [(1, "ADA", 184.2), (2, "CRAB", 62.75), (3, "FERRY", 411.0), (4, "OXID", 27.4)];
    json!(companies.map(|(n, name, base)| json!({ "name": name, "price": price((n, base)) })))
}

/// Two matches. A match takes 90 s of 2 minutes: one minute per second.
pub(super) fn scores(step: u64) -> Value {
    let minute = (step / 2) % 120;
    let game = |(number, home, away): (u64, &str, &str)| {
        let seed = step / 240 * 16 + number * 2;
        let goals =
            |side| (1..=minute.min(90)).filter(move |it| hash(seed + side, *it).is_multiple_of(45));
        let (home_goals, away_goals): (Vec<_>, Vec<_>) = (goals(0).collect(), goals(1).collect());
        json!({ "home": home, "away": away, "goals": [home_goals, away_goals] })
    };
    let games = [(0, "Northern Lights", "Harbour Town"), (1, "Old Mill", "Riverside")];
    json!({ "minute": minute.min(90), "games": games.map(game) })
}

/// Smooth noise between -1 and 1.
fn noise(seed: u64, step: u64, scale: u64) -> f64 {
    let at = |knot| hash(seed * 1000 + scale, knot) as f64 / u64::MAX as f64 * 2.0 - 1.0;
    let (knot, within) = (step / scale, (step % scale) as f64 / scale as f64);
    at(knot) + (at(knot + 1) - at(knot)) * within * within * (3.0 - 2.0 * within)
}

/// splitmix64
fn hash(seed: u64, n: u64) -> u64 {
    let mut x = seed
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(n.wrapping_mul(0xd1b5_4a32_d192_ed03));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
