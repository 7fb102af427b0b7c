//! [`Store`] and [`Topic`]: the rows beside the messages.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, Transaction, params};
use tower_channels::adapter::Keep;
use tower_channels::history::Position;

/// What all topics have in common.
pub(crate) struct Store {
    pub(crate) epoch: i64,
    /// The last number.
    pub(crate) last: i64,
    /// The newest number of the topics that were forgotten as a whole.
    pub(crate) forgotten: i64,
}

/// A topic, without its messages.
pub(crate) struct Topic {
    pub(crate) id: i64,
    /// The number of its last message.
    pub(crate) last: i64,
    pub(crate) messages: i64,
    pub(crate) bytes: i64,
    /// When the last message came, in milliseconds since 1970, and for how many it is kept.
    pub(crate) at: i64,
    pub(crate) within: i64,
}

/// The oldest message of a topic that is not too old.
pub(crate) struct Oldest {
    pub(crate) number: i64,
    pub(crate) previous: i64,
}

pub(crate) fn clamped(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

pub(crate) fn milliseconds(duration: Duration) -> i64 {
    clamped(duration.as_millis())
}

impl Store {
    pub(crate) fn load(transaction: &Transaction<'_>) -> rusqlite::Result<Self> {
        transaction
            .prepare_cached("SELECT epoch, last, forgotten FROM store")?
            .query_row([], |row| {
                Ok(Self { epoch: row.get(0)?, last: row.get(1)?, forgotten: row.get(2)? })
            })
    }

    pub(crate) fn save(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut update =
            transaction.prepare_cached("UPDATE store SET last = ?1, forgotten = ?2")?;
        update.execute([self.last, self.forgotten]).map(drop)
    }

    /// Numbers and epochs have no sign outside; SQLite has the same 64 bits with one.
    pub(crate) fn position(&self, number: i64) -> Position {
        Position { epoch: self.epoch.cast_unsigned(), number: number.cast_unsigned() }
    }

    /// Whether a position may be one of this store.
    pub(crate) fn knows(&self, position: Position) -> bool {
        position.epoch == self.epoch.cast_unsigned() && clamped(position.number) <= self.last
    }
}

impl Topic {
    pub(crate) fn load(
        transaction: &Transaction<'_>,
        name: &str,
    ) -> rusqlite::Result<Option<Self>> {
        let mut select = transaction.prepare_cached(
            "SELECT id, last, messages, bytes, at, within FROM topics WHERE name = ?1",
        )?;
        select.query_row([name], Self::from_row).optional()
    }

    /// A new topic begins with the newest number that may have been its last.
    pub(crate) fn load_or_create(
        transaction: &Transaction<'_>,
        name: &str,
        store: &Store,
    ) -> rusqlite::Result<Self> {
        if let Some(topic) = Self::load(transaction, name)? {
            return Ok(topic);
        }
        let mut insert = transaction.prepare_cached(
            "INSERT INTO topics (name, last, messages, bytes, at, within) VALUES (?1, ?2, 0, 0, 0, 0)",
        )?;
        let id = insert.insert(params![name, store.forgotten])?;
        Ok(Self { id, last: store.forgotten, messages: 0, bytes: 0, at: 0, within: 0 })
    }

    pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            last: row.get(1)?,
            messages: row.get(2)?,
            bytes: row.get(3)?,
            at: row.get(4)?,
            within: row.get(5)?,
        })
    }

    pub(crate) fn save(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut update = transaction.prepare_cached(
            "UPDATE topics SET last = ?2, messages = ?3, bytes = ?4, at = ?5, within = ?6 WHERE id = ?1",
        )?;
        let Self { id, last, messages, bytes, at, within } = *self;
        update.execute([id, last, messages, bytes, at, within]).map(drop)
    }

    /// Forgets old messages, until one more of this size can be kept.
    pub(crate) fn make_room(
        &mut self,
        transaction: &Transaction<'_>,
        keep: Keep,
        size: i64,
        now: i64,
    ) -> rusqlite::Result<()> {
        let others = clamped(keep.messages).max(1) - 1;
        let bytes = clamped(keep.bytes).saturating_sub(size);
        // What was kept for a shorter time does not come back.
        let since = now.saturating_sub(milliseconds(keep.within).min(self.within));
        self.forget_while(transaction, |topic, at| {
            topic.messages > others || topic.bytes > bytes || at < since
        })
    }

    /// Forgets the messages that are too old.
    pub(crate) fn forget_old(
        &mut self,
        transaction: &Transaction<'_>,
        now: i64,
    ) -> rusqlite::Result<()> {
        let since = now.saturating_sub(self.within);
        self.forget_while(transaction, |_, at| at < since)
    }

    /// Forgets messages from the oldest on, as long as `is_due` says so of the topic and the time of the next.
    fn forget_while(
        &mut self,
        transaction: &Transaction<'_>,
        is_due: impl Fn(&Self, i64) -> bool,
    ) -> rusqlite::Result<()> {
        let mut newest = None;
        {
            let mut select = transaction.prepare_cached(
                "SELECT number, at, length(content) FROM messages WHERE topic = ?1 ORDER BY number",
            )?;
            let mut rows = select.query([self.id])?;
            while let Some(row) = rows.next()? {
                if !is_due(self, row.get(1)?) {
                    break;
                }
                newest = Some(row.get::<_, i64>(0)?);
                self.messages -= 1;
                self.bytes -= row.get::<_, i64>(2)?;
            }
        }
        let Some(newest) = newest else { return Ok(()) };
        let mut delete =
            transaction.prepare_cached("DELETE FROM messages WHERE topic = ?1 AND number <= ?2")?;
        delete.execute([self.id, newest]).map(drop)
    }

    pub(crate) fn oldest(
        &self,
        transaction: &Transaction<'_>,
        now: i64,
    ) -> rusqlite::Result<Option<Oldest>> {
        let mut select = transaction.prepare_cached(
            "SELECT number, previous FROM messages WHERE topic = ?1 AND at >= ?2 ORDER BY number LIMIT 1",
        )?;
        let since = now.saturating_sub(self.within);
        let oldest = |row: &Row<'_>| Ok(Oldest { number: row.get(0)?, previous: row.get(1)? });
        select.query_row([self.id, since], oldest).optional()
    }

    /// Removes the topic, which has no messages any more.
    pub(crate) fn remove(self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        transaction.prepare_cached("DELETE FROM topics WHERE id = ?1")?.execute([self.id]).map(drop)
    }
}
