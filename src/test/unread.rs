//! [`Unread`]: the messages that no method has asked for yet.

use std::collections::VecDeque;
use std::fmt;

use super::message::Message;

/// The messages that no method has asked for yet, in order.
#[derive(Debug, Default)]
pub(super) struct Unread(VecDeque<Message>);

impl Unread {
    pub(super) fn push(&mut self, message: Message) {
        self.0.push_back(message);
    }

    /// Returns the first message that is wanted.
    pub(super) fn find(&self, wanted: impl Fn(&Message) -> bool) -> Option<&Message> {
        self.0.iter().find(|message| wanted(message))
    }

    /// Removes the first message that is wanted. The others stay, in order.
    pub(super) fn take(&mut self, wanted: impl Fn(&Message) -> bool) -> Option<Message> {
        let at = self.0.iter().position(wanted)?;
        self.0.remove(at)
    }

    /// Removes all.
    #[cfg(feature = "unstable-internals")]
    pub(super) fn take_all(&mut self) -> Vec<Message> {
        self.0.drain(..).collect()
    }

    /// Removes all, and returns their number.
    pub(super) fn discard(&mut self) -> usize {
        self.0.drain(..).count()
    }
}

/// For the end of a failed expectation: one message a line.
impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing is unread");
        }
        f.write_str("unread:")?;
        self.0.iter().try_for_each(|message| write!(f, "\n    {message}"))
    }
}
