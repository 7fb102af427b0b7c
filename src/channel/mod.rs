//! Channels: the trait that an application implements, what it holds while it runs, and the task
//! behind each joined topic.

pub(crate) mod callbacks;
pub(crate) mod context;
mod exit_guard;
pub(crate) mod mailbox;
mod presence;
pub(crate) mod result;
pub(crate) mod socket;
pub(crate) mod task;

pub use self::result::Result;
