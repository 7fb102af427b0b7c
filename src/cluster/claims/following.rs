//! How the records of sessions say from where their topics go on if this node dies: a look at each once a second, and one
//! number for all of them, the *horizon*.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::Instant;
use tower_channels_transports::limited;

use super::PATIENCE;
use super::left::{Horizon, Left};
use super::records::{Look, Recoverable, TTL};
use super::snapshots::Snapshots;
use crate::adapter::{NodeId, Replaced, Revision};
use crate::cluster::Cluster;
use crate::telemetry::HORIZONS;

/// How often all sessions are looked at, and those whose topics were just joined, in milliseconds.
const ROUND: u64 = 1000;
const HASTE: u64 = 250;

/// After how many milliseconds a horizon that has not changed is written again, so that the store keeps it.
const REFRESH: u64 = 20 * 60 * 1000;

/// For how many milliseconds the horizon of a node that is gone is not read again.
const REMEMBERED: u64 = 1000;

/// How many sessions are looked at before other tasks get their turn.
const BATCH: usize = 256;

/// What is known of horizons.
#[derive(Default)]
pub(super) struct Horizons {
    snapshots: Snapshots,
    /// What the last round was for.
    number: u64,
    /// When the next round begins, and the next look at those that join.
    round: u64,
    haste: u64,
    /// Whether sessions are being looked at.
    is_looking: bool,
    joining: Vec<(u32, Arc<str>)>,
    /// The last that was written, when, and its revision.
    written: Option<(u64, u64)>,
    seen: Option<Revision>,
    /// The one of another node that was read last, and when.
    other: Option<(NodeId, u64, Option<u64>)>,
}

/// A session that is looked at: of which endpoint, and its id.
type Looked = (u32, Arc<str>, Arc<dyn Recoverable>);

impl Cluster {
    /// Returns whether sessions can go on after the death of their node, on topics with a history.
    pub(in crate::cluster) fn can_recover(&self) -> bool {
        self.adapter.store().is_some() && self.delivered.get().is_some()
    }

    /// Returns the id of a session of this node as it is kept here.
    pub(in crate::cluster) fn own_id(&self, endpoint: u32, id: &str) -> Option<Arc<str>> {
        self.claims.state.lock().of(endpoint).own_id(id)
    }

    /// Follows a session of this node from now on. If it `continues` one, its client has yet to receive what was sent
    /// before.
    pub(in crate::cluster) fn follow(
        &self,
        endpoint: u32,
        id: &str,
        session: Weak<dyn Recoverable>,
        continues: bool,
    ) {
        let now = self.elapsed();
        self.claims.state.lock().of(endpoint).follow(id, session, continues, now);
    }

    /// The topics of a followed session have changed.
    pub(in crate::cluster) fn change_topics(&self, endpoint: u32, id: &str) {
        let now = self.elapsed();
        self.claims.state.lock().of(endpoint).change(id, now);
    }

    /// A followed session has joined a topic, which its client has yet to learn.
    pub(in crate::cluster) fn expect_topics(&self, endpoint: u32, id: &Arc<str>) {
        self.claims.state.lock().horizons.joining.push((endpoint, Arc::clone(id)));
    }

    /// Looks at sessions, if it is time. To be called every 50 ms.
    pub(super) fn step_followed(self: &Arc<Self>, now: u64) {
        let Some(delivered) = self.delivered.get() else { return };
        let mut state = self.claims.state.lock();
        let is_round = now >= state.horizons.round;
        let is_due =
            is_round || (now >= state.horizons.haste && !state.horizons.joining.is_empty());
        if state.horizons.is_looking || !is_due {
            return;
        }
        let joining = std::mem::take(&mut state.horizons.joining);
        let looked: Vec<Looked> = if is_round {
            let endpoints = (0..).zip(&state.endpoints);
            let of = |(index, records): (u32, &super::Records)| {
                let followed = records.followed();
                followed.map(|(id, it)| (index, Arc::clone(id), it)).collect::<Vec<_>>()
            };
            endpoints.flat_map(of).collect()
        } else {
            let of = |(index, id): (u32, Arc<str>)| {
                let session = state.endpoints.get(index as usize)?.session(&id)?;
                Some((index, id, session))
            };
            joining.into_iter().filter_map(of).collect()
        };
        let horizons = &mut state.horizons;
        horizons.haste = now.saturating_add(HASTE);
        if is_round {
            horizons.round = now.saturating_add(ROUND);
            if looked.is_empty() {
                horizons.snapshots = Snapshots::default();
                horizons.number = 0;
                return;
            }
            let at = Duration::from_millis(now);
            horizons.number = horizons.snapshots.take(delivered(), at);
        }
        horizons.is_looking = true;
        let number = horizons.number;
        drop(state);
        let looking = Looking(Arc::clone(self));
        self.runtime.spawn(async move {
            let cluster = Arc::clone(&looking.0);
            cluster.look(looked, number).await;
            drop(looking);
            if is_round {
                cluster.write_horizon().await;
            }
        });
    }

