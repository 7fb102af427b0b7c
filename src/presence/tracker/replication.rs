//! Replication: broadcast of deltas, and anti-entropy.
//!
//! Each replica broadcasts the operations it has performed since its last broadcast as a delta of
//! its own state, and with every heartbeat its vector clock. A replica that learns from a clock,
//! or from a gap before a delta, that it lacks operations requests them from the sender. The sender
//! may answer for a third replica, so operations spread even between replicas that cannot reach
//! each other.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Tracker;
use super::clock::{CausalContext, MAX_COUNTER};
use super::entry::{Diff, Entry, Fields, Replica};
use super::message::{DecodeError, Message};
use super::state::Fragment;

/// A message for other replicas.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The recipient, or `None` for a broadcast to all other replicas.
    pub(crate) to: Option<Replica>,
    /// The message as JSON.
    pub(crate) message: String,
}

impl Tracker {
    /// Advances the time. Returns the entries of replicas that went down, and the messages to send.
    ///
    /// To be called several times per heartbeat interval. `now` is the time since an arbitrary
    /// start, which must be the same for all calls.
    pub(crate) fn tick(&mut self, now: Duration) -> (Diff, Vec<Outgoing>) {
        let mut diff = Diff::default();
        let pause = self.last_tick.map_or(Duration::ZERO, |last| {
            now.saturating_sub(last).saturating_sub(self.config.heartbeat)
        });
        self.last_tick = Some(now);
        self.replicas.extend_deadlines(pause, now);
        self.replicas.expire(now, self.config.down_after, self.config.gone_after, &mut diff);
        self.topics.apply(&diff);
        (diff, self.flush(now))
    }

    /// Handles a message of another replica. Returns its effect on the visible entries, and the
    /// messages to send in response.
    ///
    /// A replica may receive its own messages, which it ignores.
    pub(crate) fn receive(
        &mut self,
        now: Duration,
        message: &[u8],
    ) -> Result<(Diff, Vec<Outgoing>), DecodeError> {
        let message = Message::decode(message)?;
        let (mut diff, mut outgoing) = Default::default();
        self.handle(now, message, &mut diff, &mut outgoing);
        self.topics.apply(&diff);
        Ok((diff, outgoing))
    }

    fn handle(
        &mut self,
        now: Duration,
        message: Message,
        diff: &mut Diff,
        outgoing: &mut Vec<Outgoing>,
    ) {
        let Message { from, clock, fragments, more, request, gone } = message;
        if self.is_local(&from) {
            return;
        }
        if let Some((gone, newest)) = gone {
            self.reincarnate(&gone, newest, diff);
        }
        if self.replicas.is_obsolete(&from) {
            outgoing.extend(self.gone_notice(&from));
            return;
        }
        let is_new = self.replicas.get(&from).is_none();
        if self.replicas.admit(&from, now, diff).is_none() {
            return;
        }
        for fragment in fragments {
            self.merge(now, fragment, diff);
        }
        // A fragment may have introduced a newer incarnation of the sender.
        let Some(peer) = self.replicas.get_mut(&from) else { return };
        if peer.mark_up(now, diff) || is_new {
            outgoing.push(self.message(Some(&from), |message| message.clock = self.clock()));
        }
        outgoing.extend(self.request_missing(now, &from, clock, more));
        outgoing.extend(self.answer(&from, request));
    }

    fn merge(&mut self, now: Duration, fragment: Fragment, diff: &mut Diff) {
        if self.is_local(&fragment.replica) {
            return;
        }
        let Some(peer) = self.replicas.admit(&fragment.replica, now, diff) else { return };
        let newest = fragment.entries.iter().map(Entry::timestamp).max();
        self.lamport = self.lamport.max(newest.unwrap_or_default());
        peer.merge(fragment, diff);
    }

    /// Broadcasts the local operations not sent yet, and the vector clock if a heartbeat is due.
    fn flush(&mut self, now: Duration) -> Vec<Outgoing> {
        let is_due = |last| now.saturating_sub(last) >= self.config.heartbeat;
        let mut is_due = self.last_heartbeat.is_none_or(is_due);
        let mut fragments = Vec::new();
        if self.removal_log.reaches(self.sent_to) {
            fragments = self.local_delta(&CausalContext::up_to(self.sent_to));
        } else {
            // Instead of broadcasting the full state, let each replica request what it lacks.
            is_due = true;
        }
        self.sent_to = self.local.context().prefix();
        let mut outgoing = self.messages(None, fragments, |last| {
            if is_due {
                last.clock = self.clock();
            }
        });
        if is_due {
            self.last_heartbeat = Some(now);
            if outgoing.is_empty() {
                outgoing.push(self.message(None, |message| message.clock = self.clock()));
            }
        }
        outgoing
    }

