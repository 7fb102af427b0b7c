//! What replicas do with each other's messages.
//!
//! Each tells all others what it did since it told them last, as a fragment of its state, and with
//! every heartbeat how far it has seen each replica. Whoever sees by that, or by a gap before what
//! arrived, that something is missing asks the sender for it, who has perhaps it from a third.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::Seen;
use super::entry::Parts;
use super::message::Message;
use super::replicas::Replicas;
use super::state::{Fragment, Log, State};
use super::{Changes, Config, Entry, MAX_NUMBER, Malformed, Outgoing, Replica, Tracker};

/// What a tracker knows for and of the other replicas.
#[derive(Debug, Default)]
pub(super) struct Replication {
    pub(super) config: Config,
    pub(super) own: State,
    log: Log,
    /// How many of its operations the others have been told.
    sent: u64,
    pub(super) others: Replicas,
    last_tick: Option<Duration>,
    last_heartbeat: Option<Duration>,
}

impl Replication {
    pub(super) fn add(&mut self, entry: Entry) {
        self.own.add(entry);
    }

    pub(super) fn remove(&mut self, operation: u64, entry: &Entry) {
        self.own.remove(operation, entry);
        self.log.push(operation, entry.dot(), self.config.max_log);
    }
}

impl Tracker {
    /// Creates a replica that watches others as `config` says.
    pub(crate) fn with_config(replica: Replica, config: Config) -> Self {
        let replication = Replication { config, ..Replication::default() };
        Self { replication, ..Self::new(replica) }
    }

    /// The replica itself. Its incarnation grows if others have taken it for gone.
    pub(crate) fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What the passing of time brings: what to send, and who went down. To be called a few times
    /// in each `heartbeat`. `now` is the time since any start, the same in all calls.
    pub(crate) fn tick(&mut self, now: Duration) -> (Changes, Vec<Outgoing>) {
        let mut changes = Changes::default();
        let slept = self.replication.last_tick.map_or(Duration::ZERO, |last| {
            now.saturating_sub(last).saturating_sub(self.replication.config.heartbeat)
        });
        self.replication.last_tick = Some(now);
        self.replication.others.excuse(slept, now);
        self.replication.others.expire(now, &self.replication.config, &mut changes);
        self.show(&changes);
        (changes, self.announce(now))
    }

    /// Takes a message of another replica, or one of its own, which is ignored.
    pub(crate) fn receive(
        &mut self,
        now: Duration,
        message: &[u8],
    ) -> Result<(Changes, Vec<Outgoing>), Malformed> {
        let message = Message::decode(message)?;
        let (mut changes, mut outgoing) = Default::default();
        self.take(now, message, &mut changes, &mut outgoing);
        self.show(&changes);
        Ok((changes, outgoing))
    }

    fn show(&mut self, changes: &Changes) {
        changes.leaves.iter().for_each(|entry| self.topics.remove(entry));
        changes.joins.iter().for_each(|entry| self.topics.insert(entry.clone()));
    }

    fn take(
        &mut self,
        now: Duration,
        message: Message,
        changes: &mut Changes,
        outgoing: &mut Vec<Outgoing>,
    ) {
        let Message { from, clock, fragments, more, request, gone } = message;
        if self.is_of_its_own(&from) {
            return;
        }
        if let Some((gone, newest)) = gone {
            self.renew(&gone, newest, changes);
        }
        if self.replication.others.is_past(&from) {
            outgoing.extend(self.tell_gone(&from));
            return;
        }
        let is_new = self.replication.others.get(&from).is_none();
        if self.replication.others.admit(&from, now, changes).is_none() {
            return;
        }
        for fragment in fragments {
            self.merge(now, fragment, changes);
        }
        // A fragment may have told of its successor.
        let Some(peer) = self.replication.others.get_mut(&from) else { return };
        if peer.hear(now, changes) || is_new {
            outgoing.push(self.send(Some(&from), |message| message.clock = self.clock()));
        }
        outgoing.extend(self.ask(now, &from, clock, more));
        outgoing.extend(self.answer(&from, request));
    }

    fn merge(&mut self, now: Duration, fragment: Fragment, changes: &mut Changes) {
        if self.is_of_its_own(&fragment.replica) {
            return;
        }
        let Some(peer) = self.replication.others.admit(&fragment.replica, now, changes) else {
            return;
        };
        let oldest = fragment.entries.iter().map(Entry::age).max();
        self.age = self.age.max(oldest.unwrap_or_default());
        peer.merge(fragment, changes);
    }

    /// What the others have not been told yet, and a heartbeat if it is time.
    fn announce(&mut self, now: Duration) -> Vec<Outgoing> {
        let is_due = |last| now.saturating_sub(last) >= self.replication.config.heartbeat;
        let mut is_due = self.replication.last_heartbeat.is_none_or(is_due);
        let mut fragments = Vec::new();
        if self.replication.log.reaches(self.replication.sent) {
            fragments = self.missing_of_own(&Seen::up_to(self.replication.sent));
        } else {
            // The heartbeat shows it, and everyone asks for what he lacks.
            is_due = true;
        }
        self.replication.sent = self.replication.own.seen().prefix();
        let mut outgoing = self.send_all(None, fragments, |last| {
            if is_due {
                last.clock = self.clock();
            }
        });
        if is_due {
            self.replication.last_heartbeat = Some(now);
            if outgoing.is_empty() {
                outgoing.push(self.send(None, |message| message.clock = self.clock()));
            }
        }
        outgoing
    }

