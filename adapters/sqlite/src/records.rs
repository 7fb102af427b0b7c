//! Records: small values that are replaced by whoever has seen the last one, and forgotten after a time.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tower_channels::adapter::{BoxFuture, Record, Replaced, Revision, Store, StoreError};

use crate::Sqlite;
use crate::tables::Tables;
use crate::topic::{clamped, milliseconds};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest value, as the contract has it.
const MAX_VALUE: usize = 128 << 10;

/// How many records that are too old are removed at a time.
const STEP: usize = 1024;

/// A record on its way to the thread that writes.
pub(crate) struct Replacement {
    pub(crate) key: String,
    pub(crate) seen: Option<Revision>,
    pub(crate) value: Option<Bytes>,
    pub(crate) ttl: Duration,
    pub(crate) done: oneshot::Sender<Result<Replaced, StoreError>>,
}

impl Store for Sqlite {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            let key = key.to_owned();
            let read = self.readers.with(move |tables, now| tables.record(&key, now));
            timeout(PATIENCE, read).await.unwrap_or_else(|_| Err(late()))
        })
    }

    fn replace<'a>(
        &'a self,
        key: &'a str,
        seen: Option<Revision>,
        value: Option<Bytes>,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Replaced, StoreError>> {
        if let Some(value) = value.as_ref().filter(|value| value.len() > MAX_VALUE) {
            let error = format!("a record of {} bytes: {MAX_VALUE} are allowed", value.len());
            return Box::pin(async { Err(StoreError::new(error)) });
        }
        let (done, replaced) = oneshot::channel();
        let replacement = Replacement { key: key.to_owned(), seen, value, ttl, done };
        let is_taken = self.queue.push_record(replacement);
        Box::pin(async move {
            if !is_taken {
                return Err(StoreError::new("too much waits to be written to SQLite"));
            }
            match timeout(PATIENCE, replaced).await {
                Ok(Ok(replaced)) => replaced,
                Ok(Err(_)) => Err(StoreError::new("SQLite is closed")),
                Err(_) => Err(late()),
            }
        })
    }
}

fn late() -> StoreError {
    StoreError::new("SQLite did not answer in time")
}

impl Tables {
    /// Replaces records, one after another, all or none. Returns what became of each.
    pub(crate) fn replace(
        &mut self,
        records: &[Replacement],
        now: i64,
    ) -> rusqlite::Result<Vec<Replaced>> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let replaced = records.iter().map(|record| replace(&transaction, record, now));
        let replaced = replaced.collect::<rusqlite::Result<_>>()?;
        transaction.commit()?;
        Ok(replaced)
    }

    /// Reads a record.
    pub(crate) fn record(&mut self, key: &str, now: i64) -> rusqlite::Result<Option<Record>> {
        find(&self.0.transaction()?, key, now)
    }

    /// Removes some of the records that are too old. Returns whether there may be more.
    pub(crate) fn forget_records(&mut self, now: i64) -> rusqlite::Result<bool> {
        let mut delete = self.0.prepare_cached(
            "DELETE FROM records WHERE key IN
             (SELECT key FROM records WHERE expires <= ?1 ORDER BY expires LIMIT ?2)",
        )?;
        Ok(delete.execute([now, clamped(STEP)])? == STEP)
    }
}

fn replace(
    transaction: &Transaction<'_>,
    replacement: &Replacement,
    now: i64,
) -> rusqlite::Result<Replaced> {
    let Replacement { key, seen, value, ttl, .. } = replacement;
    let there = find(transaction, key, now)?;
    if there.as_ref().map(|there| there.revision) != *seen {
        return Ok(Replaced::No(there));
    }
    let Some(value) = value else {
        transaction.prepare_cached("DELETE FROM records WHERE key = ?1")?.execute([key])?;
        return Ok(Replaced::Yes(Revision(0)));
    };
    // No two of 64 random bits are the same.
    let mut insert = transaction.prepare_cached(
        "INSERT OR REPLACE INTO records VALUES (?1, random(), ?2, ?3) RETURNING revision",
    )?;
    let expires = now.saturating_add(milliseconds(*ttl));
    let revision: i64 = insert.query_row(params![key, expires, &value[..]], |row| row.get(0))?;
    Ok(Replaced::Yes(Revision(revision.cast_unsigned())))
}

fn find(transaction: &Transaction<'_>, key: &str, now: i64) -> rusqlite::Result<Option<Record>> {
    let mut select = transaction
        .prepare_cached("SELECT revision, value FROM records WHERE key = ?1 AND expires > ?2")?;
    let record = select.query_row(params![key, now], |row| {
        let revision = Revision(row.get::<_, i64>(0)?.cast_unsigned());
        Ok(Record { value: row.get::<_, Vec<u8>>(1)?.into(), revision })
    });
    record.optional()
}
