//! Sessions that outlive their connections.

mod config;
mod registry;

pub use self::config::ResumeConfig;
pub(crate) use self::registry::{Attached, Connected, ResumeRegistry};
