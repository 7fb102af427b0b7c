//! [`Subscriber`]: how a channel or a task receives the broadcasts of a topic.

use std::sync::{Arc, Weak};
use std::task::Waker;

use super::Topic;
use super::broadcast::Broadcast;
use super::heard::Heard;
use super::replay::ReplayLog;
use super::resting::{NoInbox, Rest};
use crate::effects::Effects;
use crate::history::Position;
use crate::responder::Responder;
use crate::serializer::Version;

/// Receives the broadcasts that a channel or a task handles itself. Its address identifies the
/// subscriber.
///
/// It is called under the topic's lock and must not block.
pub(crate) trait Inbox: Send + Sync {
    /// Enqueues a broadcast, and returns the task that the caller has to wake once it holds no
    /// lock.
    fn deliver(&self, broadcast: &Arc<Broadcast>) -> Result<Option<Waker>, Undelivered>;

    /// Broadcasts may have been lost on their way from other nodes. Called without a lock.
    fn miss(&self) {}
}

/// Error returned by [`Inbox::deliver`]: the channel has ended, or has no room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Undelivered;

/// A subscriber of a topic: a channel that has joined it, with its client, or an inbox alone.
pub(crate) struct Subscriber {
    /// `None` if every event goes to the inbox.
    client: Option<Responder>,
    inbox: Arc<dyn Inbox>,
    /// The events that go to the inbox instead of the client.
    intercept: &'static [&'static str],
    delivery: Delivery,
    /// What the client has received elsewhere, and may not have come here yet.
    ahead: Option<Box<Ahead>>,
}

/// What a client has received elsewhere.
struct Ahead {
    /// On another node.
    heard: Heard,
    /// From the history of the topic: up to there.
    until: Option<Position>,
}

/// How broadcasts reach a subscriber.
enum Delivery {
    /// Each at once.
    Live,
    /// Not until it catches up: the client is away. `since` is the position in the topic's log of
    /// the first broadcast that it has not received.
    Dormant { since: u64, resends_volatile: bool },
    /// Not until there is a client: another subscriber takes its place.
    Resting(Box<Rest>),
    /// Not at all: the subscription has ended, or the log no longer holds what the client has
    /// missed.
    Closed,
}

impl Ahead {
    /// Returns whether the client has received a broadcast.
    fn covers(&self, broadcast: &Broadcast) -> bool {
        let is_in = |until: Position| {
            let position = broadcast.position();
            position.is_some_and(|it| it.epoch == until.epoch && it.number <= until.number)
        };
        broadcast.origin().is_some_and(|origin| self.heard.covers(origin))
            || self.until.is_some_and(is_in)
    }
}

