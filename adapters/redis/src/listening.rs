//! [`Listening`]: which topics a node wants to hear, and which its connection does.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;

/// How many topics one command adds or removes.
const BATCH: usize = 512;

/// What a node wants to hear and what it hears, and the [steps](Step) from the one to the other. Plain: the task
/// that hears takes the steps, one at a time.
///
/// A connection begins with the pattern, and so hears every topic at once, however many there are. Topics are
/// subscribed behind it, and the pattern goes when all are.
///
/// A `W` belongs to somebody who waits; it is [released](Self::take_released) when what it waits for is done.
#[derive(Debug)]
pub(crate) struct Listening<W> {
    /// Whether every topic is wanted.
    wants_all: bool,
    is_connected: bool,
    /// Whether the pattern is subscribed, confirmed and stays so until the next step.
    has_pattern: bool,
    topics: HashMap<Arc<str>, Topic>,
    /// Topics that may have to be subscribed or unsubscribed.
    queue: VecDeque<(Arc<str>, Option<W>)>,
    /// Those that wait for the pattern to come or to go.
    switching: Vec<W>,
    /// Those that need not wait any longer.
    released: Vec<W>,
}

/// A topic that is wanted or heard.
#[derive(Debug)]
struct Topic {
    is_wanted: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unsubscribed,
    Subscribed,
    /// A step that changes it is under way.
    Changing,
}

/// What the connection has to do next.
#[derive(Debug)]
pub(crate) enum Step<W> {
    /// Subscribe the pattern.
    AddPattern,
    /// Unsubscribe the pattern: the topics that are wanted are subscribed.
    RemovePattern,
    /// Subscribe and unsubscribe topics.
    Topics { add: Vec<Arc<str>>, remove: Vec<Arc<str>>, waiting: Vec<W> },
}

impl<W> Listening<W> {
    /// Creates the state of a node that wants to hear every topic, and is not connected.
    pub(crate) fn new() -> Self {
        Self {
            wants_all: true,
            is_connected: false,
            has_pattern: false,
            topics: HashMap::new(),
            queue: VecDeque::new(),
            switching: Vec::new(),
            released: Vec::new(),
        }
    }

    /// Takes those that need not wait any longer, to be dropped without a lock held: that wakes them.
    pub(crate) fn take_released(&mut self) -> Vec<W> {
        mem::take(&mut self.released)
    }

    /// Wants a topic. `waiter` waits until it is heard, or the connection ends.
    pub(crate) fn listen(&mut self, topic: &str, waiter: W) {
        let name = match self.topics.get_key_value(topic) {
            Some((name, _)) => name.clone(),
            None => topic.into(),
        };
        let unknown = Topic { is_wanted: true, state: State::Unsubscribed };
        let known = self.topics.entry(name.clone()).or_insert(unknown);
        known.is_wanted = true;
        if self.is_connected && !self.has_pattern && known.state != State::Subscribed {
            self.queue.push_back((name, Some(waiter)));
            return;
        }
        if self.is_connected && !self.wants_all && known.state == State::Unsubscribed {
            self.queue.push_back((name, None));
        }
        self.released.push(waiter);
    }

    /// Does not want a topic any more.
    pub(crate) fn ignore(&mut self, topic: &str) {
        let Some(known) = self.topics.get_mut(topic) else { return };
        known.is_wanted = false;
        match known.state {
            State::Unsubscribed => drop(self.topics.remove(topic)),
            State::Subscribed => self.queue.push_back((topic.into(), None)),
            State::Changing => {}
        }
    }

    /// Wants every topic, or those of [`listen`](Self::listen) alone. `waiter` waits until it is so, or the
    /// other is wanted again.
    pub(crate) fn hear_all(&mut self, all: bool, waiter: W) {
        if all != self.wants_all {
            self.wants_all = all;
            self.released.append(&mut self.switching);
            if self.is_connected {
                self.queue.extend(self.topics.keys().map(|name| (name.clone(), None)));
            }
        }
        if !self.is_connected || self.has_pattern != all {
            self.switching.push(waiter);
        } else {
            self.released.push(waiter);
        }
    }

