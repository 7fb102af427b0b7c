//! The thread that writes.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tower_channels::adapter::{Append, HistoryInbox, Kept, StoreError};
use tower_channels_transports::limited;

use crate::file::Lock;
use crate::queue::{Queue, Work, bytes, bytes_of_records};
use crate::records::Replacement;
use crate::tables::{Tables, now};

/// How long after all topics were looked at for what is too old it is done again, and how long it pauses between two steps.
const ROUND: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(100);

/// Starts it. It owns the file.
pub(crate) fn spawn(queue: Arc<Queue>, tables: Tables, lock: Lock) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("tower-channels-sqlite".into()).spawn(move || {
        // Dropped last, also in a panic: whoever waits for the end finds the file closed.
        let end = End(queue);
        let lock = lock;
        run(&end.0, tables);
        drop(lock);
    })
}

struct End(Arc<Queue>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn run(queue: &Queue, mut tables: Tables) {
    let mut forget_at = Instant::now();
    let mut topic = None;
    loop {
        match queue.take(forget_at) {
            Work::Write(batch, inbox) => {
                let bytes = bytes(&batch);
                write(&mut tables, batch, inbox.as_deref());
                queue.written(bytes);
            }
            Work::Replace(records) => {
                let bytes = bytes_of_records(&records);
                replace(&mut tables, records);
                queue.written(bytes);
            }
            Work::Forget => {}
            Work::End => break,
        }
        let begun = Instant::now();
        if begun >= forget_at {
            topic = tables.forget(topic.unwrap_or(0), now()).unwrap_or_else(|error| {
                limited!(WARN, ?error, "SQLite did not forget what is too old");
                None
            });
            let has_more = tables.forget_records(now()).unwrap_or_else(|error| {
                limited!(WARN, ?error, "SQLite did not forget records that are too old");
                false
            });
            forget_at = begun + if topic.is_some() || has_more { STEP } else { ROUND };
        }
    }
    if let Err(error) = tables.close() {
        limited!(WARN, ?error, "SQLite did not flush the file");
    }
}

/// Replaces records, and tells those that wait.
fn replace(tables: &mut Tables, records: Vec<Replacement>) {
    let replaced = tables.replace(&records, now()).map_err(|error| {
        limited!(WARN, ?error, records = ?records.len(), "SQLite did not write records");
        StoreError::new(error.to_string())
    });
    match replaced {
        Ok(replaced) => {
            for (record, replaced) in records.into_iter().zip(replaced) {
                let _ = record.done.send(Ok(replaced));
            }
        }
        Err(error) => {
            for record in records {
                let _ = record.done.send(Err(error.clone()));
            }
        }
    }
}

/// Keeps messages, tells those that wait, and hands them over, in their order. Tells of those that could not be kept.
fn write(tables: &mut Tables, batch: Vec<Append>, inbox: Option<&dyn HistoryInbox>) {
    let positions = match tables.append(&batch, now()) {
        Ok(positions) => positions,
        Err(error) => {
            limited!(WARN, ?error, messages = ?batch.len(), "SQLite did not keep messages");
            let error = StoreError::new(error.to_string());
            for Append { topic, done, .. } in batch {
                match (done, inbox) {
                    (Some(done), _) => drop(done.send(Err(error.clone()))),
                    (None, Some(inbox)) => inbox.lost(&topic, &error),
                    (None, None) => {}
                }
            }
            return;
        }
    };
    for (message, (position, previous)) in batch.into_iter().zip(positions) {
        let Append { topic, content, done, .. } = message;
        if let Some(done) = done {
            let _ = done.send(Ok(position));
        }
        if let Some(inbox) = inbox {
            inbox.kept(&topic, Kept { position, previous, content });
        }
    }
}
