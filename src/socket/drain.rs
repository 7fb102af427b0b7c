//! How a node of several shuts down: its resumable sessions move to the others.
//!
//! Sessions lose their connections at a pace, and stay until the node to which their client comes has taken them. Clients
//! go on being accepted meanwhile: a refused WebSocket would make some use long polling for good. In the last quarter of
//! the time none is accepted, and sessions whose clients sleep are left behind in the engine's store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tower_channels_transports::outbox;

use super::registry::{BATCH, PAUSE, Phase, SessionRegistry};
use super::shutdown::{Schedule, ShutdownConfig};

/// The sessions of an endpoint that is shut down, as its transports know them.
pub(crate) trait Leftovers: Send + Sync + 'static {
    /// Lets the transports drop sessions that are over.
    fn sweep(&self);

    /// Returns the ids and the socket ids of the sessions without a connection.
    fn detached(&self) -> Vec<(Arc<str>, Option<Box<str>>)>;

    /// Leaves a session behind in the engine's store. Ends it in any case, unless its client has just come for it.
    fn leave_behind(
        &self,
        id: Arc<str>,
        socket_id: Option<Box<str>>,
    ) -> impl Future<Output = ()> + Send;

    /// Returns whether the presence of sessions stays until they are present on their new nodes.
    fn is_settling(&self) -> bool;
}

impl SessionRegistry {
    /// Ends the connections at the configured pace, and waits until other nodes have taken the resumable sessions. Those
    /// that nobody takes are left behind. Returns `true` once there is no session left and all connections are closed, or
    /// `false` if the timeout has passed, when what is left is closed.
    ///
    /// Cancel safety: sessions without a connection stay so, and those that are being left behind end.
    pub(crate) async fn drain(
        &self,
        config: ShutdownConfig,
        leftovers: Arc<impl Leftovers>,
    ) -> bool {
        let began = Instant::now();
        let draining = Draining { sessions: self, leftovers, config };
        let is_done = timeout(config.timeout, draining.run()).await.is_ok();
        if is_done {
            let left = config.timeout.saturating_sub(began.elapsed());
            let _ = timeout(left.min(SETTLING), draining.settle()).await;
        } else {
            let outboxes = self.enter(Phase::Closed);
            Self::close_all(&outboxes, || draining.leftovers.sweep()).await;
        }
        is_done
    }
}

struct Draining<'a, L> {
    sessions: &'a SessionRegistry,
    leftovers: Arc<L>,
    config: ShutdownConfig,
}

impl<L: Leftovers> Draining<'_, L> {
    async fn run(&self) {
        let schedule = self.config.schedule();
        let mut outboxes = self.end_connections(schedule).await;
        // Those that have come since the last look sleep for a shorter time.
        let asleep = self.leftovers.detached();
        let last = self.sessions.enter(Phase::Closed);
        self.end_all(&last).await;
        outboxes.extend(last);
        self.leave_behind(schedule, asleep, outboxes).await;
    }

    /// Ends the connections that there are, at a pace, and waits for the last quarter of the time, or until all sessions
    /// have gone.
    async fn end_connections(&self, schedule: Schedule) -> Vec<outbox::Sender> {
        let began = Instant::now();
        let outboxes = self.sessions.enter(Phase::Draining);
        let (detached, connected) =
            outboxes.into_iter().partition::<Vec<_>, _>(outbox::Sender::is_detached);
        let pace = self.config.pace(connected.len());
        let mut waiting = &connected[..];
        loop {
            let left = connected.len() - pace.due(began.elapsed());
            let (due, rest) = waiting.split_at(waiting.len() - left);
            self.end(due);
            waiting = rest;
            let is_done = waiting.is_empty() && self.sessions.count() == 0;
            if is_done || began.elapsed() >= schedule.last_quarter() {
                return [detached, connected].concat();
            }
            sleep(PAUSE).await;
        }
    }

    /// Leaves the sessions behind whose clients do not come, and waits until all have ended.
    async fn leave_behind(
        &self,
        schedule: Schedule,
        asleep: Vec<(Arc<str>, Option<Box<str>>)>,
        mut closing: Vec<outbox::Sender>,
    ) {
        let began = Instant::now();
        let pace = schedule.deposits(asleep.len());
        let (total, mut waiting) = (asleep.len(), VecDeque::from(asleep));
        let mut looked = began;
        let mut under_way = JoinSet::new();
        loop {
            let now = Instant::now();
            let elapsed = now - began;
            if now >= looked + LOOK {
                looked = now;
                // A client that was accepted before may have come back to its session since.
                self.end_all(&self.sessions.enter(Phase::Closed)).await;
                if waiting.is_empty() && elapsed >= schedule.patience() {
                    // Whoever has not come by now.
                    waiting = self.leftovers.detached().into();
                }
            }
            while under_way.try_join_next().is_some() {}
            let due = |left: usize| {
                elapsed >= schedule.patience() || total.saturating_sub(left) < pace.due(elapsed)
            };
            while under_way.len() < MAX_DEPOSITS
                && due(waiting.len())
                && let Some((id, socket_id)) = waiting.pop_front()
            {
                let leftovers = Arc::clone(&self.leftovers);
                under_way.spawn(async move { leftovers.leave_behind(id, socket_id).await });
            }
            if self.sessions.count() == 0 && under_way.is_empty() {
                closing.retain(|outbox| !outbox.is_over());
                if closing.is_empty() {
                    return;
                }
            }
            sleep(PAUSE).await;
            self.leftovers.sweep();
        }
    }

    async fn settle(&self) {
        while self.leftovers.is_settling() {
            sleep(PAUSE).await;
        }
    }

    fn end(&self, outboxes: &[outbox::Sender]) {
        for outbox in outboxes {
            outbox.end_connection();
        }
        self.leftovers.sweep();
    }

    async fn end_all(&self, outboxes: &[outbox::Sender]) {
        for batch in outboxes.chunks(BATCH) {
            self.end(batch);
            tokio::task::yield_now().await;
        }
    }
}

/// How many sessions are being left behind at a time.
const MAX_DEPOSITS: usize = 32;

/// How long the node stays when all sessions have gone, so that the last are present elsewhere before they leave here.
const SETTLING: Duration = Duration::from_secs(3);

/// How often the last sessions are looked for.
const LOOK: Duration = Duration::from_millis(250);
