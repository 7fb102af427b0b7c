//! The file: opened, checked, and closed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::config::{SqliteConfig, Synchronous};
use crate::error::OpenError;

/// Tells the file from those of other applications.
const APPLICATION: i32 = 0x7463_6873;

/// The version of the tables.
const VERSION: i32 = 1;

/// `boot` is the boot of the system in which transactions were written without a flush; null if there are none, or all were
/// flushed.
const SCHEMA: &str = "
    CREATE TABLE store (
        epoch     INTEGER NOT NULL,
        last      INTEGER NOT NULL,
        forgotten INTEGER NOT NULL,
        boot      TEXT
    ) STRICT;
    CREATE TABLE topics (
        id       INTEGER PRIMARY KEY,
        name     TEXT NOT NULL UNIQUE,
        last     INTEGER NOT NULL,
        messages INTEGER NOT NULL,
        bytes    INTEGER NOT NULL,
        at       INTEGER NOT NULL,
        within   INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE messages (
        topic    INTEGER NOT NULL,
        number   INTEGER NOT NULL,
        previous INTEGER NOT NULL,
        at       INTEGER NOT NULL,
        content  BLOB NOT NULL,
        PRIMARY KEY (topic, number)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO store VALUES (random(), 0, 0, NULL);";

/// Added to files of an earlier release, which does not look at it.
const RECORDS: &str = "
    CREATE TABLE IF NOT EXISTS records (
        key      TEXT PRIMARY KEY,
        revision INTEGER NOT NULL,
        expires  INTEGER NOT NULL,
        value    BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS records_by_time ON records (expires);";

/// How long another process may hold the file: one that is ending, or that looks into it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The largest file that is checked for damage when it is opened, in bytes: a quarter of a second.
const MAX_CHECKED: i64 = 256 << 20;

/// The numbers that are left out where it is not known whether the last transactions are on the disk: more than a disk
/// can be behind.
const SKIPPED: i64 = 1 << 24;

/// Excludes other processes and other stores of this one. SQLite's own locks end with each transaction, so it is the lock
/// of an empty database beside the file; the system releases it with the process.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "it is held")] Connection);

impl Lock {
    pub(crate) fn acquire(path: &Path) -> Result<Self, OpenError> {
        let mut beside = path.as_os_str().to_owned();
        beside.push("-lock");
        let acquired = connect(&PathBuf::from(beside), OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(
            |connection| {
                connection.execute_batch("BEGIN EXCLUSIVE")?;
                Ok(Self(connection))
            },
        );
        acquired.map_err(|error| OpenError::new(path, &error))
    }
}

/// Opens the file to write, and creates or checks its tables.
pub(crate) fn open(config: &SqliteConfig) -> Result<Connection, OpenError> {
    let failed = |error| OpenError::new(&config.path, &error);
    let mut connection =
        connect(&config.path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    identify(&connection, &config.path)?;
    check(&connection, &config.path)?;
    prepare(&mut connection, config).map_err(failed)?;
    Ok(connection)
}

/// Opens the file to read, while it is open to write.
pub(crate) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// Flushes what was written, and remembers that it is on the disk.
pub(crate) fn close(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA synchronous = FULL; UPDATE store SET boot = NULL")
}

fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let mut flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, access.contains(OpenFlags::SQLITE_OPEN_READ_WRITE));
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Refuses what is not a store of this version. A file without tables becomes one.
fn identify(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::new(path, &error);
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let tables = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = connection.query_row(tables, [], |row| row.get(0)).map_err(failed)?;
    match (pragma("application_id").map_err(failed)?, pragma("user_version").map_err(failed)?) {
        (0, 0) if tables == 0 => Ok(()),
        (APPLICATION, ..=VERSION) => Ok(()),
        (APPLICATION, version) => Err(OpenError::Newer { path: path.to_owned(), version }),
        _ => Err(OpenError::Foreign(path.to_owned())),
    }
}

/// Looks for damage: in the whole file, unless that would take long.
fn check(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| OpenError::new(path, &error);
    let size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let size: i64 = connection.query_row(size, [], |row| row.get(0)).map_err(failed)?;
    if size > MAX_CHECKED {
        return Ok(());
    }
    let found: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if found == "ok" {
        return Ok(());
    }
    Err(OpenError::Corrupt { path: path.to_owned(), reason: found })
}

fn prepare(connection: &mut Connection, config: &SqliteConfig) -> rusqlite::Result<()> {
    // Where processes cannot share memory, as on some network drives, the journal stays what it was. A transaction that
    // writes to a thousand topics changes as many pages: they fit into the cache of 16 MiB, and go from the log to their
    // places once in eight transactions.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA cache_size = -16384;
         PRAGMA wal_autocheckpoint = 8192;
         PRAGMA journal_size_limit = 67108864;",
    )?;
    let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = i64::try_from(config.max_size).unwrap_or(i64::MAX) / page.max(1);
    connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)) == Ok(0) {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.execute_batch(RECORDS)?;
    let boot = boot();
    settle(&transaction, boot.as_deref())?;
    let unflushed = (config.synchronous == Synchronous::Normal).then(|| boot.unwrap_or_default());
    transaction.execute("UPDATE store SET boot = ?1", [unflushed])?;
    transaction.commit()?;
    match config.synchronous {
        Synchronous::Normal => connection.pragma_update(None, "synchronous", "NORMAL"),
        Synchronous::Full => Ok(()),
    }
}

/// Begins a new epoch if the system has lost transactions, perhaps: their numbers may not come again.
fn settle(transaction: &Transaction<'_>, boot: Option<&str>) -> rusqlite::Result<()> {
    let written: Option<String> =
        transaction.query_row("SELECT boot FROM store", [], |row| row.get(0))?;
    match (written, boot) {
        (None, _) => {}
        // At most the process was killed.
        (Some(written), Some(boot)) if written == boot => {}
        (Some(_), Some(_)) => {
            transaction.execute("UPDATE store SET epoch = random()", [])?;
        }
        (Some(_), None) => {
            transaction.execute("UPDATE store SET last = last + ?1", [SKIPPED])?;
        }
    }
    Ok(())
}

/// Identifies the time since the system was started, where it tells that.
fn boot() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned()).filter(|boot| !boot.is_empty())
}
