//! [`Remembered`]: the topics with a history that a client has joined, so that another node can go on with them.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use smol_str::SmolStr;
use tower_channels_transports::{limited, outbox};

use super::mailbox;
use crate::cluster::claims::{LeftTopic, Look, MAX_NAMES, MAX_TOPICS, Recoverable};
use crate::cluster::questions::EndpointPeers;
use crate::history::Position;
use crate::telemetry::TOPICS_NOT_REMEMBERED;

/// What the record of a resumable session says of its topics, for a client that does not name positions itself.
pub(crate) struct Remembered {
    peers: Arc<EndpointPeers>,
    id: Arc<str>,
    outbox: outbox::Sender,
    state: Mutex<State>,
}

/// Plain code, but for what it asks of the outbox and the mailboxes.
struct State {
    topics: Vec<Remember>,
    /// What their names have in bytes.
    names: usize,
    /// Grows with each join.
    joins: u64,
    is_attached: bool,
    /// The number up to which the client has everything; 0 if none is known.
    number: u64,
    /// When that was so.
    at: u64,
    mark: Option<Mark>,
    has_changed: bool,
}

/// A topic.
struct Remember {
    topic: SmolStr,
    /// Everything behind it is the client's.
    position: Position,
    /// Whether the client knows that it has joined: of any other topic nothing is told to another node.
    is_known: bool,
    /// Which join it was.
    join: u64,
    /// Of its channel; `None` until the client has joined here what it had joined on a node that is gone.
    mailbox: Option<mailbox::Sender>,
    /// Whether its channel may still handle what it has received before the mark.
    is_busy: bool,
}

/// A moment before which everything is to be received by the client, and what was delivered by then.
struct Mark {
    number: u64,
    at: u64,
    joins: u64,
    /// Once no channel is busy.
    moment: Option<outbox::Moment>,
}

/// A client that has not received for so many milliseconds what it was sent does not hold up the others.
const PATIENCE: u64 = 5000;

impl Remembered {
    /// Begins to remember a session, which has a connection. `left` is what is known of it from a node that is gone; it
    /// `continues` that.
    pub(crate) fn new(
        peers: Arc<EndpointPeers>,
        id: Arc<str>,
        outbox: outbox::Sender,
        left: Vec<LeftTopic>,
        continues: bool,
    ) -> Arc<Self> {
        let await_join = |it: LeftTopic| Remember {
            position: it.position(),
            topic: it.topic.into(),
            is_known: true,
            join: 0,
            mailbox: None,
            is_busy: true,
        };
        // There is one copy of it on this node.
        let id = peers.own_id(&id).unwrap_or(id);
        let topics: Vec<_> = left.into_iter().take(MAX_TOPICS).map(await_join).collect();
        let names = topics.iter().map(|it| it.topic.len()).sum();
        let state = State {
            topics,
            names,
            joins: 0,
            is_attached: true,
            number: 0,
            at: 0,
            mark: None,
            has_changed: false,
        };
        let this = Arc::new(Self { peers, id, outbox, state: Mutex::new(state) });
        let recoverable: Arc<dyn Recoverable> = Arc::clone(&this) as _;
        let recoverable: Weak<dyn Recoverable> = Arc::downgrade(&recoverable);
        this.peers.follow(&this.id, recoverable, continues);
        this
    }

    /// Whether the session has a connection: it has one now, or has lost it.
    pub(crate) fn set_attached(&self, is_attached: bool) {
        let mut state = self.state.lock();
        (state.is_attached, state.mark) = (is_attached, None);
    }

    /// Returns from where a topic goes on that the client had joined on a node that is gone, and not yet here.
    pub(crate) fn awaited(&self, topic: &str) -> Option<Position> {
        let state = self.state.lock();
        let awaited = state.topics.iter().find(|it| it.topic == topic && it.mailbox.is_none());
        awaited.map(|it| it.position)
    }

    /// The client has joined a topic, and everything behind the position is its. If it `is_known`, it knows it already.
    pub(crate) fn join(
        &self,
        topic: &SmolStr,
        position: Position,
        is_known: bool,
        mailbox: mailbox::Sender,
    ) {
        let mut state = self.state.lock();
        state.remove(topic);
        let fits = state.topics.len() < MAX_TOPICS && state.names + topic.len() <= MAX_NAMES;
        if !fits {
            drop(state);
            TOPICS_NOT_REMEMBERED.add(1);
            return limited!(
                WARN,
                ?topic,
                "too many topics of a session: one begins anew if this node dies"
            );
        }
        state.names += topic.len();
        state.joins += 1;
        let join = state.joins;
        let mailbox = Some(mailbox);
        let topic = topic.clone();
        if state.topics.len() == state.topics.capacity() {
            // A vector begins with room for four: most clients have one or two.
            let more = state.topics.len().max(1);
            state.topics.reserve_exact(more);
        }
        state.topics.push(Remember { topic, position, is_known, join, mailbox, is_busy: false });
        if is_known {
            // What it has missed comes behind the mark.
            state.mark = None;
        }
        drop(state);
        if is_known {
            self.peers.change_topics(&self.id);
        } else {
            self.peers.expect_topics(&self.id);
        }
    }

