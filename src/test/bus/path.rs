//! [`Path`]: what happens between two nodes.

use std::time::Duration;

/// What happens to the frames from one node to another. By default they arrive at once and in order.
#[derive(Clone, Copy, Debug, Default)]
#[doc(hidden)]
pub struct Path {
    /// They do not arrive.
    pub is_cut: bool,
    /// They arrive so much later.
    pub delay: Duration,
    /// A frame with a shorter delay overtakes those before it.
    pub is_unordered: bool,
    /// The delay is of frames to topics alone, which have an order of their own.
    pub has_two_orders: bool,
    /// The next so many do not arrive.
    pub lose: u32,
    /// The next so many arrive twice.
    pub repeat: u32,
}
