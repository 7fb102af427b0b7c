//! A model of three nodes that claim one session, through a store that answers late, fails and forgets. Used by the tests
//! and the fuzz targets; not part of the API.
//!
//! Bytes drive it: the client connects to any node, often to several at a time, nodes die, stall, are cut off and come
//! back, and questions to them are answered, late or not at all. In the end everything is mended, and then one node
//! has the session.

mod faults;
mod node;
mod store;
mod visits;

use std::collections::BTreeMap;

use self::node::{Message, Node, Taking};
use self::store::{Faults, Request, Store};
use self::visits::Visit;
use super::claim::{Answer, Cause, Claim, Event, Held, Outcome, Step};
use super::record::SessionRecord;
use super::records::{self, Call, Next};
use crate::adapter::{NodeId, Revision};

const NODES: usize = 3;
const ID: &str = "0123456789abcdefghij";
const SOCKET: u64 = 7;

/// How long one answer is waited for, in milliseconds.
const PATIENCE: u64 = 1000;

/// How long a claim takes at most, and then the taking.
const LONGEST: u64 = 2 * PATIENCE;

/// What is left of it after a node was asked.
const LAST: u64 = PATIENCE / 2;

/// Runs the steps that the bytes encode, then mends everything and waits.
///
/// # Panics
/// If a claim takes too long or does not end, if a record is overwritten by an older one, if an older session ends the one
/// to which the client has come last though no clock is late, or if in the end there is not one node that has the session,
/// with its record in the store.
pub fn walk(bytes: &[u8]) {
    let mut world = World::new();
    for step in bytes.chunks_exact(2) {
        world.step(step[0], u64::from(step[1]));
    }
    world.settle();
}

struct World {
    now: u64,
    nodes: Vec<Node>,
    store: Store,
    /// What is on its way, by the time of its arrival.
    due: BTreeMap<(u64, u64), InFlight>,
    /// Numbers claims, tasks, offers and what is on its way.
    count: u64,
    last_node: u64,
    /// By the node to which the client has come.
    visits: BTreeMap<NodeId, Visit>,
    /// Whether the clock of any node was ever late.
    is_skewed: bool,
}

enum InFlight {
    ToStore(NodeId, Request),
    ToNode(NodeId, Message),
}

impl World {
    fn new() -> Self {
        let nodes = (0..NODES).map(|place| Node::new(NodeId(place as u64), 0)).collect();
        Self {
            now: 0,
            nodes,
            store: Store::default(),
            due: BTreeMap::new(),
            count: 0,
            last_node: NODES as u64,
            visits: BTreeMap::new(),
            is_skewed: false,
        }
    }

    fn step(&mut self, step: u8, value: u64) {
        let place = value as usize % NODES;
        let rest = value / NODES as u64;
        match step % 20 {
            0..=5 => self.connect(place),
            6..=8 => self.advance(rest),
            9..=10 => self.advance(rest * 50),
            11 => self.store.faults = Faults::new(rest),
            12 => self.store.faults = Faults::default(),
            13 if value < 128 => self.store.forget(),
            13 if value < 160 => self.store.spoil(),
            14 if value < 200 => self.kill(place, rest),
            15 => self.stall(place),
            16 => self.nodes[place].is_cut = true,
            17 => self.mend(place),
            18 => self.release(place),
            19 if value < 128 => self.deposit(place),
            _ => {}
        }
    }

    /// The client comes to a node.
    fn connect(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if node.is_stalled {
            return;
        }
        node.ticket = None;
        if node.running.is_none() && node.taking.is_none() {
            self.count += 1;
            let (now, time) = (self.now, node.time(self.now));
            let given_to = node.records.given_to(ID, records::GIVEN, now);
            let own = node.records.held(ID).filter(|_| given_to.is_none());
            let (claim, step) = Claim::new(node.id, SOCKET, time, own, given_to);
            node.begin(self.count, claim, now);
            self.visits.entry(node.id).or_default().is_next_under_way = true;
            self.follow(place, step);
        }
    }

