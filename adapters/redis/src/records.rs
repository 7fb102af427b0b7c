//! [`Records`]: the records that the server keeps.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, Value, cmd};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::timeout;
use tower_channels::adapter::{BoxFuture, Record, Replaced, Revision, Store, StoreError};

use crate::backoff::random;
use crate::connector::{Connection, Connector};
use crate::error::ConnectError;
use crate::names::Names;
use crate::sending::Publisher;

/// Replaces a record if its current revision, the first eight bytes of the value, equals the first argument; an empty
/// argument stands for no record. Returns 1, or the current value.
///
/// A record is one value, so that one command reads it: its revision, then what was written.
const REPLACE: &str = r"
local there = redis.call('GET', KEYS[1])
if (there and string.sub(there, 1, 8) or '') ~= ARGV[1] then return there end
if ARGV[2] == '' then
    redis.call('DEL', KEYS[1])
else
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
";

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many calls may wait for the server. Others wait for them, within their time.
const MAX_CALLS: usize = 256;

/// The largest value, in bytes.
const MAX_VALUE: usize = 128 << 10;

/// The longest time to live: some thousand years.
const MAX_TTL_MS: u128 = 1 << 47;

/// The records of an application. They use the connection that sends; and in a Redis Cluster, where all of them sit in
/// one slot, another one to the server that has it.
pub(crate) struct Records {
    connector: Connector,
    names: Arc<Names>,
    publisher: watch::Receiver<Option<Publisher>>,
    /// The name of the script.
    hash: String,
    /// Whether the server has been given the script, which it may have forgotten.
    is_known: AtomicBool,
    room: Semaphore,
    /// The server with the records, unless frames go to the same one.
    elsewhere: Mutex<Option<Elsewhere>>,
}

struct Elsewhere {
    address: String,
    connection: Connection,
}

/// What is asked of the server.
enum Request<'a> {
    Read,
    /// The revision that must be there, the packed record, and its time to live in milliseconds.
    Replace(&'a [u8], &'a [u8], u64),
}

impl Records {
    pub(crate) fn new(
        connector: Connector,
        names: Arc<Names>,
        publisher: watch::Receiver<Option<Publisher>>,
    ) -> Self {
        Self {
            connector,
            names,
            publisher,
            hash: Script::new(REPLACE).get_hash().to_owned(),
            is_known: AtomicBool::new(false),
            room: Semaphore::new(MAX_CALLS),
            elsewhere: Mutex::default(),
        }
    }

    /// Writes, reads and removes a record. Fails if the user or the server can never do that.
    pub(crate) async fn check(&self) -> Result<(), ConnectError> {
        let key = self.names.record(&format!("check-{:016x}", random()));
        let new = pack(Revision(random()), b"");
        let old = &new[..8];
        for request in
            [Request::Replace(b"", &new, 1000), Request::Read, Request::Replace(old, b"", 0)]
        {
            let Err(error) = self.ask(&key, &request).await else { continue };
            let command = format!("EVAL, EVALSHA, GET, SET and DEL on {}", self.names.record("*"));
            let error = ConnectError::running(command, &error);
            let is_unknown = error.to_string().contains("unknown command");
            if is_unknown || matches!(error, ConnectError::Forbidden { .. }) {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn call(&self, key: &str, request: Request<'_>) -> Result<Value, StoreError> {
        if self.publisher.borrow().is_none() {
            return Err(StoreError::new("Redis is not connected"));
        }
        let key = self.names.record(key);
        let answer = async {
            let _room = self.room.acquire().await.expect("it is never closed");
            self.ask(&key, &request).await
        };
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|error| StoreError::new(error.to_string())),
            Err(_) => Err(StoreError::new("Redis has not answered within a second")),
        }
    }

    async fn ask(&self, key: &str, request: &Request<'_>) -> RedisResult<Value> {
        let Some(Publisher { mut redis, is_cluster }) = self.publisher.borrow().clone() else {
            return Err(RedisError::from((ErrorKind::Io, "not connected")));
        };
        if !is_cluster {
            return self.send(&mut redis, key, request).await;
        }
        let elsewhere = self.elsewhere.lock().await.as_ref().map(Elsewhere::redis);
        let is_elsewhere = elsewhere.is_some();
        let answer = self.send(&mut elsewhere.unwrap_or(redis), key, request).await;
        let Err(error) = answer else { return answer };
        if error.kind() != ErrorKind::Server(ServerErrorKind::Moved) {
            if is_elsewhere && error.is_io_error() {
                *self.elsewhere.lock().await = None;
            }
            return Err(error);
        }
        let Some((address, _)) = error.redirect_node() else { return Err(error) };
        let mut redis = self.follow(address).await?;
        self.send(&mut redis, key, request).await
    }

    /// Connects to the server that has the records, unless another call has done so.
    async fn follow(&self, address: &str) -> RedisResult<MultiplexedConnection> {
        let mut elsewhere = self.elsewhere.lock().await;
        if let Some(elsewhere) = elsewhere.as_ref().filter(|it| it.address == address) {
            return Ok(elsewhere.redis());
        }
        let opened = self.connector.open_at(address).await;
        let connection = opened.map_err(|error| {
            RedisError::from((ErrorKind::Io, "the server of the records", error.to_string()))
        })?;
        let new = elsewhere.insert(Elsewhere { address: address.to_owned(), connection });
        Ok(new.redis())
    }

    async fn send(
        &self,
        redis: &mut MultiplexedConnection,
        key: &str,
        request: &Request<'_>,
    ) -> RedisResult<Value> {
        let Request::Replace(seen, new, ttl) = request else {
            return run(redis, cmd("GET").arg(key)).await;
        };
        let replace = |by: &str, script: &str| {
            let mut command = cmd(by);
            command.arg(script).arg(1).arg(key).arg(*seen).arg(*new).arg(*ttl);
            command
        };
        if !self.is_known.swap(true, Ordering::Relaxed) {
            return run(redis, &replace("EVAL", REPLACE)).await;
        }
        match run(redis, &replace("EVALSHA", &self.hash)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                run(redis, &replace("EVAL", REPLACE)).await
            }
            answer => answer,
        }
    }
}

