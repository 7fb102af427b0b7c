//! How sessions leave a node: given to another, taken by another, or left behind in the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tower_channels_transports::limited;
use tower_channels_transports::peers::Handover;

use super::claim::Held;
use super::record::{Deposit, SessionRecord, hash_socket, key};
use super::told::Losing;
use super::{PATIENCE, micros, unix_time};
use crate::adapter::{NodeId, Replaced};
use crate::cluster::questions::{Answer, Notice, Took};
use crate::cluster::{Cluster, WeakCluster};
use crate::telemetry::{DEPOSITS, NOTICES_DROPPED};

/// The longest state of a session that is left behind, in bytes.
const MAX_DEPOSIT: usize = 64 << 10;

/// How often a deposit is written again if the record is another one of this node.
const ROUNDS: u8 = 3;

/// How many notices are repeated per step of the node's task.
const REPEATS: usize = 64;

/// For how many milliseconds the node to which a session was given may not have written its record yet.
const WRITING: u64 = 300;

/// A session that is offered to another node.
pub(in crate::cluster) struct Watched {
    pub(in crate::cluster) session: Box<dyn Handover>,
    pub(in crate::cluster) cluster: WeakCluster,
    pub(in crate::cluster) endpoint: u32,
    pub(in crate::cluster) id: Arc<str>,
    pub(in crate::cluster) to: NodeId,
}

impl Watched {
    pub(in crate::cluster) fn outline(&self) -> Bytes {
        self.session.outline()
    }

    /// Gives the session away: its record is the other node's affair from then on.
    pub(in crate::cluster) async fn give(self, prepared: Bytes) -> Answer {
        let Self { session, cluster, endpoint, id, to } = self;
        let Some(cluster) = cluster.upgrade() else { return Answer::NotHere(()) };
        // Whoever finds the session here from now on is to ask the other node.
        let now = cluster.elapsed();
        cluster.claims.state.lock().of(endpoint).begin_giving(&id, to, now);
        let state = session.give(Some(prepared)).await;
        let now = cluster.elapsed();
        let mut claims = cluster.claims.state.lock();
        let records = claims.of(endpoint);
        match state {
            Some(state) => {
                records.give(&id, to, now);
                Answer::Given(state)
            }
            None => {
                records.keep(&id);
                // Its client has come back here, unless it has ended.
                if records.has(&id) { Answer::InUse(()) } else { Answer::NotHere(()) }
            }
        }
    }
}

impl Cluster {
    /// Returns whether the session was given away so lately that its record may still name this node.
    pub(in crate::cluster) fn is_moving(&self, endpoint: u32, id: &str) -> bool {
        let now = self.elapsed();
        let mut state = self.claims.state.lock();
        let records = state.endpoints.get_mut(endpoint as usize);
        records.is_some_and(|records| records.given_to(id, WRITING, now).is_some())
    }

    /// Another node says that it has a session, which ends here if that is of a later generation.
    pub(in crate::cluster) fn hear_took(self: &Arc<Self>, from: NodeId, took: Took) {
        let mut state = self.claims.state.lock();
        let records = state.endpoints.get_mut(took.endpoint as usize);
        let is_taken = records.is_some_and(|records| records.is_taken(&took.id, took.generation));
        drop(state);
        if is_taken {
            limited!(INFO, node = ?from, session = ?took.id, "session ended: another node has taken it over");
            self.end_moved(took.endpoint, took.id.as_str().into());
        }
        self.notify(from, Notice::TookHeard(took));
    }

    /// Another node has heard that this one has a session.
    pub(in crate::cluster) fn hear_took_heard(&self, node: NodeId, took: Took) {
        let Took { endpoint, id, generation } = took;
        let losing = Losing { node, endpoint, id: id.into() };
        self.claims.state.lock().told.heard(&losing, generation);
    }

    /// Tells a node that this one has a session which it may believe to have, until it has heard it.
    pub(super) fn tell_took(
        self: &Arc<Self>,
        node: NodeId,
        endpoint: u32,
        id: &Arc<str>,
        generation: u64,
    ) {
        let now = self.elapsed();
        let losing = Losing { node, endpoint, id: Arc::clone(id) };
        let has_room = self.claims.state.lock().told.tell(losing.clone(), generation, now);
        if !has_room {
            NOTICES_DROPPED.add(1);
            limited!(
                WARN,
                ?node,
                "too many sessions of silent nodes were taken over: one is told once"
            );
        }
        self.send_took(&losing, generation);
    }

    /// Tells again what was not heard, unless the node has left the cluster.
    pub(super) fn repeat_took(self: &Arc<Self>, now: u64) {
        for _ in 0..REPEATS {
            let next = self.claims.state.lock().told.next(now);
            let Some((losing, generation)) = next else { return };
            let state = self.state.lock();
            let is_known = state.members.knows(losing.node);
            let is_away = state.members.is_away(losing.node);
            drop(state);
            if !is_known {
                self.claims.state.lock().told.remove(&losing);
            } else if !is_away {
                // A silent node is told once it is heard again.
                self.send_took(&losing, generation);
            }
        }
    }

    fn send_took(self: &Arc<Self>, Losing { node, endpoint, id }: &Losing, generation: u64) {
        let took = Took { endpoint: *endpoint, id: id.to_string(), generation };
        self.notify(*node, Notice::Took(took));
    }

    /// Leaves a session behind in the store, for the node to which its client comes: its `state`, as
    /// [`Handover::give`] has returned it, for so long. It must have ended here. Returns whether that has worked. If not,
    /// the session is lost, because its state is too long, another node has it already, or the store is unavailable.
    ///
    /// Takes a second at most for each of three attempts.
    pub(crate) async fn deposit(
        &self,
        endpoint: u32,
        id: &str,
        socket_id: Option<&str>,
        state: Bytes,
        ttl: Duration,
    ) -> bool {
        let held = self.claims.state.lock().of(endpoint).forget(id);
        let result = if state.len() > MAX_DEPOSIT {
            "too_large"
        } else {
            let time = unix_time();
            let generation = held.map_or(time, |held| held.generation);
            let socket = hash_socket(id, socket_id);
            let mut record = SessionRecord::new(self.node, generation, socket);
            let expires = time.saturating_add(micros(ttl));
            record.deposit = Some(Deposit { state, expires });
            self.write_deposit(&key(endpoint, id), held, &record, ttl).await
        };
        DEPOSITS.increment([result], 1);
        if result != "ok" {
            limited!(WARN, session = ?id, result, "session could not be left behind for another node");
        }
        result == "ok"
    }

    async fn write_deposit(
        &self,
        key: &str,
        held: Option<Held>,
        record: &SessionRecord,
        ttl: Duration,
    ) -> &'static str {
        let mut seen = held.and_then(|held| held.seen);
        for _ in 0..ROUNDS {
            let deadline = Instant::now() + PATIENCE;
            let value = Some(record.encode());
            seen = match self.replace_record(key, seen, value, ttl, deadline).await {
                Ok(Replaced::Yes(_)) => return "ok",
                // The session has been released already.
                Ok(Replaced::No(None)) => None,
                Ok(Replaced::No(Some(there))) => {
                    let other = SessionRecord::decode(there.value);
                    // Unless its client has begun another one here since.
                    let is_own = other.is_none_or(|other| {
                        other.owner() == self.node && other.generation <= record.generation
                    });
                    if !is_own || held.is_none() {
                        return "superseded";
                    }
                    Some(there.revision)
                }
                Err(_) => return "failed",
            };
        }
        "failed"
    }
}
