//! The gauge of running channels.

/// Counts a channel from the moment its task is spawned until nothing of it is left: also while it waits
/// for an earlier instance, and while it handles what a client that is gone has sent.
pub(super) struct RunningChannel(());

impl RunningChannel {
    pub(super) fn new() -> Self {
        metrics::gauge!(GAUGE).increment(1);
        Self(())
    }
}

impl Drop for RunningChannel {
    fn drop(&mut self) {
        metrics::gauge!(GAUGE).decrement(1);
    }
}

const GAUGE: &str = "tower_channels_channels_running";
