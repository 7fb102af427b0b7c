//! The state of a [`Bus`](super::Bus), with time as an argument or read when a frame is published.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smol_str::SmolStr;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::histories::Histories;
use super::path::Path;
use super::records::Records;
use crate::adapter::{Channel, Link, NodeId, PublishError, Reached};

/// Names a node's line to the engine: 0 for the first adapter that was created, then 1.
pub type Place = usize;

#[derive(Clone, Copy)]
pub(super) struct Settings {
    pub(super) max_waiting: usize,
    pub(super) max_age: Duration,
    pub(super) max_frame: usize,
    pub(super) is_ordered: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_waiting: 8 << 20,
            max_age: Duration::from_secs(2),
            max_frame: 1 << 20,
            is_ordered: true,
        }
    }
}

#[derive(Default)]
pub(super) struct Engine {
    is_away: bool,
    nodes: Vec<Node>,
    paths: BTreeMap<(Place, Place), Path>,
    /// When the newest frame of one node is due at another.
    newest: BTreeMap<(Place, Place), Instant>,
    /// Numbers what is due, so that it keeps its order.
    count: u64,
    woken: Vec<Arc<Notify>>,
    pub(super) records: Records,
    pub(super) histories: Histories,
}

/// One node, as the engine sees it.
struct Node {
    /// `None` before it is started and after it was dropped.
    id: Option<NodeId>,
    line: Line,
    /// Whether it was told that it hears the engine.
    is_linked: bool,
    /// When it is connected again after the engine was started anew.
    back_at: Option<Instant>,
    settings: Settings,
    hears_all: bool,
    topics: BTreeSet<SmolStr>,
    /// What its inbox gets, and when.
    due: BTreeMap<(Instant, u64), Entry>,
    /// What it could not send yet, with the time until which it is worth sending.
    waiting: VecDeque<(Instant, Option<SmolStr>, Bytes)>,
    bytes_waiting: usize,
    wake: Arc<Notify>,
}

/// A line between a node and the engine.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Line {
    Whole,
    Cut,
    Stalled,
    Deaf,
}

/// What a node's inbox gets.
pub(super) enum Entry {
    Frame(Bytes),
    Link(Link),
    Lost(Bytes),
}

/// What a waiting frame takes beside its bytes.
const OVERHEAD: usize = 128;

impl Node {
    fn new() -> Self {
        Self {
            id: None,
            line: Line::Whole,
            is_linked: false,
            back_at: None,
            settings: Settings::default(),
            hears_all: true,
            topics: BTreeSet::new(),
            due: BTreeMap::new(),
            waiting: VecDeque::new(),
            bytes_waiting: 0,
            wake: Arc::default(),
        }
    }

    fn hears(&self, topic: Option<&str>) -> bool {
        let is_there = self.id.is_some() && self.back_at.is_none();
        let is_connected = is_there && matches!(self.line, Line::Whole | Line::Stalled);
        is_connected && topic.is_none_or(|topic| self.hears_all || self.topics.contains(topic))
    }

    fn forget_frames(&mut self) {
        self.due.retain(|_, entry| !matches!(entry, Entry::Frame(_)));
    }
}

impl Engine {
    pub(super) fn place(&mut self) -> Place {
        self.nodes.push(Node::new());
        self.nodes.len() - 1
    }

    pub(super) fn wake(&self, place: Place) -> Arc<Notify> {
        self.nodes[place].wake.clone()
    }

    /// Those to be woken since the last call.
    pub(super) fn take_woken(&mut self) -> Vec<Arc<Notify>> {
        std::mem::take(&mut self.woken)
    }

    pub(super) fn connections(&self) -> usize {
        let is_connected =
            |node: &&Node| !self.is_away && node.id.is_some() && node.line != Line::Cut;
        self.nodes.iter().filter(is_connected).count()
    }

    pub(super) fn connect(&mut self, place: Place, id: NodeId, settings: Settings) {
        let node = &mut self.nodes[place];
        node.id = Some(id);
        node.settings = settings;
        self.pick_up(place);
        self.send_waiting(place);
    }

    pub(super) fn disconnect(&mut self, place: Place) {
        self.nodes[place] = Node::new();
    }

    pub(super) fn listen(&mut self, place: Place, topic: &str) {
        self.nodes[place].topics.insert(topic.into());
    }

