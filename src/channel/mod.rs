//! Channels: the trait that an application implements, the values that its callbacks receive and
//! return, and the task that runs each joined channel.

pub(crate) mod arrival;
pub(crate) mod callbacks;
pub(crate) mod context;
pub(crate) mod error;
mod exit_guard;
pub(crate) mod handle;
pub(crate) mod instance;
mod log;
pub(crate) mod mailbox;
pub(crate) mod moving;
mod presence;
mod reach;
pub(crate) mod remembered;
pub(crate) mod reply_ref;
pub(crate) mod resources;
pub(crate) mod result;
mod running;
pub(crate) mod subscriptions;
pub(crate) mod task;
mod telling;
pub(crate) mod timers;

pub use self::error::{Error, OrReply, Result};
