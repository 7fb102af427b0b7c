//! The connection and the deadlines of a resumable session.
//!
//! This is plain code: it calls no session, and time comes in as an argument. Events for the callbacks
//! of the session are queued as [`SessionEvent`]s.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::census::{Census, Status};
use super::config::ResumeConfig;
use super::expiry::{Scheduled, Timer};
use crate::connect_info::Transport;
use crate::progress::after;
use crate::session::DetachReason;

/// The id that a client chose for its session.
pub(super) type SessionId = Arc<str>;

/// What the sessions of a registry share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: ResumeConfig,
    pub(super) census: Arc<Census>,
}

/// An event that is passed to a callback of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionEvent {
    Attached(u64, Transport),
    Reattached,
    Detached(DetachReason),
    RejoinDeadline,
    Ended,
}

#[derive(Debug)]
pub(super) struct State {
    shared: Arc<Shared>,
    timer: Arc<Timer<SessionId>>,
    connection: Connection,
    epoch: u64,
    transport: Transport,
    attached_at: Instant,
    is_rejoin_over: bool,
    /// When conflicts were noticed, within [`CONFLICT_WINDOW`].
    conflicts: Vec<Instant>,
    /// How many WebSockets in a row were cut young.
    short_lived: u32,
    /// Until when the next WebSocket is refused, since they keep dying.
    refused_until: Option<Instant>,
    /// When the session was fenced last.
    fenced_at: Option<Instant>,
    /// Whether the session has ended because it is given to another node.
    is_given: bool,
    /// Not yet applied, in order.
    pending: VecDeque<SessionEvent>,
    scheduled: Scheduled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    Attached,
    /// A long-poll client between two polls, since the last one.
    Idle(Instant),
    /// No connection since then.
    Detached(Instant),
    /// The session is over.
    Ended,
}

/// How the clients of a session have behaved, which another node has to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conduct {
    /// How long ago there were conflicts.
    pub(crate) conflicts: Vec<Duration>,
    /// How many WebSockets in a row were cut young.
    pub(crate) short_lived: u32,
}

impl Connection {
    /// What the session counts as.
    fn status(self) -> Option<Status> {
        match self {
            Self::Attached | Self::Idle(_) => Some(Status::Connected),
            Self::Detached(_) => Some(Status::Detached),
            Self::Ended => None,
        }
    }
}

