//! Sessions that outlive their connections.
//!
//! ```text
//! connected   the result of a connect, until its transport begins to use it
//! registry    session ids -> sessions; finds one for a connection, or makes one
//! connection  a session as one connection uses it
//! census      how many sessions there are
//! session     one resumable session: its callbacks, one after the other
//! state       its connection and its deadlines, as plain code
//! expiry      deadlines in order          sweeper  the task that visits what is due
//! ```

pub(crate) mod census;
mod claim;
mod config;
mod connected;
mod connection;
pub(crate) mod expiry;
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