    /// The client has left a topic, or its channel has ended.
    pub(crate) fn leave(&self, topic: &str) {
        if self.state.lock().remove(topic) {
            self.peers.change_topics(&self.id);
        }
    }

    /// The client has not joined in time what it had joined on a node that is gone.
    pub(crate) fn end_awaited(&self) {
        let mut state = self.state.lock();
        let before = state.topics.len();
        state.topics.retain(|it| it.mailbox.is_some());
        state.names = state.topics.iter().map(|it| it.topic.len()).sum();
        let has_changed = state.topics.len() < before;
        drop(state);
        if has_changed {
            self.peers.change_topics(&self.id);
        }
    }

    /// The session goes to another node, which remembers it from now on. Returns the topics that were not joined here, but
    /// on a node before that is gone.
    pub(crate) fn move_away(&self) -> Vec<LeftTopic> {
        let mut state = self.state.lock();
        let topics = std::mem::take(&mut state.topics);
        state.names = 0;
        drop(state);
        let awaited = topics.iter().filter(|it| it.mailbox.is_none());
        awaited.map(|it| LeftTopic::new(&it.topic, it.position)).collect()
    }
}

impl Recoverable for Remembered {
    fn topics(&self) -> Vec<LeftTopic> {
        let state = self.state.lock();
        let known = state.topics.iter().filter(|it| it.is_known);
        known.map(|it| LeftTopic::new(&it.topic, it.position)).collect()
    }

    fn look(&self, number: u64, now: u64) -> Look {
        let state = &mut *self.state.lock();
        state.look(&self.outbox, number, now);
        let since = state.mark.as_ref().map_or(state.at, |mark| mark.at);
        Look {
            number: state.topics.iter().any(|it| it.is_known).then_some(state.number),
            is_behind: !state.is_attached || now.saturating_sub(since) > PATIENCE,
            is_joining: state.topics.iter().any(|it| !it.is_known),
            has_changed: std::mem::take(&mut state.has_changed),
        }
    }
}

impl State {
    fn remove(&mut self, topic: &str) -> bool {
        let Some(at) = self.topics.iter().position(|it| it.topic == topic) else { return false };
        self.topics.remove(at);
        self.names = self.names.saturating_sub(topic.len());
        true
    }

    /// Looks how far the client has received what was delivered. Once it has everything from before the last mark, the
    /// next one is set; mostly it has everything from before that, too.
    fn look(&mut self, outbox: &outbox::Sender, number: u64, now: u64) {
        if !self.is_attached || self.topics.is_empty() {
            return;
        }
        loop {
            let mut mark = self.mark.take().unwrap_or_else(|| self.mark(number, now));
            if !self.has_arrived(&mut mark, outbox) {
                self.mark = Some(mark);
                return;
            }
            self.confirm(&mark);
            if mark.at == now {
                return;
            }
        }
    }

    fn mark(&mut self, number: u64, now: u64) -> Mark {
        self.topics.iter_mut().for_each(|it| it.is_busy = true);
        Mark { number, at: now, joins: self.joins, moment: None }
    }

    fn has_arrived(&mut self, mark: &mut Mark, outbox: &outbox::Sender) -> bool {
        for it in self.topics.iter_mut().filter(|it| it.is_busy) {
            it.is_busy = it.mailbox.as_ref().is_none_or(|mailbox| !mailbox.is_idle());
        }
        if self.topics.iter().any(|it| it.is_busy) {
            return false;
        }
        let Some(mut moment) = mark.moment.take().or_else(|| outbox.moment()) else { return false };
        let has_arrived = outbox.has_arrived(&mut moment);
        mark.moment = has_arrived.map(|_| moment);
        has_arrived == Some(true)
    }

    fn confirm(&mut self, mark: &Mark) {
        (self.number, self.at) = (mark.number, mark.at);
        for it in self.topics.iter_mut().filter(|it| !it.is_known && it.join <= mark.joins) {
            it.is_known = true;
            self.has_changed = true;
        }
    }
}
