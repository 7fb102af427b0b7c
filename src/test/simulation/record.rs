//! [`Record`]: what was sent, and who has to have received it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::time::Instant;

use super::node::{Node, Origin};
use super::{NODES, SLOW};

/// What was sent, and what has gone wrong since everything was whole.
pub(super) struct Record {
    is_ordered: bool,
    sent: Vec<Sent>,
    /// The first broadcast since everything was found to be whole.
    era: usize,
    /// Whether nothing was broken since.
    is_whole: bool,
    /// When something broke last.
    broken_at: Option<Instant>,
    /// Between which nodes frames may have been lost without their noticing.
    silent: [[bool; NODES]; NODES],
    /// Between which nodes frames may have come twice, now and ever.
    repeated: [[bool; NODES]; NODES],
    ever_repeated: [[bool; NODES]; NODES],
    /// Which nodes have ever missed frames without noticing.
    ever_silent: [bool; NODES],
    /// Which of them would not be told by a node that has ended since.
    untold: [bool; NODES],
    /// Which nodes did not always see gaps in the numbers.
    unsteady: [bool; NODES],
    /// When each node began.
    began: BTreeMap<u64, Instant>,
    /// The nodes that have ended.
    ended: BTreeSet<u64>,
    /// The users that were disconnected.
    disconnected: BTreeSet<&'static str>,
    /// What clients have heard of topics that they have left.
    finished: Vec<Span>,
    /// The topics and keys of presences that must be seen all the time.
    stays: BTreeSet<(usize, String)>,
    started: Instant,
    is_traced: bool,
    /// What each client has noticed of each topic. What happens at one moment on several has no order.
    noticed: BTreeMap<(u64, usize), DefaultHasher>,
}

/// How long it takes until clients are told of what was lost.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

/// How long a node may lose something of which it does not know.
const YOUNG: Duration = Duration::from_secs(1);

/// A broadcast.
#[derive(Debug)]
struct Sent {
    topic: usize,
    from: Origin,
    reach: Reach,
    at: Instant,
    /// Whether nothing was broken while it was on its way.
    is_safe: bool,
}

/// Who is to receive a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    All,
    /// The clients of its node.
    Local,
    /// All but this client.
    Except(u64),
    /// Its sender lost its connection, so it may not have been broadcast.
    Unknown,
}

/// What a client has heard of a topic, from a join to the end of its channel.
#[derive(Debug)]
pub(super) struct Span {
    topic: usize,
    client: u64,
    /// Where the client is, and was before it moved, with the first broadcast since it came.
    at: Origin,
    before: Vec<(Origin, usize)>,
    /// The first broadcast behind the last gap of which its client was told.
    told: usize,
    /// Whether its client is told if something is missing.
    is_exact: bool,
    first: usize,
    received: BTreeSet<usize>,
    last: BTreeMap<u64, usize>,
    end: Option<End>,
}

/// How a client's channel has ended.
#[derive(Clone, Copy, Debug)]
struct End {
    /// The first broadcast that it does not concern.
    before: usize,
    at: Instant,
}

impl Span {
    /// Where the client is.
    pub(super) fn at(&self) -> Origin {
        self.at
    }

    /// That of a client which is back on a node that has kept its channel: what it has heard elsewhere may come again.
    pub(super) fn returned(self) -> Self {
        Self { before: vec![(self.at, self.first)], ..self }
    }

    /// Where the client is, and was.
    fn places(&self) -> impl Iterator<Item = Origin> {
        self.before.iter().map(|(at, _)| *at).chain([self.at])
    }

    /// Where the client was when this broadcast was sent.
    fn place_at(&self, number: usize) -> Origin {
        let before = self.before.iter().find(|(_, until)| number < *until);
        before.map_or(self.at, |(at, _)| *at)
    }
}

impl Record {
    pub(super) fn new(is_ordered: bool) -> Self {
        Self {
            is_ordered,
            sent: Vec::new(),
            era: 0,
            is_whole: false,
            broken_at: None,
            silent: Default::default(),
            repeated: Default::default(),
            ever_repeated: Default::default(),
            ever_silent: Default::default(),
            untold: Default::default(),
            unsteady: Default::default(),
            began: BTreeMap::new(),
            ended: BTreeSet::new(),
            disconnected: BTreeSet::new(),
            finished: Vec::new(),
            stays: BTreeSet::new(),
            started: Instant::now(),
            is_traced: std::env::var_os("TRACE").is_some(),
            noticed: BTreeMap::new(),
        }
    }

