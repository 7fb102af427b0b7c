//! Three nodes that claim one session.

/// The client connects to any node while nodes die, stall and are cut off, and while the store answers late, fails and
/// forgets. No claim takes longer than it may, no record is overwritten by an older one, and in the end one node has the
/// session. Each step takes two bytes: its kind and a value.
pub fn check(data: &[u8]) {
    tower_channels::internals::claims::walk(&data[..data.len().min(512)]);
}
