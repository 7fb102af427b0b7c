//! Sessions on their way between nodes.

/// Asserts that what can be read as a session survives encoding and decoding, holds a bounded number of bytes, and that
/// a client can use its outbox and leave nothing behind.
pub fn check(data: &[u8]) {
    tower_channels_transports::internals::moving::move_session(data);
}
