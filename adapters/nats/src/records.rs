//! [`Records`]: the records that the server keeps, in a key-value bucket of JetStream.

use std::convert::Infallible;
use std::fmt;
use std::time::{Duration, SystemTime};

use async_nats::Client;
use async_nats::jetstream::kv::{self, Operation, UpdateErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures_util::future::pending;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{sleep, timeout};
use tower_channels::adapter::{BoxFuture, Record, Replaced, Revision, Store, StoreError};
use tower_channels_transports::limited;

use crate::connection::Ended;

/// The records of an application, while a connection has their bucket.
pub(crate) struct Records {
    settings: Settings,
    bucket: Mutex<Option<kv::Store>>,
    /// A call has failed: the bucket may be gone.
    failed: Notify,
    room: Semaphore,
    /// Why there was no bucket the last time, so that it is logged once.
    reason: Mutex<Option<String>>,
}

/// How the bucket is created, if there is none.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) bucket: String,
    pub(crate) max_age: Duration,
    pub(crate) replicas: usize,
    pub(crate) is_in_files: bool,
}

/// How long a call may take, and each step towards a bucket.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many calls may wait for the server. Others wait for them, within their time.
const MAX_CALLS: usize = 256;

/// The largest value, in bytes.
const MAX_VALUE: usize = 128 << 10;

/// How often a bucket that could not be had is asked for again.
const RETRY: Duration = Duration::from_secs(5);

impl Records {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            bucket: Mutex::default(),
            failed: Notify::new(),
            room: Semaphore::new(MAX_CALLS),
            reason: Mutex::default(),
        }
    }

    /// Sees to it that there is a bucket, for as long as a connection lasts.
    pub(crate) async fn keep(&self, client: &Client, ended: &Ended) -> Infallible {
        let mut context = jetstream::new(client.clone());
        context.set_timeout(PATIENCE);
        loop {
            let refused = ended.jetstream_refused();
            let found = tokio::select! {
                found = self.find(&context, client) => found,
                reason = refused => Err(reason),
            };
            let is_found = found.is_ok();
            self.found(found);
            if is_found {
                tokio::select! {
                    () = self.failed.notified() => sleep(PATIENCE).await,
                    reason = ended.jetstream_refused() => self.found(Err(reason)),
                }
            } else {
                sleep(RETRY).await;
            }
            if ended.is_refused() {
                // A connection keeps its permissions.
                pending::<()>().await;
            }
        }
    }

    /// The connection has ended.
    pub(crate) fn disconnected(&self) {
        *self.bucket.lock() = None;
    }

    fn found(&self, found: Result<kv::Store, String>) {
        let reason = found.as_ref().err().cloned();
        *self.bucket.lock() = found.ok();
        let before = std::mem::replace(&mut *self.reason.lock(), reason.clone());
        match reason {
            Some(_) if reason == before => {}
            Some(reason) => {
                limited!(
                    WARN,
                    ?reason,
                    "NATS keeps no records: sessions do not move between nodes"
                );
            }
            None if before.is_some() => limited!(INFO, "NATS keeps records again"),
            None => {}
        }
    }

    /// Finds the bucket, or creates it.
    async fn find(&self, context: &Context, client: &Client) -> Result<kv::Store, String> {
        if !client.is_server_compatible(2, 10, 0) {
            // Revisions would begin anew with a stream.
            let version = client.server_info().version;
            return Err(format!("version {version} is older than 2.10"));
        }
        let bucket = &self.settings.bucket;
        if let Ok(found) = context.get_key_value(bucket).await {
            return Ok(found);
        }
        // Fails if another node is quicker.
        let created = context.create_stream(self.settings.stream()).await;
        let found = context.get_key_value(bucket).await;
        found.map_err(|error| created.err().map_or(error.to_string(), |error| error.to_string()))
    }

    async fn call<T>(
        &self,
        call: impl AsyncFnOnce(kv::Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let bucket = self.bucket.lock().clone();
        let Some(bucket) = bucket else {
            return Err(StoreError::new("NATS is not connected, or has no JetStream"));
        };
        let answer = async {
            let _room = self.room.acquire().await.expect("it is never closed");
            call(bucket).await
        };
        let late = || StoreError::new("NATS has not answered within a second");
        let answer = timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(late()));
        if answer.is_err() {
            self.failed.notify_one();
        }
        answer
    }
}