    pub(super) fn ignore(&mut self, place: Place, topic: &str) {
        self.nodes[place].topics.remove(topic);
    }

    pub(super) fn hear_all(&mut self, place: Place, all: bool) {
        self.nodes[place].hears_all = all;
    }

    pub(super) fn set_path(&mut self, from: Place, to: Place, path: Path) {
        self.paths.insert((from, to), path);
    }

    /// Whether a node's calls reach the engine; `None` if the node cannot tell.
    pub(super) fn is_reachable(&self, place: Place) -> Option<bool> {
        let Node { line, back_at, .. } = &self.nodes[place];
        match line {
            Line::Stalled => None,
            Line::Cut => Some(false),
            Line::Whole | Line::Deaf => Some(!self.is_away && back_at.is_none()),
        }
    }

    /// Whether a node hears everything that it wants.
    pub(super) fn is_heard_by(&self, place: Place) -> bool {
        !self.is_away && self.nodes[place].hears(None)
    }

    pub(super) fn is_waiting(&self, place: Place) -> bool {
        !self.nodes[place].waiting.is_empty()
    }

    pub(super) fn publish(
        &mut self,
        from: Place,
        to: Channel<'_>,
        frame: Bytes,
    ) -> Result<(), PublishError> {
        let topic = match to {
            Channel::All => None,
            Channel::Topic(topic) => Some(SmolStr::from(topic)),
        };
        if self.can_send(from) {
            self.spread(from, topic.as_deref(), &frame);
            return Ok(());
        }
        let node = &mut self.nodes[from];
        let bytes = node.bytes_waiting + frame.len() + OVERHEAD;
        if bytes > node.settings.max_waiting && !node.waiting.is_empty() {
            return Err(PublishError::Overflow);
        }
        node.bytes_waiting = bytes;
        node.waiting.push_back((Instant::now() + node.settings.max_age, topic, frame));
        self.woken.push(node.wake.clone());
        Ok(())
    }

    /// `None` if the line is stalled, so that the node has to wait until it gives up.
    pub(super) fn reach(&mut self, from: Place, id: NodeId, frame: &Bytes) -> Option<Reached> {
        if !self.is_reachable(from)? {
            return Some(Reached::Unknown);
        }
        let to = self.nodes.iter().position(|node| node.id == Some(id) && node.hears(None));
        let Some(to) = to else { return Some(Reached::Nobody) };
        self.carry(from, to, None, frame);
        Some(Reached::Someone)
    }

    /// What is due at a node, and when something will be.
    pub(super) fn take_due(&mut self, place: Place, now: Instant) -> (Vec<Entry>, Option<Instant>) {
        if self.nodes[place].back_at.take_if(|at| *at <= now).is_some() {
            self.pick_up(place);
            self.send_waiting(place);
        }
        let node = &mut self.nodes[place];
        let mut due = Vec::new();
        while let Some(first) = node.due.first_entry()
            && first.key().0 <= now
            && node.line != Line::Stalled
        {
            due.push(first.remove());
        }
        while let Some((until, ..)) = node.waiting.front()
            && *until <= now
        {
            let (_, _, frame) = node.waiting.pop_front().expect("there is one in front");
            node.bytes_waiting -= frame.len() + OVERHEAD;
            due.push(Entry::Lost(frame));
        }
        let frame = node.due.first_key_value().filter(|_| node.line != Line::Stalled);
        let expiry = node.waiting.front().map(|(until, ..)| *until);
        let next =
            frame.map(|((at, _), _)| *at).into_iter().chain(expiry).chain(node.back_at).min();
        (due, next)
    }

    pub(super) fn stop(&mut self) {
        if !self.is_away {
            for place in 0..self.nodes.len() {
                self.hang_up(place);
                // A connection that has ended is neither stalled nor deaf.
                if self.nodes[place].line != Line::Cut {
                    self.nodes[place].line = Line::Whole;
                }
            }
            self.is_away = true;
        }
    }

    /// The nodes are back one after another, or all before anything is sent.
    pub(super) fn restart(&mut self, apart: Duration) {
        if !std::mem::take(&mut self.is_away) {
            return;
        }
        if apart.is_zero() {
            (0..self.nodes.len()).for_each(|place| self.pick_up(place));
            (0..self.nodes.len()).for_each(|place| self.send_waiting(place));
            return;
        }
        let mut at = Instant::now();
        for node in self.nodes.iter_mut().filter(|node| node.id.is_some()) {
            at += apart;
            node.back_at = Some(at);
            self.woken.push(node.wake.clone());
        }
    }

