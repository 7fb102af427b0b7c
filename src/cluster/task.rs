//! The task of a node: what is due by the clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tower_channels_transports::limited;

use super::config::{Listen, TICK};
use super::gaps::Scope;
use super::wire::{self, Beat, Body};
use super::{Cluster, Hello, State, WeakCluster};
use crate::adapter::Channel;
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
        let mut state = self.state.lock();
        // While nobody is heard, nobody is silent.
        let due = if state.is_linked { state.members.tick(now) } else { Default::default() };
        self.set_standing(&due.changes);
        let reconnects =
            due.is_deaf && now.saturating_sub(state.last_reconnect) >= self.config.deaf_after;
        if reconnects {
            state.last_reconnect = now;
        }
        let incomplete = state.parts.expire(now) as u64;
        let beats = state.is_beat_due(now, self.config.beat);
        drop(state);
        if reconnects {
            limited!(WARN, "this node does not hear itself: it connects to the engine anew");
            self.adapter.reconnect();
        }
        if incomplete > 0 {
            FRAMES_REFUSED.increment(["incomplete"], incomplete);
            limited!(WARN, incomplete, "long broadcasts of other nodes did not arrive whole");
            self.miss("incomplete", Scope::All);
        }
        due.changes.into_iter().for_each(|change| self.change(change));
        due.probe.into_iter().for_each(|node| self.answer(node, Body::Probe(())));
        if self.has_left.load(Ordering::Relaxed) {
            return;
        }
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

    /// Tells the others that this node is there, and what it is.
    fn beat(&self, is_hello: bool) {
        let (sessions, is_draining) = self.count_sessions();
        let age = self.started.elapsed().as_millis();
        let clocks = self.local.presence.clocks();
        // Under the lock, so that no frame that it counts comes after it.
        let sending = self.sending.lock();
        let beat = Beat {
            age: u64::try_from(age).unwrap_or(u64::MAX),
            sessions,
            is_draining,
            min_version: self.versions.min.into(),
            max_version: self.versions.max.into(),
            topics: sending.last,
            disconnects: sending.disconnects.last(),
            is_hello,
            clocks,
        };
        // In the version that every node reads.
        let frame = wire::encode(self.versions.min, self.node, Body::Beat(beat));
        let is_sent = self.adapter.publish(Channel::All, frame.freeze()).is_ok();
        drop(sending);
        self.count_sent(is_sent);
    }

    /// Tells the others on which topics broadcasts of this node were lost.
    fn announce_lost(&self) {
        let mut sending = self.sending.lock();
        let Some(scope) = sending.lost.take() else { return };
        drop(sending);
        let topics = match &scope {
            Scope::Topics(topics) => topics.iter().map(ToString::to_string).collect(),
            Scope::Nothing | Scope::All => Vec::new(),
        };
        if !self.send_to_all(Body::Lost(wire::Lost { topics })) {
            self.sending.lock().lost.add(scope);
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