impl Store for Records {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(async { unpack(self.call(key, Request::Read).await?) })
    }

    fn replace<'a>(
        &'a self,
        key: &'a str,
        seen: Option<Revision>,
        value: Option<Bytes>,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Replaced, StoreError>> {
        Box::pin(async move {
            if let Some(value) = value.as_ref().filter(|value| value.len() > MAX_VALUE) {
                return Err(StoreError::new(format!("a value of {} bytes", value.len())));
            }
            // A number from the clock or a counter would come again if the server lost its records.
            let revision = Revision(random());
            let seen = seen.map(|seen| seen.0.to_be_bytes());
            let new = value.map(|value| pack(revision, &value)).unwrap_or_default();
            let ttl = u64::try_from(ttl.as_millis().clamp(1, MAX_TTL_MS)).expect("clamped");
            let request = Request::Replace(seen.as_ref().map_or(b"", |it| it), &new, ttl);
            match self.call(key, request).await? {
                Value::Int(1) => Ok(Replaced::Yes(revision)),
                there => unpack(there).map(Replaced::No),
            }
        })
    }
}

impl Elsewhere {
    fn redis(&self) -> MultiplexedConnection {
        self.connection.redis.clone()
    }
}

async fn run(redis: &mut MultiplexedConnection, command: &Cmd) -> RedisResult<Value> {
    redis.send_packed_command(command).await.and_then(Value::extract_error)
}

fn pack(revision: Revision, value: &[u8]) -> Vec<u8> {
    [&revision.0.to_be_bytes(), value].concat()
}

fn unpack(value: Value) -> Result<Option<Record>, StoreError> {
    let packed = match value {
        Value::Nil => return Ok(None),
        Value::BulkString(packed) => Bytes::from(packed),
        _ => return Err(StoreError::new("Redis has answered something else than a record")),
    };
    let Some(revision) = packed.first_chunk().copied().map(u64::from_be_bytes) else {
        return Err(StoreError::new("Redis has a value in the place of a record"));
    };
    Ok(Some(Record { value: packed.slice(8..), revision: Revision(revision) }))
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_packed_behind_its_revision() {
        let revision = Revision(0x0102_0304_0506_0708);
        let packed = pack(revision, b"value");
        assert_eq!(packed, b"\x01\x02\x03\x04\x05\x06\x07\x08value");
        let record = Record { value: "value".into(), revision };
        assert_eq!(unpack(Value::BulkString(packed)), Ok(Some(record)));
    }

    #[test]
    fn what_is_not_a_record_is_an_error() {
        assert_eq!(unpack(Value::Nil), Ok(None));
        assert!(unpack(Value::BulkString(b"1234567".to_vec())).is_err());
        assert!(unpack(Value::Int(2)).is_err());
    }
}