impl Settings {
    /// The stream that is a bucket of this name.
    fn stream(&self) -> Config {
        let Self { bucket, max_age, replicas, is_in_files } = self;
        // So that no revision comes again if a stream is lost and created anew.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Config {
            name: format!("KV_{bucket}"),
            description: Some("tower-channels: resumable sessions".to_owned()),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            max_age: *max_age,
            storage: if *is_in_files { StorageType::File } else { StorageType::Memory },
            num_replicas: *replicas,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            // A replica may answer what is not true any more.
            allow_direct: *replicas == 1,
            first_sequence: Some(u64::try_from(now.as_micros()).unwrap_or(1).max(1)),
            ..Config::default()
        }
    }
}

/// What is there: a record, or the revision that a new one has to replace.
async fn entry(bucket: &kv::Store, key: &str) -> Result<Result<Record, u64>, StoreError> {
    let entry = bucket.entry(key).await.map_err(|error| StoreError::new(error.to_string()))?;
    Ok(match entry {
        Some(entry) if entry.operation == Operation::Put => {
            Ok(Record { value: entry.value, revision: Revision(entry.revision) })
        }
        // It was removed, which is an entry of its own.
        Some(entry) => Err(entry.revision),
        None => Err(0),
    })
}

/// Writes if the revision is this one. Returns the new revision, or `None` if it is another.
async fn write(
    bucket: &kv::Store,
    key: &str,
    seen: u64,
    value: Option<&Bytes>,
) -> Result<Option<Revision>, StoreError> {
    let written = match value {
        Some(value) => bucket.update(key, value.clone(), seen).await.map(Revision),
        // A revision that no record has.
        None => bucket.delete_expect_revision(key, Some(seen)).await.map(|()| Revision(u64::MAX)),
    };
    match written {
        Ok(revision) => Ok(Some(revision)),
        Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
        Err(error) => Err(StoreError::new(error.to_string())),
    }
}

async fn replace(
    bucket: &kv::Store,
    key: &str,
    seen: Option<Revision>,
    value: Option<Bytes>,
) -> Result<Replaced, StoreError> {
    if let Some(seen) = seen {
        return Ok(match write(bucket, key, seen.0, value.as_ref()).await? {
            Some(revision) => Replaced::Yes(revision),
            None => Replaced::No(entry(bucket, key).await?.ok()),
        });
    }
    if value.is_none() {
        return Ok(match entry(bucket, key).await? {
            Ok(record) => Replaced::No(Some(record)),
            Err(_) => Replaced::Yes(Revision(u64::MAX)),
        });
    }
    let mut absent = 0;
    for _ in 0..MAX_TRIES {
        if let Some(revision) = write(bucket, key, absent, value.as_ref()).await? {
            return Ok(Replaced::Yes(revision));
        }
        match entry(bucket, key).await? {
            Ok(record) => return Ok(Replaced::No(Some(record))),
            Err(revision) => absent = revision,
        }
    }
    Err(StoreError::new("the record comes and goes"))
}

/// How often a record is created, where others are created and removed meanwhile.
const MAX_TRIES: u32 = 4;

impl Store for Records {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(self.call(async move |bucket| Ok(entry(&bucket, key).await?.ok())))
    }

    fn replace<'a>(
        &'a self,
        key: &'a str,
        seen: Option<Revision>,
        value: Option<Bytes>,
        _: Duration,
    ) -> BoxFuture<'a, Result<Replaced, StoreError>> {
        Box::pin(async move {
            if let Some(value) = value.as_ref().filter(|value| value.len() > MAX_VALUE) {
                return Err(StoreError::new(format!("a value of {} bytes", value.len())));
            }
            self.call(async move |bucket| replace(&bucket, key, seen, value).await).await
        })
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(replicas: usize) -> Settings {
        Settings {
            bucket: "tc-chat".into(),
            max_age: Duration::from_secs(3600),
            replicas,
            is_in_files: false,
        }
    }

    #[tokio::test]
    async fn a_call_without_a_bucket_is_an_error_at_once() {
        let records = Records::new(settings(1));
        let unavailable = |error: StoreError| error.to_string().contains("JetStream");
        assert!(records.read("k").await.is_err_and(unavailable));
        let replaced = records.replace("k", None, None, Duration::ZERO).await;
        assert!(replaced.is_err_and(unavailable));
    }

    #[test]
    fn a_stream_that_is_created_later_begins_with_a_higher_number() {
        let first = settings(1).stream().first_sequence;
        std::thread::sleep(Duration::from_millis(2));
        assert!(first > Some(1 << 50) && settings(1).stream().first_sequence > first);
    }

    #[test]
    fn replicas_are_not_read_from() {
        assert!(settings(1).stream().allow_direct && !settings(3).stream().allow_direct);
    }
}
