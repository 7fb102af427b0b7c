//! [`Handle`]: reaches a channel from other tasks.

use std::fmt;
use std::marker::PhantomData;

use super::callbacks::{Channel, Socket};
use super::mailbox::{self, Command, SendError};
use crate::guarded::Guarded;

/// Sends messages to a channel from other tasks. A cheap clone, which does not keep the channel
/// alive.
pub struct Handle<C: Channel> {
    mailbox: mailbox::Sender,
    info: PhantomData<fn(C::Info)>,
}

impl<C: Channel> Handle<C> {
    /// Sends a message to [`Channel::handle_info`]. Never blocks.
    ///
    /// # Errors
    /// [`SendError::Closed`] if the channel has ended or its client is gone, [`SendError::Full`] if
    /// more than [`Builder::max_mailbox`] waits for the channel.
    ///
    /// [`Builder::max_mailbox`]: crate::Builder::max_mailbox
    pub fn send(&self, info: C::Info) -> Result<(), SendError> {
        self.mailbox.send(Command::Info(Box::new(Guarded::new(info))))
    }

    pub(super) fn mailbox(&self) -> &mailbox::Sender {
        &self.mailbox
    }
}

impl<C: Channel> Socket<C> {
    /// Returns a handle with which other tasks send messages to this channel; see
    /// [`Channel::handle_info`].
    pub fn handle(&self) -> Handle<C> {
        Handle { mailbox: self.context().mailbox.clone(), info: PhantomData }
    }
}

impl<C: Channel> Clone for Handle<C> {
    fn clone(&self) -> Self {
        Self { mailbox: self.mailbox.clone(), info: PhantomData }
    }
}

impl<C: Channel> fmt::Debug for Handle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
