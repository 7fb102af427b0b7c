//! The history of the chat: every message, reaction and deletion, in one SQLite file.
//!
//! A room numbers its changes 1, 2, 3, … without gaps. The `id` of a message is the number of the
//! change that created it; its `change` is the number of the last change to it, such as a reaction
//! or its deletion. One number therefore describes what a client has seen of a room, and one query
//! returns everything after it:
//!
//! ```text
//! 1 "hello" by Ada   2 "hi" by Bob   3 Bob reacts to 1   4 Ada deletes 1
//!
//! messages   id 1  change 4  body NULL        a client that has seen up to 2 misses  id 1, change 4
//!            id 2  change 2  body "hi"        a client that has seen up to 4 misses  nothing
//! ```
//!
//! A client that receives change 7 after 5 knows that it has missed one, and asks for it.

mod types;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};

pub(crate) use self::types::Error;
pub use self::types::{CatchUp, Message, Outcome, Page, Person, Reaction};

/// The history, shared by all channels. SQLite blocks, so it is accessed on tokio's blocking
/// threads.
#[derive(Clone)]
pub struct Store(Arc<Mutex<History>>); // the lock serializes calls to the only connection

impl Store {
    pub fn new(history: History) -> Self {
        Self(Arc::new(Mutex::new(history)))
    }

    /// Runs `operation` with the history on a blocking thread.
    ///
    /// # Cancel safety
    ///
    /// Once started, the operation runs to completion even if the returned future is dropped.
    pub async fn run<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut History) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            // A panic rolls back its transaction, so the history behind a poisoned lock is
            // consistent.
            operation(&mut store.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await
        .map_err(|_| Error::Rejected("the history is unavailable"))?
    }
}

/// A chat history in a SQLite database.
pub struct History {
    db: Connection,
}

