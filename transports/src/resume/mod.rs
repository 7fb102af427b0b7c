//! Sessions that outlive their connections, and move between nodes.
//!
//! ```text
//! connected   the result of a connect, until its transport begins to use it
//! claim       looks for its session on the other nodes first, and takes it
//! offer       the other side: gives a session away
//! registry    session ids -> sessions; finds one for a connection, or makes one
//! connection  a session as one connection uses it
//! moved       a session on its way, and its encoded form
//! census      how many sessions there are
//! session     one resumable session: its callbacks, one after the other
//! state       its connection and its deadlines, as plain code
//! expiry      deadlines in order          sweeper  the task that visits what is due
//! ```
//!
//! A move begins with the connection that needs the session: a finished upgrade, or the first use of a long-poll token.
//! The node that the client has come to *claims* the id, one connection at a time, and asks for its owner. That one
//! decides as it would for a connection of its own, and *fences* the session: a new epoch ends the old connection,
//! and no other one has begun. Until the session is *given away* its client may come back, which wins. Then its value is
//! packed, outside all locks, and its outbox exported: what was not acknowledged, what waits, the numbers and the
//! streams. The new node unpacks the value into the session that its own connect has made, imports the outbox, and
//! attaches the connection as to any session. Whatever fails on the way, the session begins anew there.

pub(crate) mod census;
mod claim;
mod config;
mod connected;
mod connection;
pub(crate) mod expiry;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
pub mod fuzzing;
mod moved;
mod offer;
mod registry;
mod session;
mod state;
pub(crate) mod sweeper;

pub use self::config::ResumeConfig;
pub(crate) use self::connected::{Accepted, Connected};
pub(crate) use self::connection::{Attached, Epoch};
pub(crate) use self::registry::ResumeRegistry;

#[cfg(test)]
mod tests;
