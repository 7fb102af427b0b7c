//! The error of an invalid configuration.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// Error returned for an invalid configuration. Its text names the setting and what to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Cow<'static, str>);

impl ConfigError {
    /// Creates an error from a text that names the setting and what to change.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConfigError {}
