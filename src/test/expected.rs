//! [`Expected`]: which message an expectation is about.

use std::fmt;

use serde_json::Value;

use super::message::Message;

/// Which message a method such as [`Client::expect`](super::Client::expect) is about: the name of an
/// event, a predicate, [`joins`] or [`leaves`].
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

/// A `presence_diff` in which `key` joins: its first entry, another one, or one that was updated.
///
/// ```
/// # async fn example<A: Send + Sync>(client: &mut tower_channels::test::Client<A>) {
/// use tower_channels::test::joins;
///
/// let diff = client.expect_on("room:1", joins("ann")).await;
/// # }
/// ```
pub fn joins(key: &str) -> impl Expected {
    Diff { part: "joins", key: key.to_owned() }
}

/// A `presence_diff` in which an entry of `key` leaves, or is updated.
pub fn leaves(key: &str) -> impl Expected {
    Diff { part: "leaves", key: key.to_owned() }
}

/// A `presence_diff` with a key in one of its parts.
struct Diff {
    part: &'static str,
    key: String,
}

impl Expected for Diff {
    fn matches(&self, message: &Message) -> bool {
        let Self { part, key } = self;
        let diff = message.payload.parse::<Value>().unwrap_or_default();
        message.event == "presence_diff" && diff[part].get(key).is_some()
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a presence_diff in which {:?} {}", self.key, self.part)
    }
}

/// Displays the description of an expected message.
pub(super) struct Described<'a, E>(pub(super) &'a E);

impl<E: Expected> fmt::Display for Described<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}
