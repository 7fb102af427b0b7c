//! Sessions that outlive their connections.
//!
//! ```text
//! registry    session ids -> sessions; finds one for a connect, or makes one
//! session     one resumable session: its callbacks, one after the other
//! state       its connection and its deadlines, as plain code
//! connection  a session as one connection uses it
//! expiry      deadlines in order          sweeper  the task that visits what is due
//! ```

mod config;
mod connection;
pub(crate) mod expiry;
mod registry;
mod session;
mod state;
pub(crate) mod sweeper;

pub use self::config::ResumeConfig;
pub(crate) use self::connection::{Attached, Connected, Epoch};
pub(crate) use self::registry::ResumeRegistry;
pub(crate) use self::session::ResumableSession;

#[cfg(test)]
mod tests;
