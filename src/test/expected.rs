//! [`Expected`]: which message an expectation is about.

use std::fmt;

use super::message::Message;

/// Which message a method such as [`Client::expect`](super::Client::expect) is about: the name of an
/// event, or a predicate.
///
/// A predicate sees every message that is not a reply.
pub trait Expected {
    /// Returns whether this is the message.
    fn matches(&self, message: &Message) -> bool;

    /// Describes the message, for the panic of an expectation that failed.
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Expected for &str {
    fn matches(&self, message: &Message) -> bool {
        message.event == *self
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the event {self:?}")
    }
}

impl<F: Fn(&Message) -> bool> Expected for F {
    fn matches(&self, message: &Message) -> bool {
        self(message)
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a push that the predicate accepts")
    }
}

/// Displays the description of an expected message.
pub(super) struct Described<'a, E>(pub(super) &'a E);

impl<E: Expected> fmt::Display for Described<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}