    /// Everything is whole, and was found to be right.
    pub(super) fn begin_era(&mut self, nodes: &[Option<Node>; NODES]) {
        self.era = self.sent.len();
        self.is_whole = true;
        self.silent = Default::default();
        self.repeated = Default::default();
        self.unsteady = [!self.is_ordered; NODES];
        for node in nodes.iter().flatten().filter(|node| node.listens_to_topics) {
            self.unsteady[node.slot] = true;
        }
        self.ended.clear();
        self.disconnected.clear();
    }

    /// Returns whether anything was broken a while ago, of which clients may be told now.
    pub(super) fn was_broken(&self) -> bool {
        self.broken_at.is_some_and(|at| at.elapsed() < TOLD_WITHIN)
    }

    /// Returns whether nothing was broken since everything was found to be whole.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Something breaks.
    pub(super) fn trouble(&mut self) {
        self.broken_at = Some(Instant::now());
        if std::mem::take(&mut self.is_whole) {
            let now = Instant::now();
            let on_the_way = self.sent.iter_mut().rev().take_while(|sent| now < sent.at + SLOW);
            on_the_way.for_each(|sent| sent.is_safe = false);
        }
    }

    /// Frames from one node to another may be lost without their noticing.
    pub(super) fn lose_silently(&mut self, from: usize, to: usize) {
        self.trouble();
        self.silent[from][to] = true;
        self.ever_silent[to] = true;
    }

    /// Returns whether a node may have missed that another one has taken a session, which died before it said so again.
    pub(super) fn may_be_untold(&self, slot: usize) -> bool {
        self.untold[slot]
    }

    pub(super) fn repeat(&mut self, from: usize, to: usize) {
        self.repeated[from][to] = true;
        self.ever_repeated[from][to] = true;
    }

    /// A node does not see gaps in the numbers.
    pub(super) fn be_unsteady(&mut self, slot: usize) {
        self.unsteady[slot] = true;
    }

    /// A node begins.
    pub(super) fn begin_node(&mut self, number: u64) {
        self.began.insert(number, Instant::now());
    }

    /// A node has ended.
    pub(super) fn end(&mut self, number: u64) {
        self.ended.insert(number);
        self.untold = self.ever_silent;
    }

    pub(super) fn has_ended(&self, number: u64) -> bool {
        self.ended.contains(&number)
    }

    pub(super) fn disconnect(&mut self, user: &'static str) {
        self.disconnected.insert(user);
    }

    pub(super) fn was_disconnected(&self, user: &str) -> bool {
        self.disconnected.contains(user)
    }

    /// Records a broadcast that is about to be sent, and returns its number.
    pub(super) fn send(&mut self, topic: usize, from: Origin, reach: Reach) -> usize {
        let (at, is_safe) = (Instant::now(), self.is_whole);
        self.sent.push(Sent { topic, from, reach, at, is_safe });
        self.sent.len() - 1
    }

    /// Whether the last broadcast was sent is not known.
    pub(super) fn doubt(&mut self) {
        if let Some(sent) = self.sent.last_mut() {
            sent.reach = Reach::Unknown;
        }
    }

    /// A client has joined a topic.
    pub(super) fn begin(&self, topic: usize, client: u64, at: Origin, is_exact: bool) -> Span {
        let (received, last) = Default::default();
        let (first, before) = (self.sent.len(), Vec::new());
        Span { topic, client, at, before, told: 0, is_exact, first, received, last, end: None }
    }

    /// A client's channel goes on, on a node to which its session has moved.
    pub(super) fn move_on(&self, span: &mut Span, at: Origin, is_exact: bool, has_gap: bool) {
        span.before.push((span.at, self.sent.len()));
        span.at = at;
        span.is_exact &= is_exact;
        if has_gap {
            span.told = self.sent.len();
        }
    }

    /// Sets which presences must be seen all the time from now on.
    pub(super) fn expect_to_stay(&mut self, stays: BTreeSet<(usize, String)>) {
        self.stays = stays;
    }

    /// A client has seen a presence leave.
    pub(super) fn check_leave(&self, topic: usize, key: &str) {
        let stays = self.is_whole && self.stays.contains(&(topic, key.to_owned()));
        assert!(!stays, "{key} has left topic {topic} for a moment");
    }

