//! [`SqliteConfig`].

use std::path::PathBuf;

use crate::error::OpenError;

/// Where the file is, and how it is written.
///
/// ```
/// use tower_channels_sqlite::{SqliteConfig, Synchronous};
///
/// let config = SqliteConfig::new("chat.history").synchronous(Synchronous::Full);
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
#[must_use = "pass it to `Sqlite::with`"]
pub struct SqliteConfig {
    pub(crate) path: PathBuf,
    pub(crate) synchronous: Synchronous,
    pub(crate) max_queue: usize,
    pub(crate) max_size: u64,
}

/// When a message counts as kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Synchronous {
    /// When it is written. It outlives the process, however that ends. If the machine loses its power, the last seconds
    /// may be lost.
    #[default]
    Normal,
    /// When it is on the disk: it outlives the machine. Costs a flush of the disk for each transaction.
    Full,
}

/// The smallest file that is of use, in bytes.
const MIN_SIZE: u64 = 1 << 20;

impl SqliteConfig {
    /// Creates the configuration for a file, which is created if it is not there. Its folder must exist. SQLite keeps
    /// more files beside it, with its name and an ending.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            synchronous: Synchronous::default(),
            max_queue: 16 << 20,
            max_size: 8 << 30,
        }
    }

    /// Sets when a message counts as kept. Default [`Synchronous::Normal`].
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// Sets how many bytes of messages may wait to be written; more are refused. Default 16 MiB.
    pub fn max_queue(mut self, bytes: usize) -> Self {
        self.max_queue = bytes;
        self
    }

    /// Sets the size of the file, in bytes, at which it counts as full: topics that are full themselves go on, as a new
    /// message takes the place of old ones, and others have to wait until some are forgotten. At least 1 MiB, default
    /// 8 GiB.
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.max_size = bytes;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), OpenError> {
        let reason = if self.path.as_os_str().is_empty() || self.path.as_os_str() == ":memory:" {
            "a file must have a name; a history in memory needs no store"
        } else if self.max_queue == 0 {
            "`max_queue` must be greater than zero"
        } else if self.max_size < MIN_SIZE {
            "`max_size` must be at least 1 MiB"
        } else {
            return Ok(());
        };
        Err(OpenError::Config(reason.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_configuration_is_refused_with_the_option_to_change() {
        let config = || SqliteConfig::new("file");
        let reason = |config: SqliteConfig| config.validate().unwrap_err().to_string();
        assert!(config().validate().is_ok());
        assert!(reason(SqliteConfig::new("")).contains("name"));
        assert!(reason(SqliteConfig::new(":memory:")).contains("memory"));
        assert!(reason(config().max_queue(0)).contains("`max_queue`"));
        assert!(reason(config().max_size(1000)).contains("`max_size`"));
    }
}