    /// Asks for what the sender of a message has and this replica has not.
    fn ask(
        &mut self,
        now: Duration,
        from: &Replica,
        clock: Vec<(Replica, u64)>,
        more: bool,
    ) -> Option<Outgoing> {
        let mut request: BTreeMap<Replica, Seen> = BTreeMap::new();
        for (replica, to) in clock {
            let seen = self.replication.others.seen(&replica);
            let is_wanted =
                !self.is_of_its_own(&replica) && !self.replication.others.is_past(&replica);
            if is_wanted && seen.prefix() < to {
                request.insert(replica, seen);
            }
        }
        let seen = self.replication.others.seen(from);
        if !more && seen.has_gap() {
            request.insert(from.clone(), seen);
        }
        let pause = self.replication.config.heartbeat / 2;
        let asks = !request.is_empty() && self.replication.others.get_mut(from)?.ask(now, pause);
        asks.then(|| {
            self.send(Some(from), |message| message.request = request.into_iter().collect())
        })
    }

    /// Sends what is missing, as far as it is here.
    fn answer(&self, from: &Replica, request: Vec<(Replica, Seen)>) -> Vec<Outgoing> {
        let missing = |(replica, known): (Replica, Seen)| {
            if replica == self.replica {
                return self.missing_of_own(&known);
            }
            let peer = self.replication.others.get(&replica);
            let size = self.replication.config.max_message;
            peer.map(|peer| peer.state().missing(&replica, &known, None, size)).unwrap_or_default()
        };
        self.send_all(Some(from), request.into_iter().flat_map(missing).collect(), |_| ())
    }

    fn missing_of_own(&self, known: &Seen) -> Vec<Fragment> {
        self.replication.own.missing(
            &self.replica,
            known,
            Some(&self.replication.log),
            self.replication.config.max_message,
        )
    }

    /// Tells a replica that it is past, unless another one lives in its place.
    fn tell_gone(&self, from: &Replica) -> Option<Outgoing> {
        let newest = self.replication.others.newest(&from.name)?;
        let is_replaced = self.replication.others.is_up(&from.name);
        let gone = Some((from.clone(), newest));
        (!is_replaced).then(|| self.send(Some(from), |message| message.gone = gone))
    }

    /// Begins a new incarnation, if others have given up this one: its entries are made anew.
    fn renew(&mut self, gone: &Replica, newest: u64, changes: &mut Changes) {
        let incarnation = newest.max(gone.incarnation) + 1;
        let is_replaced = self.replication.others.is_up(&gone.name);
        if *gone != self.replica || is_replaced || incarnation > MAX_NUMBER {
            return;
        }
        self.replica.incarnation = incarnation;
        (self.replication.own, self.replication.log, self.replication.sent) = Default::default();
        self.operations = self.owned.len() as u64;
        let mut entries: Vec<_> = self.owned.values_mut().collect();
        entries.sort_unstable();
        for (dot, entry) in (1..).zip(entries) {
            let parts = Parts {
                age: entry.age(),
                topic: entry.topic().clone(),
                key: entry.key().clone(),
                meta: entry.meta().clone(),
                prev: Some(entry.phx_ref().clone()),
            };
            let new = Entry::new(&self.replica, dot, parts);
            self.replication.own.add(new.clone());
            changes.joins.push(new.clone());
            changes.leaves.push(std::mem::replace(entry, new));
        }
    }

    /// Whether a replica is this one or was it before a restart.
    fn is_of_its_own(&self, replica: &Replica) -> bool {
        replica.name == self.replica.name && replica.incarnation <= self.replica.incarnation
    }

    fn clock(&self) -> Vec<(Replica, u64)> {
        let own = (self.replica.clone(), self.replication.own.seen().prefix());
        std::iter::once(own)
            .chain(self.replication.others.clock())
            .filter(|(_, to)| *to > 0)
            .collect()
    }

    fn send(&self, to: Option<&Replica>, fill: impl FnOnce(&mut Message)) -> Outgoing {
        let mut message = Message::new(self.replica.clone());
        fill(&mut message);
        Outgoing { to: to.cloned(), message: message.encode() }
    }

    /// A message for each fragment; `fill` adds to the last one.
    fn send_all(
        &self,
        to: Option<&Replica>,
        fragments: Vec<Fragment>,
        fill: impl Fn(&mut Message),
    ) -> Vec<Outgoing> {
        let last = fragments.len().saturating_sub(1);
        let send = |(index, fragment)| {
            self.send(to, |message| {
                message.fragments = vec![fragment];
                message.more = index < last;
                if index == last {
                    fill(message);
                }
            })
        };
        fragments.into_iter().enumerate().map(send).collect()
    }
}
