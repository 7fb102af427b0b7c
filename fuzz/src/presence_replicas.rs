//! Replicas of the presence tracker as state machines.

/// Runs three nodes that track and untrack while messages are lost, delayed, repeated and
/// reordered, links are cut, and nodes restart. Asserts that no removal affects unseen entries,
/// that removed entries do not return, and that all nodes converge to exactly the tracked entries.
/// The bytes are steps with a value each.
pub fn check(data: &[u8]) {
    tower_channels::model::walk(&data[..data.len().min(1024)]);
}
