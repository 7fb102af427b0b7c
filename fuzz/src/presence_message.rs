//! Messages between replicas of the presence tracker.

/// A rejected message has no effect. An accepted one is idempotent, its diff agrees with the
/// listing, and it survives encoding and decoding.
pub fn check(data: &[u8]) {
    tower_channels::model::receive(data);
}
