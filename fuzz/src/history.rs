//! A node that follows topics of a store which several nodes share.

/// The store hands over with holes, twice and late, fails, forgets, and loses everything. No message is passed on twice or out
/// of order, none is missing of which nothing was said, and in the end nothing waits. Each step takes two bytes: its kind and
/// a value.
pub fn check(data: &[u8]) {
    tower_channels::internals::following::walk(&data[..data.len().min(512)]);
}
