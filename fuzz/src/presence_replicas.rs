//! Replication of the presence tracker between three nodes on a faulty network.

/// Nodes track and untrack, restart and stop while messages are lost, delayed, duplicated and
/// reordered and links fail. A remove affects only entries its replica had observed, removed
/// entries never reappear, and all nodes converge. Each step takes two bytes: its kind and a value.
pub fn check(data: &[u8]) {
    tower_channels::model::walk(&data[..data.len().min(1024)]);
}
