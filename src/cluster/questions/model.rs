//! Two nodes that ask each other over a network that loses, repeats and delays. Used by a fuzz target; not part of the
//! API.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::asked::{self, Asked, SILENCE};
use super::serving::{Begun, MAX_BYTES, Serving};
use crate::adapter::NodeId;

/// Who waits for an answer, and until when it has to have one.
struct Waiter {
    at: usize,
    until: Duration,
    /// The other node has sent an answer.
    is_answered: bool,
    is_done: bool,
}

/// What is on its way to a node.
#[derive(Clone, Copy)]
enum Message {
    Ask(u64, usize),
    Accepted(u64),
    Answer(u64),
    Cancel(u64),
}

#[derive(Default)]
struct Node {
    asked: Asked<usize>,
    serving: Serving<u64>,
    /// The questions that this node works at.
    working: Vec<u64>,
    /// Those that wait to be sent, with their bytes.
    unsent: VecDeque<(u64, usize)>,
    waiters: BTreeMap<u64, Waiter>,
    inbox: VecDeque<Message>,
}

struct Model {
    nodes: [Node; 2],
    now: Duration,
}

fn id_of(node: usize) -> NodeId {
    NodeId(node as u64)
}

/// Takes steps of two bytes: what happens, and a value.
///
/// # Panics
/// If a question ends twice, or later than it may; an answer comes that was not given; or something is left of what is
/// over.
pub fn walk(steps: &[u8]) {
    let mut model = Model { nodes: Default::default(), now: Duration::ZERO };
    for step in steps.chunks_exact(2) {
        model.step(step[0] >> 1, usize::from(step[0] & 1), usize::from(step[1]));
    }
    model.rest();
}

impl Model {
    fn step(&mut self, what: u8, at: usize, value: usize) {
        let node = &mut self.nodes[at];
        match what % 9 {
            0 => self.ask(at, value),
            1 => self.send(at),
            2 => self.deliver(at),
            3 => drop(node.inbox.pop_front()),
            4 => {
                let repeated = node.inbox.front().copied();
                // A question does not come twice.
                node.inbox.extend(repeated.filter(|it| !matches!(it, Message::Ask(..))));
            }
            5 => self.finish(at, value),
            6 => self.withdraw(at, value),
            7 => {
                let gone = node.asked.gone(id_of(1 - at));
                for id in node.serving.gone(id_of(1 - at)) {
                    node.working.retain(|it| *it != id);
                    node.serving.end(id_of(1 - at), id);
                }
                gone.into_iter().for_each(|it| self.end(at, it.waiter));
            }
            _ => self.pass(Duration::from_millis(value as u64 * 8)),
        }
    }

    fn ask(&mut self, at: usize, value: usize) {
        let (patience, bytes) = (Duration::from_millis(value as u64 * 20), value << 14);
        let (now, node) = (self.now, &mut self.nodes[at]);
        let waiter = node.waiters.len();
        let asked = node.asked.ask(id_of(1 - at), bytes, patience, now, waiter);
        assert!(node.asked.bytes() <= asked::MAX_BYTES);
        let Some(id) = asked else { return };
        let until = now + SILENCE + patience;
        let new = Waiter { at: waiter, until, is_answered: false, is_done: false };
        assert!(node.waiters.insert(id, new).is_none(), "an id is used once");
        node.unsent.push_back((id, bytes));
    }

    fn send(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some((id, bytes)) = node.unsent.pop_front() else { return };
        let is_given_up = node.asked.sent(id);
        let other = &mut self.nodes[1 - at];
        other.inbox.push_back(Message::Ask(id, bytes));
        other.inbox.extend(is_given_up.then_some(Message::Cancel(id)));
    }

