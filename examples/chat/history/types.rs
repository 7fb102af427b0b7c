//! What the history returns.

use std::fmt;

use serde::Serialize;

/// A message as sent to the page. It has no body once it is deleted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Message {
    pub id: i64,
    pub change: i64,
    pub author: i64,
    pub name: String,
    pub body: Option<String>,
    /// Milliseconds since 1970.
    pub at: i64,
    /// Idempotency key chosen by the author's page, which also uses it to recognize its own
    /// message.
    pub key: Option<String>,
    pub reactions: Vec<Reaction>,
}

/// An emoji under a message, and the people who chose it, in order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reaction {
    pub emoji: String,
    pub who: Vec<Person>,
}

/// An author, with the name they had at the time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Person {
    pub author: i64,
    pub name: String,
}

/// What a client needs to catch up: everything it has missed or, if that is too much, the newest
/// page.
#[derive(Debug, Serialize)]
pub struct CatchUp {
    /// Whether the client must discard what it shows and start from these messages.
    pub reset: bool,
    pub messages: Vec<Message>,
    /// The last change included.
    pub change: i64,
    /// Whether there are older messages. Only meaningful after a reset.
    pub older: bool,
}

/// One page of history, oldest first.
#[derive(Debug, Serialize)]
pub struct Page {
    pub messages: Vec<Message>,
    pub older: bool,
}

/// The result of a change to a message.
#[derive(Debug)]
pub struct Outcome {
    pub message: Message,
    /// False if the message already was in the requested state.
    pub changed: bool,
}

/// Why an operation failed. `room.rs` turns it into a reply, so it is no `std::error::Error`.
#[derive(Debug)]
pub(crate) enum Error {
    /// The request was invalid, for the given reason.
    Rejected(&'static str),
    /// The database failed.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(why) => f.write_str(why),
            Self::Database(error) => write!(f, "history database error: {error}"),
        }
    }
}