    /// Requests the operations that the sender of a message has and this replica lacks.
    fn request_missing(
        &mut self,
        now: Duration,
        from: &Replica,
        clock: Vec<(Replica, u64)>,
        more: bool,
    ) -> Option<Outgoing> {
        let mut request: BTreeMap<Replica, CausalContext> = BTreeMap::new();
        for (replica, prefix) in clock {
            let context = self.replicas.context(&replica);
            let is_wanted = !self.is_local(&replica) && !self.replicas.is_obsolete(&replica);
            if is_wanted && context.prefix() < prefix {
                request.insert(replica, context);
            }
        }
        let context = self.replicas.context(from);
        if !more && context.has_gap() {
            request.insert(from.clone(), context);
        }
        // Give the sender time to answer before asking it again.
        let interval = self.config.heartbeat / 2;
        let may_request =
            !request.is_empty() && self.replicas.get_mut(from)?.start_request(now, interval);
        may_request.then(|| {
            self.message(Some(from), |message| message.request = request.into_iter().collect())
        })
    }

    /// Answers a request with the operations that this replica has.
    fn answer(&self, from: &Replica, request: Vec<(Replica, CausalContext)>) -> Vec<Outgoing> {
        let delta = |(replica, known): (Replica, CausalContext)| {
            if replica == self.replica {
                return self.local_delta(&known);
            }
            let peer = self.replicas.get(&replica);
            let max_size = self.config.max_message;
            peer.map(|peer| peer.state().delta(&replica, &known, None, max_size))
                .unwrap_or_default()
        };
        self.messages(Some(from), request.into_iter().flat_map(delta).collect(), |_| ())
    }

    fn local_delta(&self, known: &CausalContext) -> Vec<Fragment> {
        self.local.delta(&self.replica, known, Some(&self.removal_log), self.config.max_message)
    }

    /// Informs an obsolete replica that it is gone, unless a newer incarnation of its node is up.
    fn gone_notice(&self, from: &Replica) -> Option<Outgoing> {
        let newest = self.replicas.newest_incarnation(&from.name)?;
        let is_replaced = self.replicas.is_up(&from.name);
        let gone = Some((from.clone(), newest));
        (!is_replaced).then(|| self.message(Some(from), |message| message.gone = gone))
    }

    /// Starts a new incarnation if another replica considers the local one gone.
    ///
    /// All owned entries are added anew, since the other replica admits none of the old ones.
    fn reincarnate(&mut self, gone: &Replica, newest: u64, diff: &mut Diff) {
        let incarnation = newest.max(gone.incarnation) + 1;
        let is_replaced = self.replicas.is_up(&gone.name);
        if *gone != self.replica || is_replaced || incarnation > MAX_COUNTER {
            return;
        }
        self.replica.incarnation = incarnation;
        (self.local, self.removal_log, self.sent_to) = Default::default();
        let mut entries: Vec<_> = self.owned.values_mut().collect();
        entries.sort_unstable();
        for (dot, entry) in (1..).zip(entries) {
            let fields = Fields {
                timestamp: entry.timestamp(),
                topic: entry.topic().clone(),
                key: entry.key().clone(),
                meta: entry.meta().clone(),
                prev: Some(entry.phx_ref().clone()),
            };
            let new = Entry::new(&self.replica, dot, fields);
            self.local.add(new.clone());
            diff.joins.push(new.clone());
            diff.leaves.push(std::mem::replace(entry, new));
        }
    }

    /// Returns whether the replica is this one or an earlier incarnation of it.
    fn is_local(&self, replica: &Replica) -> bool {
        replica.name == self.replica.name && replica.incarnation <= self.replica.incarnation
    }

    /// The vector clock, without replicas of which nothing has been observed.
    fn clock(&self) -> Vec<(Replica, u64)> {
        let local = (self.replica.clone(), self.local.context().prefix());
        std::iter::once(local).chain(self.replicas.clock()).filter(|(_, to)| *to > 0).collect()
    }

    fn message(&self, to: Option<&Replica>, fill: impl FnOnce(&mut Message)) -> Outgoing {
        let mut message = Message::new(self.replica.clone());
        fill(&mut message);
        Outgoing { to: to.cloned(), message: message.encode() }
    }

    /// Creates one message per fragment. `fill` completes the last one.
    fn messages(
        &self,
        to: Option<&Replica>,
        fragments: Vec<Fragment>,
        fill: impl Fn(&mut Message),
    ) -> Vec<Outgoing> {
        let last = fragments.len().saturating_sub(1);
        let message = |(index, fragment)| {
            self.message(to, |message| {
                message.fragments = vec![fragment];
                message.more = index < last;
                if index == last {
                    fill(message);
                }
            })
        };
        fragments.into_iter().enumerate().map(message).collect()
    }
}