    fn deliver(&mut self, at: usize) {
        let (now, from) = (self.now, id_of(1 - at));
        let node = &mut self.nodes[at];
        match node.inbox.pop_front() {
            Some(Message::Ask(id, bytes)) => {
                match node.serving.begin(from, id, bytes, now, Some(id)) {
                    Begun::Yes => node.working.push(id),
                    Begun::Repeated => panic!("it came once"),
                    Begun::Busy => self.answer(at, id),
                }
                assert!(self.nodes[at].serving.bytes() <= MAX_BYTES * 2);
            }
            Some(Message::Accepted(id)) => node.asked.accept(from, id, now),
            Some(Message::Answer(id)) => {
                let answered = node.asked.answer(from, id);
                answered.into_iter().for_each(|waiter| {
                    assert!(self.nodes[at].waiters[&id].is_answered);
                    self.end(at, waiter);
                });
            }
            Some(Message::Cancel(id)) => {
                let cancelled = node.serving.cancel(from, id);
                cancelled.into_iter().for_each(|id| {
                    node.working.retain(|it| *it != id);
                    node.serving.end(from, id);
                });
            }
            None => {}
        }
    }

    fn answer(&mut self, at: usize, id: u64) {
        let other = &mut self.nodes[1 - at];
        other.inbox.push_back(Message::Answer(id));
        other.waiters.get_mut(&id).expect("it has asked").is_answered = true;
    }

    fn finish(&mut self, at: usize, value: usize) {
        let (node, to) = (&mut self.nodes[at], id_of(1 - at));
        if node.working.is_empty() {
            return;
        }
        let id = node.working.swap_remove(value % node.working.len());
        node.serving.answer(to, id, value);
        assert_eq!(node.serving.cancel(to, id), None, "the answer is there");
        node.serving.end(to, id);
        self.answer(at, id);
    }

    fn withdraw(&mut self, at: usize, value: usize) {
        let node = &mut self.nodes[at];
        let open = node.waiters.iter().filter(|(_, waiter)| !waiter.is_done);
        let open: Vec<_> = open.map(|(id, waiter)| (*id, waiter.at)).collect();
        if open.is_empty() {
            return;
        }
        let (id, waiter) = open[value % open.len()];
        let told = node.asked.withdraw(id);
        self.end(at, waiter);
        self.nodes[1 - at].inbox.extend(told.map(|_| Message::Cancel(id)));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let now = self.now;
        for at in 0..2 {
            let node = &mut self.nodes[at];
            let (ended, due) = (node.asked.expire(now), node.serving.due(now));
            for ended in ended {
                let cancel = ended.is_sent.then_some(Message::Cancel(ended.id));
                self.nodes[1 - at].inbox.extend(cancel);
                self.end(at, ended.waiter);
            }
            let accepted = due.into_values().flatten().map(Message::Accepted);
            self.nodes[1 - at].inbox.extend(accepted);
            let mut waiters = self.nodes[at].waiters.values();
            assert!(
                waiters.all(|waiter| waiter.is_done || now < waiter.until),
                "nobody waits longer"
            );
        }
    }

    /// Somebody waits no longer.
    fn end(&mut self, at: usize, waiter: usize) {
        let mut waiters = self.nodes[at].waiters.values_mut();
        let waiter = waiters.find(|it| it.at == waiter).expect("it waits");
        assert!(!std::mem::replace(&mut waiter.is_done, true), "it ends once");
    }

    /// Everything is sent, done and over.
    fn rest(mut self) {
        for at in 0..2 {
            while !self.nodes[at].unsent.is_empty() {
                self.send(at);
            }
        }
        self.pass(Duration::from_secs(3600));
        for at in 0..2 {
            while !self.nodes[at].working.is_empty() {
                self.finish(at, 0);
            }
            while !self.nodes[at].inbox.is_empty() {
                self.deliver(at);
            }
            while !self.nodes[at].working.is_empty() {
                self.finish(at, 0);
            }
        }
        self.pass(Duration::from_secs(3600));
        for node in &self.nodes {
            assert!(node.waiters.values().all(|waiter| waiter.is_done));
            assert_eq!((node.asked.bytes(), node.serving.bytes()), (0, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_end_once_and_in_time_whatever_the_network_does() {
        let mut state = 1_u64;
        for _ in 0..2000 {
            let steps = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            });
            walk(&steps.take(400).collect::<Vec<_>>());
        }
    }
}
