//! Replicas of the presence tracker as state machines.

/// Three nodes track and untrack while messages are lost, late, repeated and out of order, lines are
/// cut, and nodes restart: no removal takes what it had not seen, nothing comes back, and in the end
/// all see exactly what all track. The bytes are steps, each with a value.
pub fn check(data: &[u8]) {
    tower_channels::internals::model::walk(&data[..data.len().min(1024)]);
}
