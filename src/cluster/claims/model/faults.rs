//! What befalls the nodes of the model, and how it ends.

use super::super::record::{Deposit, SessionRecord};
use super::node::Node;
use super::store::{Faults, Request};
use super::{ID, NODES, SOCKET, World};
use crate::adapter::NodeId;

impl World {
    /// The process of a node ends, and another begins.
    pub(super) fn kill(&mut self, place: usize, skew: u64) {
        self.last_node += 1;
        let skew = (skew % 16).saturating_sub(12) * 3000;
        self.is_skewed |= skew > 0;
        self.nodes[place] = Node::new(NodeId(self.last_node), skew);
    }

    /// The process of a node stands still.
    pub(super) fn stall(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        node.is_stalled = true;
        node.running.iter_mut().for_each(|running| running.was_stalled = true);
    }

    /// A node goes on, or hears the engine again.
    pub(super) fn mend(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if std::mem::take(&mut node.is_stalled) | std::mem::take(&mut node.is_cut) {
            node.records.check_all();
        }
        for message in std::mem::take(&mut node.held_back) {
            self.receive(place, message);
        }
    }

    /// The session ends.
    pub(super) fn release(&mut self, place: usize) {
        let (now, node) = (self.now, &mut self.nodes[place]);
        if !node.is_stalled && std::mem::take(&mut node.has_session) {
            node.records.release(ID, now);
        }
    }

    /// A node leaves the session in the store.
    pub(super) fn deposit(&mut self, place: usize) {
        let (now, node) = (self.now, &mut self.nodes[place]);
        if !node.is_stalled && std::mem::take(&mut node.has_session) {
            let Some(held) = node.records.forget(ID) else { return };
            let mut record = SessionRecord::new(node.id, held.generation, SOCKET);
            let expires = node.time(now) + 60_000;
            record.deposit = Some(Deposit { state: "state".into(), expires });
            let (id, value) = (node.id, Some(record.encode()));
            self.send_to_store(id, Request::task(0, held.seen, value));
        }
    }

    /// Mends everything, lets the client come once more, and checks what is there in the end.
    pub(super) fn settle(&mut self) {
        self.store.faults = Faults::default();
        (0..NODES).for_each(|place| self.mend(place));
        (0..4).for_each(|_| self.advance(2000));
        let before = self.count;
        let comes = if self.is_skewed { 2 } else { 1 };
        // It comes again if its session ends, which one of a node with a later clock may do.
        for _ in 0..comes {
            self.connect(0);
            (0..45).for_each(|_| self.advance(60_000));
        }
        assert!(self.count - before < 1000, "the nodes do not come to rest");
        assert!(self.is_skewed || self.nodes[0].has_session, "it is not where the client is");
        let has_it = |node: &&mut Node| node.has_session;
        let owners: Vec<_> = self.nodes.iter_mut().filter(has_it).collect();
        assert_eq!(owners.len(), 1, "nodes have the session");
        for owner in owners {
            let held = owner.records.forget(ID).expect("it has a record");
            let record = self.store.session().expect("the store has a record");
            assert!(held.is_recorded);
            assert_eq!((record.owner(), record.generation), (owner.id, held.generation));
        }
    }
}
