//! What one replica of the presence tracker says to another.

/// What is refused changes nothing, what is taken changes the same once and twice, and the changes
/// say what the lists do; a message that was read is read the same when it is written again.
pub fn check(data: &[u8]) {
    tower_channels::internals::model::receive(data);
}
