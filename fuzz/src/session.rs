//! A resumable session as a state machine.

/// Asserts that a client that loses connections in every way and reconnects misses nothing,
/// receives everything in order and, if it reads sequence numbers, nothing twice; and that the
/// session accounts for exactly the bytes that it holds. The bytes are steps with a value each.
pub fn check(data: &[u8]) {
    tower_channels_transports::internals::model::walk(data);
}
