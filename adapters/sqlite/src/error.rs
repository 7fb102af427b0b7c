//! [`OpenError`]: why a file cannot be used.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Error returned by [`Sqlite::open`](crate::Sqlite::open).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration is not valid.
    Config(String),
    /// Another process uses the file, or another [`Sqlite`](crate::Sqlite) of this one. One alone may, as it numbers the
    /// messages.
    InUse(PathBuf),
    /// The file cannot be created, read or written: its folder does not exist or is read-only, the user may not, the disk
    /// is full.
    Inaccessible {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// The file is damaged, or not one of SQLite.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// The file is a database of another application.
    Foreign(PathBuf),
    /// A newer version of this crate has written the file.
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its tables.
        version: i32,
    },
}

impl OpenError {
    pub(crate) fn new(path: &Path, error: &rusqlite::Error) -> Self {
        let (path, reason) = (path.to_owned(), error.to_string());
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::InUse(path),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown)
            | None => Self::Corrupt { path, reason },
            Some(_) => Self::Inaccessible { path, reason },
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(reason) => write!(f, "invalid configuration: {reason}"),
            Self::InUse(path) => {
                write!(f, "{} is in use: one process at a time may open it", path.display())
            }
            Self::Inaccessible { path, reason } => {
                write!(f, "{} cannot be opened: {reason}", path.display())
            }
            Self::Corrupt { path, reason } => {
                write!(f, "{} is damaged, or no SQLite file: {reason}", path.display())
            }
            Self::Foreign(path) => {
                write!(f, "{} is a database of another application", path.display())
            }
            Self::Newer { path, version } => write!(
                f,
                "{} was written by a newer version of tower-channels-sqlite (tables of version {version})",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {}
