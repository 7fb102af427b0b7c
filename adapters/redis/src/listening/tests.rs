use std::collections::HashSet;

use super::*;

/// Someone who waits, by number.
type Who = u32;

/// A node and its server, which does what it is told.
struct Pair {
    node: Listening<Who>,
    has_pattern: bool,
    topics: HashSet<Arc<str>>,
}

impl Pair {
    fn connected() -> Self {
        let mut pair = Self { node: Listening::new(), has_pattern: false, topics: HashSet::new() };
        pair.connect();
        pair
    }

    fn connect(&mut self) {
        self.has_pattern = true;
        self.topics.clear();
        self.node.connected();
    }

    fn disconnect(&mut self) {
        self.has_pattern = false;
        self.topics.clear();
        self.node.disconnected();
    }

    /// The server does what a step says.
    fn serve(&mut self, step: &Step<Who>) {
        match step {
            Step::AddPattern => self.has_pattern = true,
            Step::RemovePattern => self.has_pattern = false,
            Step::Topics { add, remove, .. } => {
                self.topics.extend(add.iter().cloned());
                for topic in remove {
                    assert!(self.topics.remove(topic), "{topic} was not subscribed");
                }
            }
        }
    }

    /// Takes a step, if there is one.
    fn step(&mut self) -> bool {
        let Some(step) = self.node.next() else { return false };
        self.serve(&step);
        self.node.done(step);
        true
    }

    fn settle(&mut self) {
        while self.step() {}
        assert!(!self.node.has_step());
    }

    fn hears(&self, topic: &str) -> bool {
        self.has_pattern || self.topics.contains(topic)
    }

    fn by_topics() -> Self {
        let mut pair = Self::connected();
        pair.node.hear_all(false, 0);
        pair.settle();
        assert_eq!(pair.node.take_released(), [0]);
        assert!(!pair.has_pattern);
        pair
    }
}

#[test]
fn a_new_connection_hears_everything_and_nobody_waits() {
    let mut pair = Pair::connected();
    pair.node.listen("a", 1);
    assert_eq!(pair.node.take_released(), [1]);
    pair.node.hear_all(true, 2);
    assert_eq!(pair.node.take_released(), [2]);
    pair.settle();
    assert!(pair.topics.is_empty());
}

#[test]
fn the_pattern_goes_when_every_topic_is_subscribed() {
    let mut pair = Pair::connected();
    for n in 0..1200 {
        pair.node.listen(&format!("topic {n}"), n);
    }
    assert_eq!(pair.node.take_released().len(), 1200);
    pair.node.hear_all(false, 9999);
    let mut steps = 0;
    while pair.has_pattern {
        assert!(pair.node.take_released().is_empty());
        assert!(pair.step());
        steps += 1;
    }
    assert_eq!((steps, pair.topics.len()), (4, 1200));
    assert_eq!(pair.node.take_released(), [9999]);
}

#[test]
fn listening_waits_until_the_topic_is_subscribed() {
    let mut pair = Pair::by_topics();
    pair.node.listen("a", 1);
    let step = pair.node.next().expect("a step");
    // Someone else wants it while it is being subscribed.
    pair.node.listen("a", 2);
    assert!(pair.node.take_released().is_empty());
    pair.serve(&step);
    pair.node.done(step);
    assert_eq!(pair.node.take_released(), [1]);
    pair.settle();
    assert_eq!(pair.node.take_released(), [2]);
    pair.node.listen("a", 3);
    assert_eq!(pair.node.take_released(), [3]);
}

#[test]
fn a_topic_ignored_while_it_is_subscribed_is_unsubscribed() {
    let mut pair = Pair::by_topics();
    pair.node.listen("a", 1);
    let step = pair.node.next().expect("a step");
    pair.node.ignore("a");
    pair.serve(&step);
    pair.node.done(step);
    pair.settle();
    assert!(!pair.hears("a"));
    assert!(pair.node.topics.is_empty());
}

#[test]
fn a_topic_wanted_while_it_is_unsubscribed_is_subscribed_again() {
    let mut pair = Pair::by_topics();
    pair.node.listen("a", 1);
    pair.settle();
    pair.node.ignore("a");
    let step = pair.node.next().expect("a step");
    pair.node.listen("a", 2);
    pair.serve(&step);
    pair.node.done(step);
    assert_eq!(pair.node.take_released(), [1]);
    pair.settle();
    assert!(pair.hears("a"));
    assert_eq!(pair.node.take_released(), [2]);
}