    /// Does what the claim of a node says.
    fn follow(&mut self, place: usize, step: Step) {
        let (now, node) = (self.now, &mut self.nodes[place]);
        let from = node.id;
        let Some(running) = &mut node.running else { return };
        running.stage += 1;
        assert!(running.stage < 20, "a claim does not end");
        let token = running.token();
        let mut left = (running.started + LONGEST).saturating_sub(now);
        match step {
            Step::Replace { seen, generation } => {
                let value = Some(SessionRecord::new(from, generation, SOCKET).encode());
                self.send_to_store(from, Request::claim(token, seen, value));
            }
            Step::Ask(owner) => {
                left = left.saturating_sub(LAST);
                self.send(from, owner, 2, Message::Ask { from, token });
            }
            Step::Done(outcome) => return self.finish(place, &outcome),
        }
        self.after(left.min(PATIENCE), InFlight::ToNode(from, Message::Overdue(token)));
    }

    fn finish(&mut self, place: usize, outcome: &Outcome) {
        let (now, node) = (self.now, &mut self.nodes[place]);
        let Some(running) = node.running.take() else { return };
        let took = now - running.started;
        assert!(running.was_stalled || took <= LONGEST, "a claim has taken {took} ms");
        let from = node.id;
        let is_kept = matches!(outcome, Outcome::Own { cause: Cause::Kept, .. });
        if !is_kept && node.records.forget(ID).is_some() {
            node.has_session = false;
        }
        match *outcome {
            Outcome::Own { held, unheard, .. } => {
                node.has_session = true;
                node.records.own(&ID.into(), SOCKET, held, now);
                self.visits.insert(from, Visit::new(&running, now));
                if let Some(loser) = unheard {
                    let generation = held.generation;
                    self.send(from, loser, 2, Message::Took { from, generation });
                }
            }
            Outcome::Deposited { held, .. } => {
                let token = running.token();
                let value = Some(SessionRecord::new(from, held.generation, SOCKET).encode());
                node.taking = Some(Taking { held, owner: None, running });
                self.send_to_store(from, Request::claim(token, held.seen, value));
                self.after(PATIENCE, InFlight::ToNode(from, Message::Overdue(token)));
            }
            Outcome::Offered { owner, held } => {
                let (token, ticket) = (running.token(), running.ticket);
                node.taking = Some(Taking { held, owner: Some(owner), running });
                self.send(from, owner, 2, Message::Take { from, token, ticket });
                self.after(2 * PATIENCE, InFlight::ToNode(from, Message::Overdue(token)));
            }
            Outcome::Taken => panic!("there is one client"),
        }
    }

    /// The session is taken, with its state or not. `written` is the record of one that was left behind.
    fn taken(&mut self, place: usize, has_state: bool, written: Option<Revision>) {
        let node = &mut self.nodes[place];
        let Some(Taking { held, owner, running }) = node.taking.take() else { return };
        node.has_session = true;
        let id = node.id;
        self.visits.insert(id, Visit::new(&running, self.now));
        if written.is_some() {
            let held = Held { seen: written, is_recorded: true, ..held };
            node.records.own(&ID.into(), SOCKET, held, self.now);
        } else {
            node.records.take(&ID.into(), SOCKET, held, self.now);
        }
        if let Some(owner) = owner.filter(|_| !has_state) {
            self.send(id, owner, 2, Message::Took { from: id, generation: held.generation });
        }
        self.work(place);
    }

    /// A message has come to a node that is there.
    fn receive(&mut self, place: usize, message: Message) {
        let node = &mut self.nodes[place];
        let id = node.id;
        match message {
            Message::Claimed(token, event) => {
                if node.is_taking(token) {
                    let written = match event {
                        Event::Replaced(revision) => Some(revision),
                        _ => None,
                    };
                    self.taken(place, written.is_some(), written);
                } else if let Some(step) = node.on(token, event) {
                    self.follow(place, step);
                }
            }
            Message::Overdue(token) => {
                let event = match node.is_asking(token) {
                    true => Event::Answered(Answer::Silent),
                    false => Event::Failed,
                };
                if let Some(step) = node.on(token, event) {
                    self.follow(place, step);
                } else if node.is_taking(token) {
                    self.taken(place, false, None);
                }
            }
            Message::Ask { from, token } => {
                self.count += 1;
                node.ticket = node.has_session.then_some(self.count);
                let answer = if node.has_session { Answer::Offered } else { Answer::None };
                let ticket = self.count;
                self.send(id, from, 2, Message::Answered { token, answer, ticket });
            }
            Message::Answered { token, answer, ticket } => {
                if let Some(step) = node.on(token, Event::Answered(answer)) {
                    node.running.iter_mut().for_each(|running| running.ticket = ticket);
                    self.follow(place, step);
                }
            }
            Message::Take { from, token, ticket } => {
                // While it is claimed here its client is about to come back.
                let is_free = node.running.is_none();
                let is_given = node.has_session && is_free && node.ticket == Some(ticket);
                if is_given {
                    node.has_session = false;
                    node.records.give(&ID.into(), from, self.now);
                }
                let is_withdrawn = !is_given && node.records.has(ID);
                self.send(id, from, 2, Message::Given { token, is_given, is_withdrawn });
            }
            Message::Given { token, is_given, is_withdrawn } => {
                if node.is_taking(token) && is_withdrawn {
                    node.taking = None;
                } else if node.is_taking(token) {
                    self.taken(place, is_given, None);
                }
            }
            Message::Took { from, generation } => {
                if node.records.is_taken(ID, generation) {
                    node.has_session = false;
                    self.check_newer(from, id);
                }
            }
            Message::Done(number, answer) => {
                let Some(task) = node.tasks.remove(&number) else { return };
                let winner = match &answer {
                    records::Answer::There(Some(there)) => {
                        SessionRecord::decode(there.value.clone()).map(|it| it.owner())
                    }
                    _ => None,
                };
                match node.records.done(task, answer, self.now) {
                    Next::Nothing => {}
                    Next::Again(task) => self.run(place, task),
                    Next::Tell { loser, generation } => {
                        self.send(id, loser, 2, Message::Took { from: id, generation });
                    }
                    Next::End => {
                        node.has_session = false;
                        self.check_newer(winner.expect("a record"), id);
                    }
                }
            }
        }
    }

