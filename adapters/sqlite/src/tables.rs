//! [`Tables`]: what is kept, and the rules by which it is forgotten. Blocking, with the time as an argument.
//!
//! All topics draw their numbers from one counter. The `previous` of a topic's oldest message, or its last number if it has
//! none, is the newest number of what it has forgotten. A topic that is forgotten as a whole raises that of the store, with
//! which a topic begins that comes back, or is new.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, Row, TransactionBehavior, params};
use tower_channels::adapter::{Append, Kept, Page, Since};
use tower_channels::history::Position;

use crate::file;
use crate::topic::{Oldest, Store, Topic, clamped, milliseconds};

/// For how long a topic is remembered whose messages are forgotten, in milliseconds.
const QUIET: i64 = 24 * 60 * 60 * 1000;

/// How many topics are looked at in a step of [`Tables::forget`].
const STEP: usize = 256;

/// A connection to the file.
#[derive(Debug)]
pub(crate) struct Tables(pub(crate) Connection);

/// The time, in milliseconds since 1970.
pub(crate) fn now() -> i64 {
    milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

impl Tables {
    pub(crate) fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// Keeps messages, all or none. Returns the position of each, and the number of the message of its topic before it.
    pub(crate) fn append(
        &mut self,
        messages: &[Append],
        now: i64,
    ) -> rusqlite::Result<Vec<(Position, u64)>> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut store = Store::load(&transaction)?;
        let mut topics: HashMap<&str, Topic> = HashMap::new();
        let mut positions = Vec::with_capacity(messages.len());
        for message in messages {
            let name = message.topic.as_str();
            if !topics.contains_key(name) {
                topics.insert(name, Topic::load_or_create(&transaction, name, &store)?);
            }
            let topic = topics.get_mut(name).expect("it was inserted");
            let size = clamped(message.content.len());
            topic.make_room(&transaction, message.keep, size, now)?;
            let previous = topic.last;
            store.last += 1;
            transaction
                .prepare_cached("INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![topic.id, store.last, previous, now, &message.content[..]])?;
            topic.last = store.last;
            topic.messages += 1;
            topic.bytes += size;
            topic.at = now;
            topic.within = milliseconds(message.keep.within);
            positions.push((store.position(store.last), previous.cast_unsigned()));
        }
        for topic in topics.values() {
            topic.save(&transaction)?;
        }
        store.save(&transaction)?;
        transaction.commit()?;
        Ok(positions)
    }

    /// Reads a part of a topic.
    pub(crate) fn read(
        &mut self,
        topic: &str,
        since: Since,
        limit: usize,
        now: i64,
    ) -> rusqlite::Result<Page> {
        // One snapshot for all that follows.
        let transaction = self.0.transaction()?;
        let store = Store::load(&transaction)?;
        let Some(topic) = Topic::load(&transaction, topic)? else {
            let is_complete = is_complete(&store, since, store.forgotten, true);
            return Ok(Page {
                messages: Vec::new(),
                is_complete,
                last: store.position(store.last),
            });
        };
        let last = store.position(topic.last);
        let Some(Oldest { number: oldest, previous: forgotten }) =
            topic.oldest(&transaction, now)?
        else {
            let is_complete = is_complete(&store, since, topic.last, true);
            return Ok(Page { messages: Vec::new(), is_complete, last });
        };
        let (from, to) = match since {
            Since::After(after) if store.knows(after) => (clamped(after.number) + 1, i64::MAX),
            Since::Before(before) if store.knows(before) => (0, clamped(before.number)),
            Since::Newest => (0, i64::MAX),
            Since::After(_) | Since::Before(_) => (0, 0),
        };
        let is_forward = matches!(since, Since::After(_));
        let mut select = transaction.prepare_cached(if is_forward {
            "SELECT number, previous, content FROM messages
             WHERE topic = ?1 AND number >= ?2 AND number < ?3 ORDER BY number LIMIT ?4"
        } else {
            "SELECT number, previous, content FROM messages
             WHERE topic = ?1 AND number >= ?2 AND number < ?3 ORDER BY number DESC LIMIT ?4"
        })?;
        let kept = |row: &Row<'_>| {
            Ok(Kept {
                position: store.position(row.get(0)?),
                previous: row.get::<_, i64>(1)?.cast_unsigned(),
                content: row.get::<_, Vec<u8>>(2)?.into(),
            })
        };
        let range = params![topic.id, from.max(oldest), to, clamped(limit)];
        let mut messages: Vec<Kept> = select.query_map(range, kept)?.collect::<Result<_, _>>()?;
        if !is_forward {
            messages.reverse();
        }
        let is_complete = is_complete(&store, since, forgotten, messages.is_empty());
        Ok(Page { messages, is_complete, last })
    }

    /// Forgets what is too old in the next topics after `from`, and topics that have been quiet for long. Returns the last
    /// of them; `None` if there are no more.
    pub(crate) fn forget(&mut self, from: i64, now: i64) -> rusqlite::Result<Option<i64>> {
        let transaction = self.0.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let topics: Vec<Topic> = {
            let mut select = transaction.prepare_cached(
                "SELECT id, last, messages, bytes, at, within FROM topics
                 WHERE id > ?1 ORDER BY id LIMIT ?2",
            )?;
            let rows = select.query_map([from, clamped(STEP)], Topic::from_row)?;
            rows.collect::<Result<_, _>>()?
        };
        let next = topics.last().map(|topic| topic.id).filter(|_| topics.len() == STEP);
        let mut store = Store::load(&transaction)?;
        for mut topic in topics {
            let before = topic.messages;
            topic.forget_old(&transaction, now)?;
            let until = topic.at.saturating_add(topic.within).saturating_add(QUIET);
            if topic.messages == 0 && until < now {
                store.forgotten = store.forgotten.max(topic.last);
                topic.remove(&transaction)?;
                store.save(&transaction)?;
            } else if topic.messages != before {
                topic.save(&transaction)?;
            }
        }
        transaction.commit()?;
        Ok(next)
    }

    /// Flushes everything to the disk.
    pub(crate) fn close(&self) -> rusqlite::Result<()> {
        file::close(&self.0)
    }
}

/// Whether a page leaves out nothing, where everything up to a number was forgotten.
fn is_complete(store: &Store, since: Since, forgotten: i64, is_empty: bool) -> bool {
    match since {
        Since::After(after) => store.knows(after) && forgotten <= clamped(after.number),
        Since::Before(before) => store.knows(before) && (!is_empty || forgotten == 0),
        Since::Newest => true,
    }
}

#[cfg(test)]
mod tests;