impl History {
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::prepare(Connection::open(path)?)
    }

    #[cfg(test)]
    pub fn in_memory() -> Self {
        Self::prepare(Connection::open_in_memory().unwrap()).unwrap()
    }

    fn prepare(db: Connection) -> Result<Self, Error> {
        // WAL with SQLite's default `synchronous = FULL`: acknowledged writes are on disk.
        // `secure_delete`: deleted messages are erased from the file.
        db.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA secure_delete = ON;
             CREATE TABLE IF NOT EXISTS authors (
                 id     INTEGER PRIMARY KEY,
                 secret TEXT NOT NULL UNIQUE
             ) STRICT;
             CREATE TABLE IF NOT EXISTS messages (
                 room   TEXT NOT NULL,
                 id     INTEGER NOT NULL,
                 change INTEGER NOT NULL,
                 author INTEGER NOT NULL REFERENCES authors,
                 name   TEXT NOT NULL,
                 body   TEXT,
                 at     INTEGER NOT NULL,
                 key    TEXT,
                 PRIMARY KEY (room, id),
                 UNIQUE (room, change),
                 UNIQUE (room, author, key)
             ) STRICT;
             CREATE TABLE IF NOT EXISTS reactions (
                 room    TEXT NOT NULL,
                 message INTEGER NOT NULL,
                 emoji   TEXT NOT NULL,
                 author  INTEGER NOT NULL REFERENCES authors,
                 name    TEXT NOT NULL,
                 UNIQUE (room, message, emoji, author)
             ) STRICT;",
        )?;
        Ok(Self { db })
    }

    /// Returns the author number of a secret, assigning the next one to a new secret.
    pub fn author(&mut self, secret: &str) -> Result<i64, Error> {
        let tx = self.write()?;
        tx.execute("INSERT OR IGNORE INTO authors (secret) VALUES (?1)", [secret])?;
        let id =
            tx.query_row("SELECT id FROM authors WHERE secret = ?1", [secret], |row| row.get(0))?;
        tx.commit()?;
        Ok(id)
    }

    /// Returns everything in `room` after the change `last_seen`. Clients start with the newest
    /// page if they have seen nothing, were away for too long, or have seen changes that this file
    /// does not contain because it was replaced.
    pub fn catch_up(&mut self, room: &str, last_seen: Option<i64>) -> Result<CatchUp, Error> {
        let tx = self.db.transaction()?; // one snapshot for all queries below
        let change = last_change(&tx, room)?;
        if let Some(last_seen) = last_seen.filter(|seen| (0..=change).contains(seen)) {
            let missed = select(
                &tx,
                "WHERE room = ?1 AND change > ?2 ORDER BY id LIMIT ?3",
                params![room, last_seen, MAX_MISSED as i64 + 1],
            )?;
            if missed.len() <= MAX_MISSED && weight(&missed) <= MAX_MISSED_BYTES {
                return Ok(CatchUp { reset: false, messages: missed, change, older: false });
            }
        }
        let Page { messages, older } = page(&tx, room, i64::MAX)?;
        Ok(CatchUp { reset: true, messages, change, older })
    }

    /// Returns the number of the newest change in a room.
    pub fn last_change(&mut self, room: &str) -> Result<i64, Error> {
        last_change(&self.db.transaction()?, room)
    }

    /// Returns the page of messages before the message `before`.
    pub fn older(&mut self, room: &str, before: i64) -> Result<Page, Error> {
        page(&self.db.transaction()?, room, before)
    }

    /// Adds a message. If the author has used `key` in this room before, returns the earlier
    /// message instead: a page that lost its connection while sending cannot know whether the
    /// message arrived, and sends it again.
    pub fn add(
        &mut self,
        room: &str,
        author: i64,
        name: &str,
        body: &str,
        key: Option<&str>,
    ) -> Result<Outcome, Error> {
        let tx = self.write()?;
        let same_key = "WHERE room = ?1 AND author = ?2 AND key = ?3";
        if let Some(message) = select(&tx, same_key, params![room, author, key])?.pop() {
            return Ok(Outcome { message, changed: false });
        }
        let id = last_change(&tx, room)? + 1;
        tx.execute(
            "INSERT INTO messages (room, id, change, author, name, body, at, key)
             VALUES (?1, ?2, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![room, id, author, name, body, now(), key],
        )?;
        let message = find(&tx, room, id)?;
        tx.commit()?;
        Ok(Outcome { message, changed: true })
    }

    /// Adds (`on`) or removes an emoji under a message.
    pub fn react(
        &mut self,
        room: &str,
        id: i64,
        who: &Person,
        emoji: &str,
        on: bool,
    ) -> Result<Outcome, Error> {
        let tx = self.write()?;
        let message = find(&tx, room, id)?;
        if message.body.is_none() {
            return Err(GONE);
        }
        let rows = if on {
            if message.reactions.iter().map(|r| r.who.len()).sum::<usize>() >= MAX_REACTIONS {
                return Err(Error::Rejected("this message has too many reactions"));
            }
            tx.execute(
                "INSERT OR IGNORE INTO reactions (room, message, emoji, author, name)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![room, id, emoji, who.author, who.name],
            )?
        } else {
            tx.execute(
                "DELETE FROM reactions
                 WHERE room = ?1 AND message = ?2 AND emoji = ?3 AND author = ?4",
                params![room, id, emoji, who.author],
            )?
        };
        if rows == 0 {
            return Ok(Outcome { message, changed: false });
        }
        commit_change(tx, room, id)
    }

    /// Deletes a message of `author` with all its reactions. The row stays, without a body, so that
    /// clients that are away learn of the deletion.
    pub fn delete(&mut self, room: &str, id: i64, author: i64) -> Result<Outcome, Error> {
        let tx = self.write()?;
        let message = find(&tx, room, id)?;
        if message.author != author {
            return Err(Error::Rejected("only the author can delete a message"));
        }
        if message.body.is_none() {
            return Ok(Outcome { message, changed: false });
        }
        tx.execute(
            "UPDATE messages SET body = NULL WHERE room = ?1 AND id = ?2",
            params![room, id],
        )?;
        tx.execute("DELETE FROM reactions WHERE room = ?1 AND message = ?2", params![room, id])?;
        commit_change(tx, room, id)
    }

    /// Starts an immediate transaction, so that what it reads cannot change before it writes, even
    /// if two servers share the file.
    fn write(&mut self) -> Result<Transaction<'_>, Error> {
        Ok(self.db.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }
}