    /// A client's channel has ended. `at` is the time until which the client has heard it.
    pub(super) fn finish(&mut self, mut span: Span, at: Instant) {
        span.end = Some(End { before: self.sent.len(), at });
        self.finished.push(span);
    }

    /// A client receives a broadcast.
    pub(super) fn receive(&mut self, span: &mut Span, number: usize) {
        let sent = self.sent.get(number).expect("a broadcast that was sent");
        let what = || format!("{number} {sent:?} at {span:?}");
        assert_eq!(sent.topic, span.topic, "of another topic: {}", what());
        let is_local = sent.from == span.at;
        match sent.reach {
            Reach::All | Reach::Unknown => {}
            Reach::Local => {
                assert!(span.places().any(|at| at == sent.from), "of another node: {}", what());
            }
            // A channel that has joined since is another one.
            Reach::Except(client) => {
                assert!(client != span.client || number < span.first, "its own: {}", what());
            }
        }
        let has_moved = !span.before.is_empty();
        assert!(has_moved || !is_local || number >= span.first, "before the join: {}", what());
        let from = sent.from.slot;
        // What was sent before the era has waited for a client that was away.
        let may_repeat = span.places().any(|at| match number < self.era {
            true => self.ever_repeated[from][at.slot],
            false => self.repeated[from][at.slot] && self.unsteady[at.slot],
        });
        if !may_repeat {
            assert!(!span.received.contains(&number), "twice: {}", what());
            let last = span.last.get(&sent.from.number);
            let is_local = is_local && !has_moved;
            let is_next = is_local && sent.reach != Reach::Unknown || self.is_ordered;
            assert!(!is_next || last.is_none_or(|last| *last < number), "order: {}", what());
        }
        span.received.insert(number);
        span.last.insert(sent.from.number, number);
        self.notice(span.client, span.topic, number);
    }

    /// Asserts that nothing is missing of which no client was told. Everything has been mended for a while.
    pub(super) fn check<'a>(&mut self, spans: impl Iterator<Item = &'a Span>) {
        let finished = std::mem::take(&mut self.finished);
        finished.iter().for_each(|span| self.check_span(span));
        spans.for_each(|span| self.check_span(span));
    }

    fn check_span(&self, span: &Span) {
        let (before, at) = match span.end {
            Some(end) => (end.before, end.at),
            None => (self.sent.len(), Instant::now()),
        };
        for number in span.first.max(self.era)..before {
            let sent = &self.sent[number];
            let at_that_time = span.place_at(number);
            let is_local = sent.from == at_that_time;
            let is_meant = sent.topic == span.topic
                && match sent.reach {
                    Reach::All => true,
                    Reach::Local => is_local,
                    Reach::Except(client) => client != span.client,
                    Reach::Unknown => false,
                };
            if !is_meant || span.received.contains(&number) || number < span.told {
                continue;
            }
            let has_come = sent.at + SLOW <= at;
            let what = || format!("{number} {sent:?} at {span:?}");
            assert!(!is_local || !has_come, "its own node's: {}", what());
            assert!(!sent.is_safe || !has_come, "nothing was broken: {}", what());
            // A node is known to the others, and has clients, only after a while.
            let is_young = sent.at < self.began[&at_that_time.number] + YOUNG;
            let is_silent =
                |at: Origin| self.silent[sent.from.slot][at.slot] && self.unsteady[at.slot];
            let is_excused =
                is_young || self.ended.contains(&sent.from.number) || span.places().any(is_silent);
            let is_told = span.end.is_some();
            assert!(!span.is_exact || is_told || is_excused, "it was not told: {}", what());
        }
    }

    /// Adds something that a client has noticed of a topic.
    pub(super) fn notice(&mut self, client: u64, topic: usize, what: impl Hash) {
        let noticed = self.noticed.entry((client, topic)).or_default();
        (self.started.elapsed(), what).hash(noticed);
    }

    /// Prints something, if `TRACE` is in the environment.
    pub(super) fn trace(&self, what: fmt::Arguments<'_>) {
        if self.is_traced {
            eprintln!("{:?} {what}", self.started.elapsed());
        }
    }

    pub(super) fn digest(&self) -> u64 {
        let mut digest = DefaultHasher::new();
        for (whose, noticed) in &self.noticed {
            (whose, noticed.finish()).hash(&mut digest);
        }
        digest.finish()
    }
}
