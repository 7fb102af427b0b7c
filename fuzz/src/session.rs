//! A kept session as a state machine.

/// A client that loses connections in every way and comes back misses nothing, gets nothing out of
/// order and, if it reads numbers, nothing twice; and what the session holds is what it counts. The
/// bytes are steps, each with a value.
pub fn check(data: &[u8]) {
    tower_channels_transports::internals::model::walk(data);
}
