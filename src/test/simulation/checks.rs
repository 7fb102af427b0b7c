//! What must be true: dead nodes leave no presences, and everything is right once it is mended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::client::Tracked;
use super::node::Node;
use super::view::View;
use super::{NODES, RECOVERY, SLOW, Simulation, TOPICS, USERS};
use crate::adapter::{Adapter, Link, NodeId, NodeInbox};
use crate::test::{Bus, BusAdapter};

/// How long the presences of a node that is dead may stay.
const GHOSTS: Duration = Duration::from_secs(6);

impl Simulation {
    /// When the presences of a dead node must be gone.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.ghosts.iter().map(|(since, _)| *since + GHOSTS).min()
    }

    /// Asserts that nodes which hear the others show no presences of dead ones.
    pub(super) async fn check_ghosts(&mut self) {
        let now = Instant::now();
        let is_due = |(since, _): &mut (Instant, Vec<String>)| now >= *since + GHOSTS;
        for (since, keys) in self.ghosts.extract_if(.., is_due).collect::<Vec<_>>() {
            let nodes = self.nodes.iter().flatten();
            for node in nodes.filter(|node| node.calm_since.is_some_and(|calm| calm <= since)) {
                for topic in TOPICS {
                    let list = list(node, topic).await;
                    // A client that has come to another node is there.
                    let is_back = |key: &String| {
                        let mut clients = self.clients.iter().flatten();
                        clients.any(|it| it.key == *key && !it.is_on_dead_node())
                    };
                    let ghost = keys.iter().find(|key| list.contains_key(*key) && !is_back(key));
                    assert_eq!(ghost, None, "node {} shows a dead node's presence", node.number);
                }
            }
        }
    }

    /// Mends everything, waits, and checks that everything is right.
    pub(super) async fn settle(&mut self) {
        self.mend();
        self.pass(RECOVERY).await;
        self.check_nodes();
        self.check_presence().await;
        self.check_sessions();
        let spans = self.clients.iter().flatten().flat_map(|client| client.spans());
        self.record.check(spans);
        self.clients.iter_mut().flatten().for_each(|client| client.begin_era(&self.record));
        self.record.begin_era(&self.nodes);
        self.check_versions().await;
    }

    /// All nodes agree on who is up.
    fn check_nodes(&self) {
        let alive: Vec<_> = self.nodes.iter().flatten().map(|node| node.id).collect();
        for node in self.nodes.iter().flatten() {
            let known = node.endpoint.nodes().into_iter().filter(|other| other.is_up);
            let mut known: Vec<_> = known.map(|other| other.id).collect();
            known.sort_unstable();
            let mut alive = alive.clone();
            alive.sort_unstable();
            assert_eq!(known, alive, "as node {} sees it", node.number);
        }
    }

    /// All nodes list what the clients track, and so do the clients.
    async fn check_presence(&self) {
        for (index, topic) in TOPICS.into_iter().enumerate() {
            let mut lists = Vec::new();
            for node in self.nodes.iter().flatten() {
                lists.push(list(node, topic).await);
            }
            let Some(list) = lists.first() else { continue };
            assert!(lists.iter().all(|other| other == list), "{topic}: {lists:?}");
            let mut listed = list.clone();
            for client in self.clients.iter().flatten() {
                let metas = listed.remove(&client.key);
                let metas: Vec<u64> = metas.into_iter().flatten().map(|(_, meta)| meta).collect();
                match client.tracked(index) {
                    Tracked::Meta(meta) => assert_eq!(metas, [meta], "{topic}: {}", client.key),
                    Tracked::Nothing => assert!(metas.is_empty(), "{topic}: {}", client.key),
                    Tracked::Unknown => {}
                }
                if !client.is_away() && client.has_joined(index) {
                    assert_eq!(
                        client.topics[index].view, *list,
                        "{topic}, as {} sees it",
                        client.key
                    );
                }
            }
            assert_eq!(listed, View::new(), "{topic}: nobody tracks them");
        }
    }

    /// Those that were disconnected are, and no others.
    fn check_sessions(&self) {
        for node in self.nodes.iter().flatten() {
            for user in USERS {
                let clients = self.clients.iter().flatten().filter(|it| it.user == user);
                let elsewhere = clients.clone().filter(|it| it.at != node.origin());
                let is_untold = self.record.may_be_untold(node.slot);
                let elsewhere = elsewhere.filter(|it| it.may_be_anywhere(is_untold));
                let (mut least, mut most) = (0, elsewhere.count());
                let clients = clients.filter(|it| it.at == node.origin());
                for client in clients {
                    let (may_close, must_close) = client.is_closed(&self.record);
                    assert!(!must_close || client.is_away(), "{} was disconnected", client.key);
                    least += usize::from(!may_close);
                    most += usize::from(!must_close);
                }
                let sockets = node.endpoint.sockets(user);
                assert!(
                    (least..=most).contains(&sockets),
                    "node {} has {sockets} of {user}, not {least} to {most}",
                    node.number
                );
            }
        }
    }

    /// Everyone writes a version that all others read.
    async fn check_versions(&mut self) {
        self.observer.versions().clear();
        (0..NODES).for_each(|slot| self.broadcast(slot, slot, 1, false));
        self.pass(SLOW).await;
        let written = std::mem::take(&mut *self.observer.versions());
        for node in self.nodes.iter().flatten() {
            let others = self.nodes.iter().flatten().filter(|other| other.id != node.id);
            let max = others.map(|other| other.max_version).min();
            // A node that died may come back, and may have read less.
            let allowed = 1..=max.map_or(node.max_version, |max| max.min(node.max_version));
            let version = written.get(&node.id).expect("it has written something");
            assert!(allowed.contains(version), "node {} writes {version}", node.number);
        }
    }
}

async fn list(node: &Node, topic: &str) -> View {
    let list = node.endpoint.presence().list(topic).await;
    let present = list.iter().map(|(key, present)| {
        let metas = present.metas().iter().map(|meta| {
            let value: serde_json::Value = meta.parse().expect("an object");
            (meta.phx_ref().to_owned(), value["v"].as_u64().expect("a number"))
        });
        (key.to_owned(), metas.collect())
    });
    present.collect()
}

/// Hears all that the nodes publish, and is not heard.
pub(super) struct Observer {
    heard: Arc<Heard>,
    _adapter: BusAdapter,
}

/// The version of the last broadcast of each node.
#[derive(Default)]
struct Heard(Mutex<BTreeMap<NodeId, u8>>);

impl Observer {
    pub(super) fn new(bus: &Bus) -> Self {
        let (heard, adapter) = (Arc::<Heard>::default(), bus.adapter());
        adapter.start(NodeId(u64::MAX), heard.clone());
        Self { heard, _adapter: adapter }
    }

    fn versions(&self) -> parking_lot::MutexGuard<'_, BTreeMap<NodeId, u8>> {
        self.heard.0.lock()
    }
}

impl NodeInbox for Heard {
    fn receive(&self, frame: Bytes) {
        let number = |at: usize| u64::from_be_bytes(frame[at..at + 8].try_into().expect("8 bytes"));
        // Frames to topics are numbered.
        if number(9) > 0 {
            self.0.lock().insert(NodeId(number(1)), frame[0] & 0xf);
        }
    }

    fn link(&self, _: Link) {}

    fn lost(&self, _: Bytes) {}
}
