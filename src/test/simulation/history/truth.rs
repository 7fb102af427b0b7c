//! [`Truth`]: what was kept, in its order.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::TOPICS;
use crate::history::Position;
use crate::test::Bus;

/// Knows everything that is kept.
pub(super) struct Truth {
    bus: Bus,
    kept: RefCell<[Vec<(Position, u64)>; TOPICS.len()]>,
    /// Who receives a message of its own not or once.
    from: BTreeMap<u64, u64>,
}

impl Truth {
    pub(super) fn new(bus: &Bus) -> Self {
        // From now on it is recorded.
        drop(bus.take_kept());
        Self { bus: bus.clone(), kept: RefCell::default(), from: BTreeMap::new() }
    }

    /// A client sends a message to all but itself.
    pub(super) fn sends(&mut self, number: u64, client: u64) {
        self.from.insert(number, client);
    }

    /// Whether a message is a client's own.
    pub(super) fn is_from(&self, number: u64, client: u64) -> bool {
        self.from.get(&number) == Some(&client)
    }

    pub(super) fn has(&self, number: u64, position: Position) -> bool {
        self.update();
        self.kept.borrow().iter().flatten().any(|kept| *kept == (position, number))
    }

    /// Where a message stands among all of its topic.
    pub(super) fn index(&self, topic: usize, number: u64) -> Option<usize> {
        self.update();
        self.kept.borrow()[topic].iter().position(|(_, it)| *it == number)
    }

    /// How many messages stand up to a position.
    pub(super) fn count(&self, topic: usize, position: Position) -> usize {
        self.update();
        let is_in = |(it, _): &&(Position, u64)| {
            it.epoch < position.epoch || it.epoch == position.epoch && it.number <= position.number
        };
        self.kept.borrow()[topic].iter().filter(is_in).count()
    }

    pub(super) fn numbers(&self, topic: usize) -> Vec<u64> {
        self.update();
        self.kept.borrow()[topic].iter().map(|(_, number)| *number).collect()
    }

    fn update(&self) {
        for (topic, message) in self.bus.take_kept() {
            let text = String::from_utf8_lossy(&message.content).into_owned();
            let number = text.split('#').nth(1).and_then(|number| number.parse().ok());
            let number = number.expect("the payload is in the content");
            let topic = TOPICS.iter().position(|name| *name == topic).expect("a topic");
            self.kept.borrow_mut()[topic].push((message.position, number));
        }
    }
}