impl Subscriber {
    pub(crate) fn new(
        client: Responder,
        inbox: Arc<dyn Inbox>,
        intercept: &'static [&'static str],
    ) -> Self {
        Self { client: Some(client), inbox, intercept, delivery: Delivery::Live, ahead: None }
    }

    /// Creates a subscriber without a client, which is never dormant.
    pub(super) fn inbox(inbox: Arc<dyn Inbox>) -> Self {
        Self { client: None, inbox, intercept: &[], delivery: Delivery::Live, ahead: None }
    }

    /// Creates a subscriber that rests from its first moment.
    pub(super) fn resting(log: &mut ReplayLog<Arc<Broadcast>>) -> Self {
        let delivery = Delivery::Resting(Box::new(Rest::begin(log)));
        Self { client: None, inbox: Arc::new(NoInbox), intercept: &[], delivery, ahead: None }
    }

    /// Leaves out what the client has received on another node, and of the history of the topic `until` there.
    pub(super) fn set_ahead(&mut self, heard: Heard, until: Option<Position>) {
        let is_ahead = until.is_some() || !heard.is_empty();
        self.ahead = is_ahead.then(|| Box::new(Ahead { heard, until }));
    }

    /// What rests.
    pub(super) fn rest_mut(&mut self) -> Option<&mut Rest> {
        match &mut self.delivery {
            Delivery::Resting(rest) => Some(rest),
            _ => None,
        }
    }

    /// The inbox.
    pub(super) fn inbox_ref(&self) -> &Arc<dyn Inbox> {
        &self.inbox
    }

    /// A number of the form in which the client receives what is kept, below twice the number of versions.
    pub(super) fn encoding(&self) -> Option<usize> {
        let client = self.client.as_ref()?;
        let positioned = if client.positions.are_wanted() { Version::COUNT } else { 0 };
        Some(client.version.index() + positioned)
    }

    /// A broadcast may have been missed. Returns the inbox that has to be told: if the client has a resumable session and
    /// `all_are_told`, or it was interrupted.
    pub(super) fn miss(&mut self, all_are_told: bool) -> Option<Weak<dyn Inbox>> {
        if let Some(rest) = self.rest_mut() {
            rest.miss();
        }
        let client = self.client.as_ref()?;
        let is_told = (all_are_told && client.resumable)
            || (self.is_closed() && client.positions.are_wanted());
        is_told.then(|| Arc::downgrade(&self.inbox))
    }

    /// Messages of the topic's history are missing. A client that wants positions receives nothing more.
    pub(super) fn interrupt(&mut self, log: &mut ReplayLog<Arc<Broadcast>>) {
        if let Some(rest) = self.rest_mut() {
            rest.miss();
        } else if self.client.as_ref().is_some_and(|client| client.positions.are_wanted()) {
            self.close(log);
        }
    }

    /// Up to where it has received the history of the topic, given up to where that was delivered. `None` if something was
    /// missed.
    pub(super) fn position(&self, delivered: Option<Position>) -> Option<Position> {
        if self.is_closed() {
            return None;
        }
        // What it has read may not have been delivered yet.
        let Some(until) = self.ahead.as_ref().and_then(|ahead| ahead.until) else {
            return delivered;
        };
        let delivered = delivered.filter(|delivered| delivered.epoch == until.epoch)?;
        Some(if delivered.number > until.number { delivered } else { until })
    }

    /// Whether it receives nothing any more.
    fn is_closed(&self) -> bool {
        matches!(self.delivery, Delivery::Closed)
    }

    /// See [`outbox::Sender::prefetch`](tower_channels_transports::outbox::Sender::prefetch).
    pub(super) fn prefetch(&self) {
        if let (Delivery::Live, Some(client)) = (&self.delivery, &self.client) {
            client.outbox.prefetch();
        }
    }

    /// Takes the broadcast that is being delivered.
    pub(super) fn receive(
        &mut self,
        broadcast: &Arc<Broadcast>,
        from: Option<&Arc<dyn Inbox>>,
        log: &mut ReplayLog<Arc<Broadcast>>,
        effects: &mut Effects,
    ) {
        if let Delivery::Dormant { since, resends_volatile } = self.delivery {
            let is_kept = if broadcast.is_volatile() { resends_volatile } else { true };
            if is_kept && !self.is(from) && !log.has_evicted(since) {
                return;
            }
            // It misses a volatile broadcast that is not sent anew, or sends one itself.
            self.catch_up(log, log.end(false), effects);
        }
        if let Delivery::Live = self.delivery {
            if self.is(from) {
                self.skip_own(broadcast, effects);
            } else {
                self.deliver(broadcast, effects);
            }
            if self.ahead.is_some() {
                self.fall_behind(broadcast);
            }
        } else if let Some(rest) = self.rest_mut()
            && !broadcast.is_volatile()
        {
            rest.receive(from, log);
        }
    }

    /// Becomes dormant, unless something goes to its inbox; returns whether it is. `reached` is whether the
    /// broadcast that is being delivered, if there is one, has reached it already.
    pub(super) fn make_dormant(
        &mut self,
        resends_volatile: bool,
        log: &mut ReplayLog<Arc<Broadcast>>,
        reached: bool,
    ) -> bool {
        if let Delivery::Live = self.delivery
            && self.client.is_some()
            && self.intercept.is_empty()
        {
            log.hold();
            self.delivery = Delivery::Dormant { since: log.end(reached), resends_volatile };
        }
        matches!(self.delivery, Delivery::Dormant { .. })
    }

    /// Receives what it missed before position `end`, and becomes live. If the log no longer has
    /// all of it, the outbox is closed, as when so much waits there.
    pub(super) fn catch_up(
        &mut self,
        log: &mut ReplayLog<Arc<Broadcast>>,
        end: u64,
        effects: &mut Effects,
    ) {
        let Delivery::Dormant { since, .. } = self.delivery else { return };
        if log.has_evicted(since) {
            self.close(log);
            self.client.iter().for_each(|client| effects.overflow(&client.outbox));
            return;
        }
        self.delivery = Delivery::Live;
        let missed = log.range(since, end);
        effects.replay(missed.len() as u64);
        missed.for_each(|broadcast| self.deliver(broadcast, effects));
        log.release();
    }

    /// A broadcast has come: the client may not be ahead any more.
    fn fall_behind(&mut self, broadcast: &Broadcast) {
        let Some(ahead) = &mut self.ahead else { return };
        if let Some(origin) = broadcast.origin() {
            ahead.heard.remove_reached(origin);
        }
        if let (Some(position), Some(until)) = (broadcast.position(), ahead.until)
            && (position.epoch != until.epoch || position.number >= until.number)
        {
            ahead.until = None;
        }
        if ahead.heard.is_empty() && ahead.until.is_none() {
            self.ahead = None;
        }
    }

    /// Receives what it has missed and what is being delivered, and then nothing any more. `reached` is whether the
    /// delivery has reached it already. Returns what it has received, here and before.
    pub(super) fn finish(
        &mut self,
        topic: &mut Topic,
        reached: bool,
        effects: &mut Effects,
    ) -> Heard {
        match self.delivery {
            Delivery::Dormant { .. } => {
                let end = topic.log.end(reached || !topic.is_from(&self.inbox));
                self.catch_up(&mut topic.log, end, effects);
            }
            Delivery::Live if !reached && !topic.is_from(&self.inbox) => {
                topic.log.delivered().into_iter().for_each(|it| self.deliver(it, effects));
            }
            _ => {}
        }
        self.close(&mut topic.log);
        let mut heard = topic.heard.clone();
        let ahead = self.ahead.iter().flat_map(|ahead| ahead.heard.iter());
        ahead.for_each(|origin| heard.add(origin));
        heard
    }

    /// Receives nothing any more.
    pub(super) fn close(&mut self, log: &mut ReplayLog<Arc<Broadcast>>) {
        if let Delivery::Dormant { .. } | Delivery::Resting(_) = self.delivery {
            log.release();
        }
        self.delivery = Delivery::Closed;
    }

    pub(super) fn deliver(&mut self, broadcast: &Arc<Broadcast>, effects: &mut Effects) {
        if let Delivery::Closed = self.delivery {
            return;
        }
        if self.ahead.as_ref().is_some_and(|ahead| ahead.covers(broadcast)) {
            return;
        }
        match &self.client {
            Some(client) if client.positions.are_wanted() && broadcast.position().is_some() => {
                self.deliver_kept(broadcast, effects);
            }
            Some(client) if !self.intercept.contains(&broadcast.event()) => {
                match broadcast.encode(client.version) {
                    Some(message) => effects.enqueue(&client.outbox, message.clone()),
                    None => effects.skip(),
                }
            }
            _ => match self.inbox.deliver(broadcast) {
                Ok(waker) => effects.wake(waker),
                Err(Undelivered) => effects.drop_intercept(),
            },
        }
    }

    /// Delivers a broadcast that is kept, to a client that wants positions. If the channel intercepts any event, all come
    /// through it, and if there is no room for one, none that follows: a client that knows a position has everything
    /// before it.
    fn deliver_kept(&mut self, broadcast: &Arc<Broadcast>, effects: &mut Effects) {
        if !self.intercept.is_empty() {
            match self.inbox.deliver(broadcast) {
                Ok(waker) => effects.wake(waker),
                Err(Undelivered) => {
                    effects.drop_intercept();
                    effects.miss(&self.inbox);
                    self.delivery = Delivery::Closed;
                }
            }
            return;
        }
        let Some(client) = &self.client else { return };
        let Some([message, position]) = broadcast.encode_with_position(client) else { return };
        if message.is_none() {
            effects.skip();
        }
        let messages = message.into_iter().chain(position);
        messages.for_each(|message| effects.enqueue(&client.outbox, message));
    }

    /// Leaves out a broadcast of the channel's own. A client that wants positions is told that it has it.
    fn skip_own(&self, broadcast: &Broadcast, effects: &mut Effects) {
        if let (Some(client), Some(position)) = (&self.client, broadcast.position())
            && client.positions.are_wanted()
            // Behind what still waits for the channel.
            && self.intercept.is_empty()
            && let Some(message) = client.encode_position(broadcast.topic(), position)
        {
            effects.enqueue(&client.outbox, message);
        }
    }

    #[cfg(test)]
    pub(super) fn outbox(&self) -> &tower_channels_transports::outbox::Sender {
        &self.client.as_ref().expect("a client").outbox
    }

    fn is(&self, inbox: Option<&Arc<dyn Inbox>>) -> bool {
        inbox.is_some_and(|inbox| Arc::as_ptr(inbox).addr() == Arc::as_ptr(&self.inbox).addr())
    }
}
