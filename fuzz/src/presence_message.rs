//! Messages between replicas of the presence tracker.

/// Asserts that a rejected message changes nothing, that an accepted one is idempotent, that the
/// reported changes match the lists, and that a message survives a round trip through the encoding.
pub fn check(data: &[u8]) {
    tower_channels::model::receive(data);
}