impl State {
    /// Creates the state of a session that no connection has used yet.
    pub(super) fn new(shared: Arc<Shared>, timer: Arc<Timer<SessionId>>, now: Instant) -> Self {
        shared.census.add(Transport::InMemory, Status::Detached);
        Self {
            shared,
            timer,
            connection: Connection::Detached(now),
            epoch: 0,
            transport: Transport::InMemory,
            attached_at: now,
            is_rejoin_over: true,
            conflicts: Vec::new(),
            short_lived: 0,
            refused_until: None,
            fenced_at: None,
            is_given: false,
            pending: VecDeque::new(),
            scheduled: Scheduled::default(),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn has_ended(&self) -> bool {
        self.connection == Connection::Ended
    }

    /// Since when no client has waited for messages.
    pub(super) fn unused_since(&self) -> Option<Instant> {
        match self.connection {
            Connection::Idle(since) | Connection::Detached(since) => Some(since),
            Connection::Attached | Connection::Ended => None,
        }
    }

    fn is_detached(&self) -> bool {
        matches!(self.connection, Connection::Detached(_))
    }

    /// Returns whether there is no connection, and no other node is likely to take the session in a moment.
    pub(super) fn is_left(&self, now: Instant) -> bool {
        let is_old = |at: Instant| now.duration_since(at) >= OFFER_TTL;
        self.is_detached() && self.fenced_at.is_none_or(is_old)
    }

    /// Orders the sessions of a socket id for eviction, the first one first: sessions that have ended,
    /// then by the time without a client. `None` for a session in use.
    pub(super) fn eviction_order(&self) -> Option<Option<Instant>> {
        if self.has_ended() { Some(None) } else { self.unused_since().map(Some) }
    }

    /// Returns whether two clients keep taking the session from each other.
    pub(super) fn is_in_conflict(&self, now: Instant) -> bool {
        let is_recent = |at: &&Instant| now.duration_since(**at) < CONFLICT_WINDOW;
        self.conflicts.iter().filter(is_recent).count() >= MAX_CONFLICTS
    }

    /// Until when the next WebSocket is to be refused, if they keep dying: one for each that was cut, so that a client with
    /// no other transport is soon back.
    pub(super) fn take_refusal(&mut self) -> Option<Instant> {
        self.refused_until.take()
    }

    /// Returns whether the connection of the current epoch has lasted for long enough to deliver
    /// something.
    pub(super) fn has_lasted(&self, now: Instant) -> bool {
        let is_lost = matches!(self.connection, Connection::Detached(_) | Connection::Ended);
        !is_lost && now.duration_since(self.attached_at) >= DELIVERY
    }

    /// Records that a superseded connection has shown that its client is there.
    pub(super) fn add_conflict(&mut self, now: Instant) {
        self.conflicts.retain(|at| now.duration_since(*at) < CONFLICT_WINDOW);
        self.conflicts.push(now);
    }

    /// Returns how the clients have behaved.
    pub(super) fn conduct(&self, now: Instant) -> Conduct {
        Conduct {
            conflicts: self.conflicts.iter().map(|at| now.duration_since(*at)).collect(),
            short_lived: self.short_lived,
        }
    }

    /// Takes over how the clients have behaved on another node.
    pub(super) fn set_conduct(&mut self, conduct: &Conduct, now: Instant) {
        let recent = conduct.conflicts.iter().filter(|age| **age < CONFLICT_WINDOW);
        let conflicts = recent.filter_map(|age| now.checked_sub(*age)).take(MAX_CONFLICTS);
        self.conflicts = conflicts.collect();
        self.short_lived = conduct.short_lived;
    }

    /// Begins an epoch without a connection, unless a newer one has begun or the session has ended. Returns whether
    /// there was a connection.
    pub(super) fn fence(&mut self, epoch: u64, now: Instant) -> bool {
        if epoch <= self.epoch {
            return false;
        }
        (self.epoch, self.fenced_at) = (epoch, Some(now));
        self.detach(DetachReason::Lost, now)
    }

    /// Ends the session for another node, which continues it: its callbacks are not told.
    pub(super) fn give_away(&mut self) {
        self.set_connection(Connection::Ended, self.transport);
        self.is_given = true;
    }

    /// Returns whether another node has the session, or is about to.
    pub(super) fn is_given(&self) -> bool {
        self.is_given
    }

    /// Begins an epoch, unless a newer one has begun or the session has ended. Returns whether it has
    /// begun.
    pub(super) fn attach(&mut self, epoch: u64, transport: Transport, now: Instant) -> bool {
        let begins = epoch > self.epoch && self.set_connection(Connection::Attached, transport);
        if begins {
            self.epoch = epoch;
            (self.attached_at, self.is_rejoin_over) = (now, false);
            self.pending.push_back(SessionEvent::Attached(epoch, transport));
            self.schedule(now);
        }
        begins
    }

    /// The connection is lost. `was_cut` says whether neither the client nor this node has ended it. Returns whether the
    /// session was attached.
    pub(super) fn lose_connection(
        &mut self,
        reason: DetachReason,
        was_cut: bool,
        now: Instant,
    ) -> bool {
        if self.transport == Transport::WebSocket {
            let config = &self.shared.config;
            let lived = now.duration_since(self.attached_at);
            if lived >= config.flapping_age {
                self.short_lived = 0;
            } else if was_cut {
                self.short_lived = self.short_lived.saturating_add(1);
                let is_flapping =
                    config.flapping_limit > 0 && self.short_lived >= config.flapping_limit;
                self.refused_until = is_flapping.then(|| after(now, config.flapping_pause));
            }
        }
        self.detach(reason, now)
    }

    /// The client waits for messages.
    pub(super) fn set_active(&mut self) {
        self.use_again(Connection::Attached);
    }

    /// The client was there, and does not wait for messages.
    pub(super) fn set_idle(&mut self, now: Instant) {
        self.use_again(Connection::Idle(now));
        self.schedule(now);
    }

    /// The client has been idle for too long. Returns whether this detached the session.
    pub(super) fn detach_idle(&mut self) -> bool {
        match self.connection {
            Connection::Idle(since) => self.detach(DetachReason::Lost, since),
            _ => false,
        }
    }

    fn detach(&mut self, reason: DetachReason, since: Instant) -> bool {
        let is_attached = matches!(self.connection, Connection::Attached | Connection::Idle(_));
        if is_attached {
            self.set_connection(Connection::Detached(since), self.transport);
            self.pending.push_back(SessionEvent::Detached(reason));
            self.schedule(since);
        }
        is_attached
    }

    /// Uses the connection again, which may have been thought lost.
    fn use_again(&mut self, connection: Connection) {
        if matches!(self.connection, Connection::Detached(_)) {
            self.pending.push_back(SessionEvent::Reattached);
        }
        self.set_connection(connection, self.transport);
    }

    /// Ends the session. Returns whether it was there.
    pub(super) fn end(&mut self) -> bool {
        let was_there = self.set_connection(Connection::Ended, self.transport);
        if was_there {
            self.pending.push_back(SessionEvent::Ended);
        }
        was_there
    }

    /// Changes the connection. Returns `false`, and changes nothing, if the session has ended.
    fn set_connection(&mut self, connection: Connection, transport: Transport) -> bool {
        if self.has_ended() {
            return false;
        }
        let (old, new) = (self.connection.status(), connection.status());
        if (old, self.transport) != (new, transport) {
            let census = &self.shared.census;
            new.into_iter().for_each(|status| census.add(transport, status));
            old.into_iter().for_each(|status| census.remove(self.transport, status));
        }
        (self.connection, self.transport) = (connection, transport);
        true
    }

    /// A scheduled visit has come.
    pub(super) fn fired(&mut self, now: Instant) {
        self.scheduled.fired(now);
    }

    /// Returns whether nobody has resumed the session in time.
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        let ttl = self.shared.config.session_ttl;
        self.unused_since().is_some_and(|since| now >= after(since, ttl))
    }

    /// How long acknowledged messages are retained. Without a connection they do not grow old.
    pub(super) fn acknowledged_ttl(&self) -> Option<Duration> {
        (!self.is_detached()).then_some(self.shared.config.acknowledged_ttl)
    }

    /// Queues the end of the rejoin grace, if that is due.
    pub(super) fn check_rejoin(&mut self, now: Instant) {
        if !self.is_rejoin_over && now >= self.rejoin_deadline() {
            self.is_rejoin_over = true;
            self.pending.push_back(SessionEvent::RejoinDeadline);
        }
    }

    fn rejoin_deadline(&self) -> Instant {
        after(self.attached_at, self.shared.config.rejoin_grace)
    }

    /// Schedules a visit for the time when something is due next.
    pub(super) fn schedule(&mut self, now: Instant) {
        let config = &self.shared.config;
        let due = match self.connection {
            Connection::Attached => after(now, config.acknowledged_ttl),
            Connection::Idle(since) | Connection::Detached(since) => {
                after(since, config.session_ttl)
            }
            Connection::Ended => now,
        };
        let due = if self.is_rejoin_over { due } else { due.min(self.rejoin_deadline()) };
        self.scheduled.schedule(&self.timer, due);
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes the next queued event.
    pub(super) fn next_event(&mut self) -> Option<SessionEvent> {
        let event = self.pending.pop_front();
        if event.is_none() {
            // Events are rare: an idle session keeps no allocation for them.
            self.pending = VecDeque::new();
        }
        event
    }
}

/// A connection that was lost sooner says nothing about what it was sent.
const DELIVERY: Duration = Duration::from_secs(1);

/// How long another node may take to prepare for a session that it was offered.
const OFFER_TTL: Duration = Duration::from_secs(2);

/// After so many conflicts within the window, a session id is shared by two clients and the next one
/// gets a session of its own. A client that reconnects after its connection was lost, or that has
/// given it up, causes no conflict: nobody answers on the old connection that it was taken over.
const MAX_CONFLICTS: usize = 8;
pub(super) const CONFLICT_WINDOW: Duration = Duration::from_secs(10);
