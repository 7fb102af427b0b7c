//! The task of a node: what is due by the clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tower_channels_transports::limited;

use super::config::{Listen, TICK};
use super::gaps::Scope;
use super::parts::Discarded;
use super::wire::Body;
use super::{Cluster, Hello, State, WeakCluster};
use crate::telemetry::FRAMES_REFUSED;

/// Runs until the node is dropped.
pub(super) async fn run(cluster: WeakCluster) {
    let mut steps = interval(TICK);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        steps.tick().await;
        let Some(cluster) = cluster.upgrade() else { return };
        cluster.step();
    }
}

impl Cluster {
    /// Does what is due.
    fn step(self: &Arc<Self>) {
        let elapsed = self.started.elapsed();
        self.now.store(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let now = self.now();
        self.step_questions(now);
        self.step_claims();
        if self.is_alone {
            return self.local.presence.expire_lingering(now);
        }
        if self.has_left.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state.lock();
        if self.has_heard_itself.swap(false, Ordering::Relaxed) {
            state.members.hear_self(now);
            state.reconnects = 0;
        }
        // Silence means nothing while the engine is not heard.
        let due = if state.is_linked { state.members.tick(now) } else { Default::default() };
        self.set_standing(&due.changes);
        // More and more rarely, as long as it does not help.
        let pause = self.config.deaf_after.saturating_mul(1 << state.reconnects.min(5));
        let reconnects = due.is_deaf && now.saturating_sub(state.last_reconnect) >= pause;
        if reconnects {
            state.last_reconnect = now;
            state.reconnects += 1;
        }
        let discarded = state.parts.expire(now);
        let beats = state.is_beat_due(now, self.config.beat);
        drop(state);
        if reconnects {
            limited!(WARN, "this node does not hear itself: it connects to the engine anew");
            self.adapter.reconnect();
        }
        self.discard(discarded);
        due.changes.into_iter().for_each(|change| self.change(change));
        due.probe.into_iter().for_each(|node| self.answer(node, Body::Probe(())));
        self.local.presence.expire_lingering(now);
        self.send_presence();
        if let Some(hello) = beats {
            self.beat(hello == Some(Hello::Ask));
        }
        self.announce_lost();
        if self.interest.sweep(&self.local.topics, &*self.adapter, now) {
            limited!(WARN, "too many topics to hear them one by one: all are heard");
            self.listen(Listen::All);
        }
    }

    /// Long messages of other nodes did not arrive whole.
    fn discard(&self, Discarded { shared, private }: Discarded) {
        if shared + private > 0 {
            FRAMES_REFUSED.increment(["incomplete"], (shared + private) as u64);
            limited!(WARN, shared, private, "long messages of other nodes did not arrive whole");
        }
        // What was for this node alone is asked for again, or given up, by those who asked.
        if shared > 0 {
            self.miss("incomplete", Scope::All);
        }
    }

    /// Chooses the version to write by what the others read.
    pub(super) fn write_version(&self, state: &State) {
        self.version.store(state.members.version(), Ordering::Relaxed);
    }
}

impl State {
    /// Returns whether a beat is due, and why if not by the clock.
    fn is_beat_due(&mut self, now: Duration, beat: Duration) -> Option<Option<Hello>> {
        let hello = if self.is_linked { self.hello.take() } else { None };
        let is_due = self.last_beat.is_none_or(|last| now.saturating_sub(last) >= beat);
        let beats = hello.is_some() || (is_due && (self.is_linked || self.last_beat.is_some()));
        if !beats {
            return None;
        }
        self.last_beat = Some(now);
        Some(hello)
    }
}
