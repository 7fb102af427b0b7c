//! A history for [tower-channels](tower_channels) in one SQLite file, for an application that runs as one process.
//!
//! What is broadcast on topics with a history is written to the file before it is delivered, and so is which resumable
//! sessions there are. The process may be killed and started again: clients that return receive what they have missed.
//!
//! ```no_run
//! use tower_channels_sqlite::{OpenError, Sqlite};
//!
//! # pub
//! fn history() -> Result<Sqlite, OpenError> {
//!     Sqlite::open("chat.history")
//! }
//! ```
//!
//! # The file
//!
//! SQLite is part of the crate. The file is for it alone, and one process at a time may open it: on a local disk, as SQLite
//! shares memory between its connections. Beside it are `-wal`, mostly below 64 MiB, `-shm` and `-lock`, with its name. Other
//! programs may read it at any time, `sqlite3 FILE '.backup COPY'` among them. The store takes up to 20 MiB of memory beside
//! what waits to be written.
//!
//! A message takes its bytes, those of its event and about 40 more; a topic about 60 and its name; a session some 100
//! bytes, and about 20 and the name of each of its topics with a history. Messages are forgotten
//! as the history of their topic says, a topic as a whole a day after its last message was too old. The room is used again;
//! the file does not become smaller, and what was forgotten can be found in it until then.
//!
//! A file that is replaced by an older copy repeats positions. Begin a new epoch in the copy, so that clients learn that
//! something is missing: `sqlite3 COPY 'UPDATE store SET epoch = random()'`.
//!
//! # Failures
//!
//! A file of up to 256 MiB is checked for damage when it is opened; a larger one shows it when the damaged part is read.
//!
//! A message that was kept outlives the process. It outlives the machine with [`Synchronous::Full`]; otherwise the last
//! seconds before it lost its power may be missing, and on Linux clients then learn that. Where the system does not tell
//! when it was started, they do not, but no position is given twice.
//!
//! While the disk is full, or the file is larger than [`SqliteConfig::max_size`], messages are refused, all of a
//! transaction or none, and nothing is delivered that was not kept. It goes on when there is room.
//!
//! When the store is dropped it writes what it has taken, and closes the file. That takes milliseconds, and 5 s at most.

mod config;
mod error;
mod file;
mod queue;
mod readers;
mod records;
mod tables;
mod topic;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tower_channels::adapter::{
    Append, BoxFuture, HistoryInbox, HistoryStore, Page, PublishError, Since, Store, StoreError,
};
use tower_channels_transports::limited;

pub use self::config::{SqliteConfig, Synchronous};
pub use self::error::OpenError;
use self::file::Lock;
use self::queue::Queue;
use self::readers::Readers;
use self::tables::Tables;

/// How long the last messages may take to be written when the store is dropped.
const PATIENCE: Duration = Duration::from_secs(5);

/// A [`HistoryStore`] in an SQLite file, with records of sessions.
pub struct Sqlite {
    config: SqliteConfig,
    queue: Arc<Queue>,
    readers: Readers,
    /// Taken when it is dropped.
    writer: Option<JoinHandle<()>>,
}

impl Sqlite {
    /// Opens a file, or creates it. See [`with`](Self::with).
    ///
    /// # Errors
    /// If it cannot be used.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Self::with(SqliteConfig::new(path))
    }

    /// Opens a file, or creates it, and starts the thread that writes. Blocks for as long as that takes: milliseconds; a
    /// second if another process has it.
    ///
    /// # Errors
    /// If it cannot be used. Later, a message that cannot be written is an error of its own.
    pub fn with(config: SqliteConfig) -> Result<Self, OpenError> {
        config.validate()?;
        let lock = Lock::acquire(&config.path)?;
        let tables = Tables::new(file::open(&config)?);
        let queue = Arc::new(Queue::new(config.max_queue));
        let readers = Readers::new(config.path.clone());
        let writer = writer::spawn(queue.clone(), tables, lock).map_err(|error| {
            OpenError::Inaccessible { path: config.path.clone(), reason: error.to_string() }
        })?;
        Ok(Self { config, queue, readers, writer: Some(writer) })
    }
}

impl HistoryStore for Sqlite {
    fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        self.queue.start(inbox);
    }

    fn append(&self, message: Append) -> Result<(), PublishError> {
        self.queue.push(message)
    }

    fn read<'a>(
        &'a self,
        topic: &'a str,
        since: Since,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(self.readers.read(topic, since, limit))
    }

    fn records(&self) -> Option<&dyn Store> {
        Some(self)
    }
}

/// Writes what waits, and closes the file.
impl Drop for Sqlite {
    fn drop(&mut self) {
        self.queue.close();
        let Some(writer) = self.writer.take() else { return };
        // An inbox may have had the last reference.
        if writer.thread().id() == thread::current().id() {
            return;
        }
        if self.queue.wait(PATIENCE) {
            let _ = writer.join();
        } else {
            limited!(WARN, path = ?self.config.path, "SQLite has not written the last messages in time");
        }
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("config", &self.config).finish_non_exhaustive()
    }
}