    async fn look(&self, looked: Vec<Looked>, number: u64) {
        for batch in looked.chunks(BATCH) {
            self.look_at(batch, number);
            yield_now().await;
        }
    }

    fn look_at(&self, looked: &[Looked], number: u64) {
        let now = self.elapsed();
        let look = |(_, _, session): &Looked| session.look(number, now);
        let looks: Vec<Look> = looked.iter().map(look).collect();
        let mut state = self.claims.state.lock();
        let written = state.horizons.written.map_or(0, |(written, _)| written);
        let highest = state.horizons.number.max(written);
        for ((endpoint, id, _), look) in looked.iter().zip(looks) {
            state.of(*endpoint).looked(id, look, highest, now);
            if look.is_joining && !look.is_behind {
                state.horizons.joining.push((*endpoint, Arc::clone(id)));
            }
        }
    }

    /// Writes the horizon of this node, if it is another one.
    async fn write_horizon(&self) {
        let now = self.elapsed();
        let (number, seen) = {
            let mut state = self.claims.state.lock();
            let bound = state.endpoints.iter().filter_map(super::Records::horizon).min();
            let horizons = &mut state.horizons;
            let number = bound.unwrap_or(horizons.number).min(horizons.number);
            let is_written = horizons
                .written
                .is_some_and(|(written, at)| written == number && now.saturating_sub(at) < REFRESH);
            if is_written || (number == 0 && horizons.written.is_none()) {
                return;
            }
            (number, horizons.seen)
        };
        let deadline = Instant::now() + PATIENCE;
        let (key, value) = (Horizon::key(self.node), Horizon { number }.encode());
        let replaced = self.replace_record(&key, seen, Some(value), TTL, deadline).await;
        let horizons = &mut self.claims.state.lock().horizons;
        let result = match replaced {
            Ok(Replaced::Yes(revision)) => {
                (horizons.written, horizons.seen) = (Some((number, now)), Some(revision));
                "ok"
            }
            // It was written though the store did not say so, or the store has forgotten it: next time.
            Ok(Replaced::No(there)) => {
                horizons.seen = there.map(|there| there.revision);
                "again"
            }
            Err(_) => "failed",
        };
        HORIZONS.increment([result], 1);
    }

    /// Says from where the topics of a session go on whose node is gone.
    pub(super) async fn complete(&self, owner: NodeId, left: Left) -> Left {
        if left.since.is_some() {
            return left.after(None);
        }
        let now = self.elapsed();
        let known = self.claims.state.lock().horizons.other;
        let is_fresh = |(node, at, _): &(NodeId, u64, _)| {
            *node == owner && now.saturating_sub(*at) < REMEMBERED
        };
        if let Some((_, _, number)) = known.filter(is_fresh) {
            return left.after(number);
        }
        let number = match self.read_record(&Horizon::key(owner)).await {
            Ok(record) => record.and_then(|it| Horizon::decode(it.value)).map(|it| it.number),
            // It goes on from where it has joined.
            Err(_) => {
                limited!(WARN, node = ?owner, "the horizon of a node that is gone cannot be read: more is sent twice");
                return left.after(None);
            }
        };
        self.claims.state.lock().horizons.other = Some((owner, now, number));
        left.after(number)
    }
}

/// Sessions are being looked at until this is dropped.
struct Looking(Arc<Cluster>);

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.claims.state.lock().horizons.is_looking = false;
    }
}
