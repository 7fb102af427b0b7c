//! Which node has a session: the records of sessions in the engine's store.
//!
//! A node claims a session before it begins it, and keeps the record for as long as the session is there. The record
//! names its node, so that another to which the client comes knows whom to ask. If two nodes believe to have a session,
//! the one with the later generation does.

mod claim;
mod finding;
mod following;
mod giving;
mod keeping;
mod left;
#[cfg(any(test, feature = "unstable-internals"))]
#[doc(hidden)]
pub mod model;
mod record;
mod records;
mod snapshots;
mod told;

use std::future::Future;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tower_channels_transports::limited;
use tower_channels_transports::telemetry::{Level, UNLABELED};

use self::following::Horizons;
pub(super) use self::giving::Watched;
pub(crate) use self::left::{Left, LeftTopic, MAX_NAMES, MAX_TOPICS};
use self::records::Records;
pub(crate) use self::records::{Look, Recoverable};
use self::told::Told;
use super::Cluster;
use crate::adapter::{Adapter, NodeId, Record, Replaced, Revision, Store, StoreError};
use crate::telemetry::{SESSIONS_UNRECORDED, STORE_ERRORS};

/// The sessions that this node has, as the store is to know them. What follows from them is done without the lock.
pub(super) struct Claims {
    state: Mutex<State>,
    /// Those of clients that wait.
    calls: Semaphore,
    unrecorded: Level,
}

struct State {
    node: NodeId,
    /// By the index of the endpoint.
    endpoints: Vec<Records>,
    told: Told,
    horizons: Horizons,
    /// How many tasks are under way.
    tasks: usize,
    /// When the task of the node was last here, in milliseconds since its start.
    last_step: u64,
}

/// How many calls of the store are under way at a time for clients that wait.
const MAX_CLAIMS: usize = 256;

/// How many are under way beside them.
const MAX_CALLS: usize = 64;

/// How long a call of the store may take.
const PATIENCE: Duration = Duration::from_secs(1);

impl Claims {
    pub(super) fn new(node: NodeId, adapter: &dyn Adapter) -> Self {
        if adapter.store().is_none() {
            limited!(INFO, "the engine keeps no records: resumable sessions stay on their nodes");
        }
        let state = State {
            node,
            endpoints: Vec::new(),
            told: Told::default(),
            horizons: Horizons::default(),
            tasks: 0,
            last_step: 0,
        };
        Self {
            state: Mutex::new(state),
            calls: Semaphore::new(MAX_CLAIMS),
            unrecorded: Level::new(SESSIONS_UNRECORDED.handle(UNLABELED)),
        }
    }

    /// Updates the gauge.
    pub(super) fn record_gauges(&self) {
        let unrecorded = self.state.lock().endpoints.iter().map(Records::unrecorded).sum();
        self.unrecorded.set(unrecorded);
    }
}

impl State {
    /// Those of an endpoint of this node.
    fn of(&mut self, endpoint: u32) -> &mut Records {
        let index = endpoint as usize;
        while self.endpoints.len() <= index {
            self.endpoints.push(Records::new(self.node));
        }
        &mut self.endpoints[index]
    }
}

impl Cluster {
    /// Replaces a record that is kept for so long, until the deadline.
    async fn replace_record(
        &self,
        key: &str,
        seen: Option<Revision>,
        value: Option<Bytes>,
        ttl: Duration,
        deadline: Instant,
    ) -> Result<Replaced, StoreError> {
        let store = self.store()?;
        bounded(deadline, store.replace(key, seen, value, ttl)).await
    }

    async fn read_record(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        bounded(deadline, self.store()?.read(key)).await
    }

    fn store(&self) -> Result<&dyn Store, StoreError> {
        self.adapter.store().ok_or_else(|| StoreError::new("there is none"))
    }

    /// The time since the start of the node, in milliseconds.
    fn elapsed(&self) -> u64 {
        millis(self.started.elapsed())
    }
}

/// Waits for the store, and counts its errors.
async fn bounded<T>(
    deadline: Instant,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let called = timeout_at(deadline, call).await;
    let called = called.unwrap_or_else(|_| Err(StoreError::new("it does not answer")));
    called.inspect_err(|error| {
        STORE_ERRORS.add(1);
        limited!(WARN, ?error, "the store of the engine is unavailable");
    })
}

/// The time in microseconds since the Unix epoch. It does not go back.
fn unix_time() -> u64 {
    static BEGAN: LazyLock<(Duration, Instant)> = LazyLock::new(|| (clock(), Instant::now()));
    let (began, at) = *BEGAN;
    micros(clock().max(began.saturating_add(at.elapsed())))
}

fn clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(all(test, feature = "test-util"))]
mod tests;