    /// A connection has begun, with the pattern and without topics.
    pub(crate) fn connected(&mut self) {
        self.is_connected = true;
        self.has_pattern = true;
        if self.wants_all {
            self.released.append(&mut self.switching);
        } else {
            self.queue.extend(self.topics.keys().map(|name| (name.clone(), None)));
        }
    }

    /// The connection has ended. Nobody waits for topics any longer.
    pub(crate) fn disconnected(&mut self) {
        self.is_connected = false;
        self.has_pattern = false;
        self.released.extend(self.queue.drain(..).filter_map(|(_, waiter)| waiter));
        self.topics.retain(|_, topic| topic.is_wanted);
        for topic in self.topics.values_mut() {
            topic.state = State::Unsubscribed;
        }
    }

    /// The topics that are wanted by name.
    pub(crate) fn wanted(&self) -> Vec<Arc<str>> {
        let wanted = self.topics.iter().filter(|(_, topic)| topic.is_wanted);
        wanted.map(|(name, _)| name.clone()).collect()
    }

    /// Returns whether there is something to do.
    pub(crate) fn has_step(&self) -> bool {
        self.is_connected && (self.wants_all != self.has_pattern || !self.queue.is_empty())
    }

    /// Returns what is to be done. The next step follows when this one is [done](Self::done).
    pub(crate) fn next(&mut self) -> Option<Step<W>> {
        if !self.is_connected {
            return None;
        }
        if self.wants_all && !self.has_pattern {
            return Some(Step::AddPattern);
        }
        while !self.queue.is_empty() {
            let (mut add, mut remove, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
            for (name, waiter) in self.queue.drain(..BATCH.min(self.queue.len())) {
                let Some(topic) = self.topics.get_mut(&name) else {
                    self.released.extend(waiter);
                    continue;
                };
                let batch = match (topic.is_wanted && !self.wants_all, topic.state) {
                    (true, State::Unsubscribed) => &mut add,
                    (false, State::Subscribed) => &mut remove,
                    // In this step, by an earlier entry.
                    (_, State::Changing) => {
                        waiting.extend(waiter);
                        continue;
                    }
                    _ => {
                        self.released.extend(waiter);
                        continue;
                    }
                };
                topic.state = State::Changing;
                batch.push(name);
                waiting.extend(waiter);
            }
            if !add.is_empty() || !remove.is_empty() {
                return Some(Step::Topics { add, remove, waiting });
            }
        }
        // After a reconnection it had every topic.
        self.queue.shrink_to(BATCH);
        if !self.wants_all && self.has_pattern {
            // What is listened to from now on is not heard by the pattern.
            self.has_pattern = false;
            return Some(Step::RemovePattern);
        }
        None
    }

    /// The connection has confirmed a step.
    pub(crate) fn done(&mut self, step: Step<W>) {
        match step {
            Step::AddPattern => {
                self.has_pattern = true;
                if self.wants_all {
                    self.released.append(&mut self.switching);
                }
            }
            Step::RemovePattern => {
                if !self.wants_all {
                    self.released.append(&mut self.switching);
                }
            }
            Step::Topics { add, remove, waiting } => {
                for name in add {
                    self.changed(name, State::Subscribed);
                }
                for name in remove {
                    self.changed(name, State::Unsubscribed);
                }
                self.released.extend(waiting);
            }
        }
    }

    /// A topic is in a new state, which may not be the one that is wanted by now.
    fn changed(&mut self, name: Arc<str>, state: State) {
        let Some(topic) = self.topics.get_mut(&name) else { return };
        topic.state = state;
        let is_heard = state == State::Subscribed;
        if !is_heard && !topic.is_wanted {
            self.topics.remove(&name);
        } else if is_heard != (topic.is_wanted && !self.wants_all) {
            self.queue.push_back((name, None));
        }
    }
}

#[cfg(test)]
mod tests;