fn last_change(tx: &Transaction<'_>, room: &str) -> Result<i64, Error> {
    let newest = "SELECT coalesce(max(change), 0) FROM messages WHERE room = ?1";
    Ok(tx.query_row(newest, [room], |row| row.get(0))?)
}

/// Assigns the room's next change number to the message, and commits.
fn commit_change(tx: Transaction<'_>, room: &str, id: i64) -> Result<Outcome, Error> {
    tx.execute(
        "UPDATE messages SET change = ?3 WHERE room = ?1 AND id = ?2",
        params![room, id, last_change(&tx, room)? + 1],
    )?;
    let message = find(&tx, room, id)?;
    tx.commit()?;
    Ok(Outcome { message, changed: true })
}

fn find(tx: &Transaction<'_>, room: &str, id: i64) -> Result<Message, Error> {
    select(tx, "WHERE room = ?1 AND id = ?2", params![room, id])?.pop().ok_or(GONE)
}

/// Returns the newest messages before `before`, and whether there are older ones.
fn page(tx: &Transaction<'_>, room: &str, before: i64) -> Result<Page, Error> {
    let mut messages = select(
        tx,
        "WHERE room = ?1 AND id < ?2 AND body IS NOT NULL ORDER BY id DESC LIMIT ?3",
        params![room, before, PAGE as i64 + 1],
    )?;
    let older = messages.len() > PAGE;
    messages.truncate(PAGE);
    messages.reverse();
    Ok(Page { messages, older })
}

fn select(
    tx: &Transaction<'_>,
    which: &str,
    with: &[&dyn rusqlite::ToSql],
) -> Result<Vec<Message>, Error> {
    let messages =
        format!("SELECT id, change, author, name, body, at, key, room FROM messages {which}");
    let mut messages = tx.prepare_cached(&messages)?;
    let mut rows = messages.query(with)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(message(tx, row)?);
    }
    Ok(found)
}

/// Reads a message. A separate query for its reactions is fine: SQLite is a function call away, not
/// a network.
fn message(tx: &Transaction<'_>, row: &Row<'_>) -> Result<Message, Error> {
    let (id, room): (i64, String) = (row.get(0)?, row.get(7)?);
    let mut reactions: Vec<Reaction> = Vec::new();
    let mut who = tx.prepare_cached(
        "SELECT emoji, author, name FROM reactions WHERE room = ?1 AND message = ?2 ORDER BY rowid",
    )?;
    let mut who = who.query(params![room, id])?;
    while let Some(row) = who.next()? {
        let emoji: String = row.get(0)?;
        let person = Person { author: row.get(1)?, name: row.get(2)? };
        match reactions.iter_mut().find(|reaction| reaction.emoji == emoji) {
            Some(reaction) => reaction.who.push(person),
            None => reactions.push(Reaction { emoji, who: vec![person] }),
        }
    }
    Ok(Message {
        id,
        change: row.get(1)?,
        author: row.get(2)?,
        name: row.get(3)?,
        body: row.get(4)?,
        at: row.get(5)?,
        key: row.get(6)?,
        reactions,
    })
}

fn weight(messages: &[Message]) -> usize {
    serde_json::to_vec(messages).map_or(usize::MAX, |json| json.len())
}

fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

const GONE: Error = Error::Rejected("no such message");

// A reply must fit into the outbox of a connection (1 MiB). With bodies of at most 2000 characters
// and names of at most 32, a page with all possible reactions takes about 800 kB.
const PAGE: usize = 50;
const MAX_REACTIONS: usize = 50;
const MAX_MISSED: usize = 200;
const MAX_MISSED_BYTES: usize = 512 * 1024;

#[cfg(test)]
mod tests;