    /// Does what is due for the records of a node.
    fn work(&mut self, place: usize) {
        while let Some(task) = self.nodes[place].records.next(self.now) {
            self.run(place, task);
        }
        while let Some(task) = self.nodes[place].records.next_check() {
            self.run(place, task);
        }
    }

    fn run(&mut self, place: usize, task: records::Task) {
        self.count += 1;
        let (number, node) = (self.count, &mut self.nodes[place]);
        let id = node.id;
        let request = match &task.call {
            Call::Read => Request::read(number),
            Call::Write { seen, record } => Request::task(number, *seen, Some(record.encode())),
            Call::Remove { seen } => Request::task(number, Some(*seen), None),
        };
        node.tasks.insert(number, task);
        self.send_to_store(id, request);
        let failed = Message::Done(number, records::Answer::Failed);
        self.after(PATIENCE, InFlight::ToNode(id, failed));
    }

    fn send_to_store(&mut self, from: NodeId, request: Request) {
        if !self.is_cut(from) {
            self.after(self.store.faults.before, InFlight::ToStore(from, request));
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, delay: u64, message: Message) {
        if !self.is_cut(from) {
            self.after(delay, InFlight::ToNode(to, message));
        }
    }

    fn after(&mut self, delay: u64, what: InFlight) {
        self.count += 1;
        self.due.insert((self.now + delay, self.count), what);
    }

    fn is_cut(&self, node: NodeId) -> bool {
        self.nodes.iter().any(|it| it.id == node && it.is_cut)
    }

    fn advance(&mut self, time: u64) {
        let end = self.now + time;
        loop {
            let next = self.due.first_key_value().map(|((at, _), _)| *at);
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            let Some((_, what)) = self.due.pop_first() else { break };
            self.arrive(what);
        }
        self.now = end;
        for place in 0..NODES {
            if !self.nodes[place].is_stalled {
                self.work(place);
            }
        }
    }

    fn arrive(&mut self, what: InFlight) {
        match what {
            InFlight::ToStore(from, request) => {
                let reply = self.store.apply(request);
                let reply = InFlight::ToNode(from, reply);
                self.after(self.store.faults.after, reply);
            }
            InFlight::ToNode(to, message) => {
                let Some(place) = self.nodes.iter().position(|node| node.id == to) else {
                    return self.bounce(&message);
                };
                let node = &mut self.nodes[place];
                if node.is_stalled {
                    node.held_back.push(message);
                } else if !node.is_cut || message.is_own() {
                    self.receive(place, message);
                }
            }
        }
    }

    /// The engine says that there is no such node.
    fn bounce(&mut self, message: &Message) {
        let (to, message) = match *message {
            Message::Ask { from, token } => {
                (from, Message::Answered { token, answer: Answer::Gone, ticket: 0 })
            }
            Message::Take { from, token, .. } => {
                (from, Message::Given { token, is_given: false, is_withdrawn: false })
            }
            _ => return,
        };
        self.after(1, InFlight::ToNode(to, message));
    }
}

#[cfg(test)]
mod tests;