    pub(super) fn cut(&mut self, place: Place) {
        if self.nodes[place].line != Line::Cut {
            self.hang_up(place);
            self.nodes[place].line = Line::Cut;
        }
    }

    pub(super) fn set_line(&mut self, place: Place, line: Line) {
        let was_deaf = std::mem::replace(&mut self.nodes[place].line, line) == Line::Deaf;
        if line == Line::Deaf {
            self.histories.hang_up(place);
        } else if was_deaf {
            self.histories.pick_up(place);
        }
        self.woken.push(self.nodes[place].wake.clone());
        match line {
            Line::Deaf => self.nodes[place].forget_frames(),
            Line::Whole => {
                self.pick_up(place);
                self.send_waiting(place);
            }
            Line::Cut | Line::Stalled => {}
        }
    }

    /// A stalled line stays so: the node hears nothing until it is healed.
    pub(super) fn reconnect(&mut self, place: Place) {
        match self.nodes[place].line {
            Line::Cut => {}
            Line::Stalled => self.cut(place),
            Line::Whole | Line::Deaf => {
                self.hang_up(place);
                self.nodes[place].line = Line::Whole;
                self.pick_up(place);
                self.send_waiting(place);
            }
        }
    }

    fn can_send(&self, place: Place) -> bool {
        let node = &self.nodes[place];
        let is_there = !self.is_away && node.id.is_some() && node.back_at.is_none();
        is_there && matches!(node.line, Line::Whole | Line::Deaf)
    }

    /// The connection of a node ends, and it notices.
    fn hang_up(&mut self, place: Place) {
        self.histories.hang_up(place);
        let node = &mut self.nodes[place];
        node.forget_frames();
        (node.back_at, node.is_linked) = (None, false);
        if node.id.is_some() && !self.is_away {
            self.enter(place, Instant::now(), Entry::Link(Link::Down));
        }
    }

    /// A node is connected again, if it can be.
    fn pick_up(&mut self, place: Place) {
        let node = &mut self.nodes[place];
        let is_there = !self.is_away && node.id.is_some() && node.back_at.is_none();
        if is_there && node.line == Line::Whole && !node.is_linked {
            node.is_linked = true;
            self.histories.pick_up(place);
            self.enter(place, Instant::now(), Entry::Link(Link::Up));
        }
    }

    fn send_waiting(&mut self, place: Place) {
        if self.can_send(place) {
            self.nodes[place].bytes_waiting = 0;
            for (_, topic, frame) in std::mem::take(&mut self.nodes[place].waiting) {
                self.spread(place, topic.as_deref(), &frame);
            }
        }
    }

    /// Carries a frame to all who hear the topic, or to all.
    fn spread(&mut self, from: Place, topic: Option<&str>, frame: &Bytes) {
        for to in 0..self.nodes.len() {
            if self.nodes[to].hears(topic) {
                self.carry(from, to, topic, frame);
            }
        }
    }

    fn carry(&mut self, from: Place, to: Place, topic: Option<&str>, frame: &Bytes) {
        let path = self.paths.entry((from, to)).or_default();
        if path.is_cut || path.lose > 0 {
            path.lose = path.lose.saturating_sub(1);
            return;
        }
        let copies = if path.repeat > 0 { 2 } else { 1 };
        path.repeat = path.repeat.saturating_sub(1);
        let is_prompt = path.has_two_orders && topic.is_none();
        let mut at = Instant::now() + if is_prompt { Duration::ZERO } else { path.delay };
        if !path.is_unordered && !is_prompt {
            let newest = self.newest.entry((from, to)).or_insert(at);
            at = at.max(*newest);
            *newest = at;
        }
        for _ in 0..copies {
            self.enter(to, at, Entry::Frame(frame.clone()));
        }
    }

    fn enter(&mut self, place: Place, at: Instant, entry: Entry) {
        self.count += 1;
        let node = &mut self.nodes[place];
        node.due.insert((at, self.count), entry);
        self.woken.push(node.wake.clone());
    }
}
