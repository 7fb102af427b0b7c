//! [`Readers`]: connections that read while another writes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tower_channels::adapter::{Page, Since, StoreError};

use crate::file;
use crate::tables::{Tables, now};

/// How many read at once. Others wait for them, within their time.
const READERS: usize = 2;

/// How long a read may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// The connections. They are opened when they are needed.
#[derive(Debug)]
pub(crate) struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Tables>>>,
    room: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, idle: Arc::default(), room: Arc::new(Semaphore::new(READERS)) }
    }

    /// Reads a part of a topic.
    pub(crate) async fn read(
        &self,
        topic: &str,
        since: Since,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let topic = topic.to_owned();
        self.with(move |tables, now| tables.read(&topic, since, limit, now)).await
    }

    /// Reads, on a thread where that may block. The time is in milliseconds since 1970.
    pub(crate) async fn with<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Tables, i64) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let read = async {
            let room = self.room.clone().acquire_owned().await.expect("it is never closed");
            let (path, idle) = (self.path.clone(), self.idle.clone());
            let reading = spawn_blocking(move || {
                let _room = room;
                let there = idle.lock().pop();
                let mut tables = match there {
                    Some(tables) => tables,
                    None => Tables::new(file::open_reader(&path)?),
                };
                let found = read(&mut tables, now())?;
                idle.lock().push(tables);
                Ok::<_, rusqlite::Error>(found)
            });
            reading.await.map_err(|error| StoreError::new(error.to_string()))
        };
        match timeout(PATIENCE, read).await {
            Ok(found) => found?.map_err(|error| StoreError::new(error.to_string())),
            Err(_) => Err(StoreError::new("SQLite did not answer in time")),
        }
    }
}
