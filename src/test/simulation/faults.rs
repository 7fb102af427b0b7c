//! What breaks, and what mends it.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::node::Node;
use super::{NODES, Simulation};
use crate::cluster::Listen;
use crate::test::Path;

impl Simulation {
    /// Starts a node, unless there is one. The bits of `value` say how it is configured, and whether its line is cut.
    pub(super) fn start(&mut self, slot: usize, value: usize) {
        if self.nodes[slot].is_some() {
            return;
        }
        self.started += 1;
        self.record.begin_node(self.started);
        let adapter = self.bus.adapter();
        let adapter = if self.is_ordered { adapter } else { adapter.unordered() };
        let is_cut = value % 16 == 15;
        if is_cut {
            self.trouble();
            self.bus.cut(adapter.place());
        }
        let mut node = Node::start(slot, self.started, value, self.forgets, adapter);
        node.is_line_whole = !is_cut;
        node.calm_since = (!is_cut && !self.is_away).then(Instant::now);
        if node.listens_to_topics {
            self.record.be_unsteady(slot);
        }
        let max = |node: &Node| node.max_version;
        if self.nodes.iter().flatten().any(|other| max(other) > max(&node)) {
            // It cannot read what the others write until they have heard it.
            self.trouble();
        }
        self.nodes[slot] = Some(node);
    }

    /// A node's process dies, with the connections of its clients.
    pub(super) fn kill(&mut self, slot: usize) {
        if let Some(node) = &self.nodes[slot] {
            self.bus.cut(node.place);
            self.end(slot, false);
        }
    }

    pub(super) async fn shut_down(&mut self, slot: usize) {
        let Some(node) = &self.nodes[slot] else { return };
        let (before, endpoint, origin) = (Instant::now(), node.endpoint.clone(), node.origin());
        self.clients.iter_mut().flatten().for_each(|client| client.expect_restart(origin));
        let mut shutdown = pin!(endpoint.shutdown(SHUTDOWN));
        // Clients whose connections end do not come back before it is over.
        while timeout(Duration::from_millis(10), &mut shutdown).await.is_err() {
            self.read();
        }
        assert!(before.elapsed() <= 2 * SHUTDOWN + Duration::from_secs(1));
        self.end(slot, true);
    }

    /// A node has ended, and what it alone knew is lost.
    fn end(&mut self, slot: usize, in_order: bool) {
        let Some(node) = self.nodes[slot].take() else { return };
        self.record.end(node.number);
        let mut keys = Vec::new();
        for place in &mut self.clients {
            let Some(client) = place.as_mut().filter(|client| client.at.number == node.number)
            else {
                continue;
            };
            keys.push(client.key.clone());
            if !client.lose_node(in_order, &self.nowhere, &mut self.record) {
                *place = None;
            }
        }
        self.ghosts.push((Instant::now(), keys));
    }

    /// The nodes are back one after another, with so many times 30 ms between two.
    pub(super) fn stop_or_restart(&mut self, apart: usize) {
        self.trouble();
        self.is_away = !self.is_away;
        if self.is_away {
            self.bus.stop();
            for node in self.nodes.iter_mut().flatten() {
                node.calm_since = None;
            }
        } else {
            let apart = Duration::from_millis(apart as u64 * 30);
            self.bus.restart_apart(apart);
            for node in self.nodes.iter_mut().flatten().filter(|node| node.is_line_whole) {
                node.calm_since = Some(Instant::now() + LAST * apart);
            }
        }
    }

    pub(super) fn cut(&mut self, slot: usize) {
        if let Some(place) = self.break_line(slot) {
            self.bus.cut(place);
        }
    }

    pub(super) fn stall(&mut self, slot: usize) {
        if self.is_calm(slot)
            && let Some(place) = self.break_line(slot)
        {
            self.bus.stall(place);
        }
    }

    pub(super) fn deafen(&mut self, slot: usize) {
        if self.is_calm(slot)
            && let Some(place) = self.break_line(slot)
        {
            (0..NODES).for_each(|from| self.record.lose_silently(from, slot));
            self.bus.deafen(place);
        }
    }

    fn is_calm(&self, slot: usize) -> bool {
        self.nodes[slot].as_ref().is_some_and(|node| node.calm_since.is_some())
    }

    /// Returns the place of a node whose line is about to break.
    fn break_line(&mut self, slot: usize) -> Option<usize> {
        self.nodes[slot].as_ref()?;
        self.trouble();
        let node = self.nodes[slot].as_mut()?;
        (node.is_line_whole, node.calm_since) = (false, None);
        Some(node.place)
    }

    pub(super) fn heal(&mut self, slot: usize) {
        if let Some(node) = self.nodes[slot].as_mut().filter(|node| !node.is_line_whole) {
            node.is_line_whole = true;
            node.calm_since = (!self.is_away).then(Instant::now);
            self.bus.heal(node.place);
        }
    }

    /// Loses the next frame from one node to another.
    pub(super) fn lose(&mut self, from: usize, to: usize) {
        if self.set_path(from, to, Path { lose: 1, ..Path::default() }) {
            self.trouble();
            self.record.lose_silently(from, to);
        }
    }

    /// Repeats the next frame.
    pub(super) fn repeat(&mut self, from: usize, to: usize) {
        if self.set_path(from, to, Path { repeat: 1, ..Path::default() }) {
            self.record.repeat(from, to);
        }
    }

    /// Delays all frames.
    pub(super) fn slow_down(&mut self, from: usize, to: usize, value: usize) {
        let delay = Duration::from_millis(value as u64 * 8);
        let is_unordered = !self.is_ordered;
        let has_two_orders = is_unordered && value.is_multiple_of(2);
        let path = Path { delay, is_unordered, has_two_orders, ..Path::default() };
        self.set_path(from, to, path);
    }

    /// Loses all frames.
    pub(super) fn cut_path(&mut self, from: usize, to: usize) {
        if self.set_path(from, to, Path { is_cut: true, ..Path::default() }) {
            self.trouble();
            self.record.lose_silently(from, to);
        }
    }

    pub(super) fn mend_path(&mut self, from: usize, to: usize) {
        self.set_path(from, to, Path::default());
    }

    fn set_path(&mut self, from: usize, to: usize, path: Path) -> bool {
        let (Some(sender), Some(recipient)) = (&self.nodes[from], &self.nodes[to]) else {
            return false;
        };
        if from == to {
            return false;
        }
        self.bus.set_path(sender.place, recipient.place, path);
        true
    }

    pub(super) fn switch_listening(&mut self, slot: usize, value: usize) {
        let Some(node) = &mut self.nodes[slot] else { return };
        node.listens_to_topics = value.is_multiple_of(2);
        self.record.be_unsteady(slot);
        let listen = if node.listens_to_topics { Listen::Topics } else { Listen::All };
        node.endpoint.pubsub().listen(listen);
    }

    /// Mends everything.
    pub(super) fn mend(&mut self) {
        if self.is_away {
            self.stop_or_restart(0);
        }
        (0..NODES).for_each(|slot| self.heal(slot));
        for from in 0..NODES {
            (0..NODES).for_each(|to| self.mend_path(from, to));
        }
    }

    fn trouble(&mut self) {
        self.record.trouble();
        self.clients.iter_mut().flatten().for_each(|client| client.trouble());
    }
}

/// When the last node is back, in the time between two.
const LAST: u32 = 1 + NODES as u32;

const SHUTDOWN: Duration = Duration::from_millis(200);