#[test]
fn a_topic_ignored_before_it_was_subscribed_releases_who_waits() {
    let mut pair = Pair::by_topics();
    pair.node.listen("a", 1);
    pair.node.ignore("a");
    pair.settle();
    assert_eq!(pair.node.take_released(), [1]);
    assert!(pair.topics.is_empty());
}

#[test]
fn a_lost_connection_releases_who_waits_for_topics_and_the_next_has_them() {
    let mut pair = Pair::by_topics();
    pair.node.listen("a", 1);
    pair.disconnect();
    assert_eq!(pair.node.take_released(), [1]);
    pair.node.listen("b", 2);
    pair.node.ignore("a");
    assert_eq!(pair.node.take_released(), [2]);
    assert!(pair.node.next().is_none());
    pair.connect();
    assert!(pair.hears("b") && pair.has_pattern);
    pair.settle();
    assert!(pair.hears("b") && !pair.hears("a") && !pair.has_pattern);
}

#[test]
fn who_switches_waits_for_the_engine_too() {
    let mut pair = Pair::connected();
    pair.disconnect();
    pair.node.hear_all(false, 1);
    assert!(pair.node.take_released().is_empty());
    pair.connect();
    pair.settle();
    assert_eq!(pair.node.take_released(), [1]);
}

#[test]
fn a_choice_that_is_taken_back_keeps_nobody_waiting() {
    let mut pair = Pair::by_topics();
    pair.node.hear_all(true, 1);
    assert!(pair.node.take_released().is_empty());
    pair.node.hear_all(false, 2);
    assert_eq!(pair.node.take_released(), [1, 2]);
    assert!(pair.node.next().is_none());
}

#[test]
fn back_to_everything_the_pattern_comes_before_the_topics_go() {
    let mut pair = Pair::by_topics();
    pair.node.listen("a", 1);
    pair.settle();
    pair.node.take_released();
    pair.node.hear_all(true, 2);
    assert!(pair.step());
    assert!(pair.has_pattern && pair.topics.contains("a"));
    assert_eq!(pair.node.take_released(), [2]);
    pair.settle();
    assert!(pair.topics.is_empty());
    pair.node.hear_all(false, 3);
    pair.settle();
    assert!(pair.topics.contains("a"));
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Whatever happens in whichever order, whoever is released hears the topic unless nothing is heard, and in the end
/// the server has what is wanted.
#[test]
fn what_is_wanted_is_heard_after_any_walk() {
    for seed in 1..3000 {
        walk(seed);
    }
}

fn walk(seed: u64) {
    let mut dice = Dice(seed);
    let mut pair = Pair::connected();
    let (mut wanted, mut wants_all, mut is_connected) = (HashSet::new(), true, true);
    let mut step = None;
    let mut waits: Vec<Option<&str>> = Vec::new();
    for _ in 0..40 {
        let topic = ["a", "b", "c"][dice.throw(3) as usize];
        let who = waits.len() as Who;
        match dice.throw(8) {
            0 | 1 => {
                wanted.insert(topic);
                waits.push(Some(topic));
                pair.node.listen(topic, who);
            }
            2 => {
                wanted.remove(topic);
                // Who has waited for it until now need not hear it.
                waits.iter_mut().filter(|wait| **wait == Some(topic)).for_each(|wait| *wait = None);
                pair.node.ignore(topic);
            }
            3 => {
                wants_all = dice.throw(2) == 0;
                waits.push(None);
                pair.node.hear_all(wants_all, who);
            }
            4 if dice.throw(4) == 0 => {
                is_connected = !is_connected;
                step = None;
                if is_connected { pair.connect() } else { pair.disconnect() }
            }
            _ => match step.take() {
                Some(taken) => pair.node.done(taken),
                None => {
                    step = pair.node.next();
                    if let Some(step) = &step {
                        pair.serve(step);
                    }
                }
            },
        }
        for who in pair.node.take_released() {
            if let Some(topic) = waits[who as usize].take()
                && is_connected
                && wanted.contains(topic)
            {
                assert!(pair.hears(topic), "seed {seed}: {topic} is not heard");
            }
        }
    }
    if let Some(step) = step {
        pair.node.done(step);
    }
    if !is_connected {
        pair.connect();
    }
    pair.settle();
    assert_eq!(pair.has_pattern, wants_all, "seed {seed}");
    let expected: HashSet<_> = wanted.iter().filter(|_| !wants_all).copied().collect();
    let topics: HashSet<_> = pair.topics.iter().map(|name| &**name).collect();
    assert_eq!(topics, expected, "seed {seed}");
    assert_eq!(pair.node.topics.len(), wanted.len(), "seed {seed}");
    assert!(pair.node.queue.is_empty() && pair.node.switching.is_empty(), "seed {seed}");
}
