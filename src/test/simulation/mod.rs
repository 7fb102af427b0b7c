//! A simulation of three nodes on a faulty network, compared with a simple model. Used by the tests and the fuzz
//! targets; not part of the API.
//!
//! Bytes drive it, on a paused clock: nodes start, die and shut down, clients come, go and return, everyone
//! broadcasts, and lines between the nodes and their engine fail in every way that the [`Bus`] knows. The model
//! records what was sent while nothing was broken, which must arrive, and what was sent otherwise, of which
//! a client of a resumable session has to be told if it does not. From time to time, and in the end, everything is
//! mended, and then the nodes must agree.

mod checks;
mod client;
mod faults;
pub mod history;
mod node;
mod record;
mod view;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use self::checks::Observer;
use self::client::Client;
use self::node::{Node, User};
use self::record::{Reach, Record};
use super::Bus;
use crate::Endpoint;

const NODES: usize = 3;
const CLIENTS: usize = 8;
const TOPICS: [&str; 3] = ["room:0", "room:1", "room:2"];
const USERS: [&str; 3] = ["ann", "bob", "cid"];

/// How long a frame takes at most while nothing is broken.
const SLOW: Duration = Duration::from_millis(300);

/// How long an answer may take, whatever is broken.
const PATIENCE: Duration = Duration::from_secs(1);

/// How soon everything is as it should be once it is mended.
const RECOVERY: Duration = Duration::from_secs(8);

/// How many kinds of steps there are.
const STEPS: u8 = 50;

/// Runs the steps that the bytes encode, after one byte for what does not change during a run: then mends everything
/// and waits. Returns a digest of what the clients received and when.
///
/// # Panics
/// If a client receives a broadcast twice, in the wrong order or without reason; if it lacks one of which it was not
/// told; if the nodes do not agree in the end on who is there, or disagree with what the clients track; or if
/// something takes too long.
pub fn walk(bytes: &[u8]) -> u64 {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        // The timers of the runtime count from a moment before its clock was paused.
        sleep(Duration::from_millis(1)).await;
        let (first, steps) = bytes.split_first().unwrap_or((&0, bytes));
        let mut simulation = Simulation::new(*first).await;
        for step in steps.chunks_exact(2) {
            simulation.step(step[0], usize::from(step[1])).await;
        }
        simulation.finish().await;
        simulation.record.digest()
    })
}

struct Simulation {
    bus: Bus,
    /// Hears all that the nodes publish.
    observer: Observer,
    /// Whether frames keep their order.
    is_ordered: bool,
    /// Whether nodes that are silent for long are forgotten.
    forgets: bool,
    /// Whether the engine is away.
    is_away: bool,
    nodes: [Option<Node>; NODES],
    clients: [Option<Client>; CLIENTS],
    record: Record,
    /// Where the clients of nodes are that have ended.
    nowhere: Endpoint<User>,
    /// The number of nodes and clients ever started.
    started: u64,
    /// The keys of the clients of nodes that are dead, and since when.
    ghosts: Vec<(Instant, Vec<String>)>,
    /// The number of presences ever tracked or changed.
    metas: u64,
}

impl Simulation {
    async fn new(first: u8) -> Self {
        let is_ordered = first & 3 != 3;
        let bus = Bus::new();
        let mut simulation = Self {
            observer: Observer::new(&bus),
            bus,
            is_ordered,
            forgets: first & 4 != 0,
            is_away: false,
            nodes: Default::default(),
            clients: Default::default(),
            record: Record::new(is_ordered),
            nowhere: node::nowhere(),
            started: 0,
            ghosts: Vec::new(),
            metas: 0,
        };
        for slot in 0..NODES {
            let listens = usize::from(first >> (3 + slot)) & 1;
            let writes_new = usize::from(first >> (5 + slot)) & 1;
            simulation.start(slot, listens | writes_new << 1);
        }
        simulation.pass(Duration::from_secs(1)).await;
        simulation.record.begin_era(&simulation.nodes);
        for client in 0..CLIENTS {
            // Two of each three resumable, on two topics.
            simulation.join(client, client + client % 4 * NODES).await;
            simulation.join(client, client + 1).await;
        }
        simulation
    }

    /// Takes a step. The value says whose it is, and how.
    async fn step(&mut self, step: u8, value: usize) {
        let (slot, rest) = (value % NODES, value / NODES);
        let (topic, high) = (rest % TOPICS.len(), rest / TOPICS.len());
        self.record.trace(format_args!("step {} {value}", step % STEPS));
        match step % STEPS {
            0..=4 => self.join(value % CLIENTS, value / CLIENTS).await,
            5 => self.leave(value % CLIENTS, value / CLIENTS).await,
            6..=9 => self.broadcast(slot, topic, 1, high == 0),
            10..=11 => self.broadcast(slot, topic, 1 + high % 8, false),
            12 => self.local_broadcast(slot, topic),
            13..=14 => self.say(value % CLIENTS, value / CLIENTS).await,
            15 => self.disconnect(slot, USERS[topic]),
            16..=18 => self.track(value % CLIENTS, value / CLIENTS).await,
            19 => self.untrack(value % CLIENTS, value / CLIENTS).await,
            20 => self.detach(value % CLIENTS, value / CLIENTS),
            21..=22 => self.come_back(value % CLIENTS, value / CLIENTS).await,
            46..=48 => self.wander(value % CLIENTS, value / CLIENTS).await,
            49 => self.stray(value % CLIENTS, value / CLIENTS).await,
            23 => self.kill(slot),
            24 => self.shut_down(slot).await,
            25..=26 => self.start(slot, rest),
            27 => self.stop_or_restart(slot * 2),
            28 => self.cut(slot),
            29 => self.stall(slot),
            30 => self.deafen(slot),
            31..=33 => self.heal(slot),
            34 => self.lose(slot, topic),
            35 => self.repeat(slot, topic),
            36 => self.slow_down(slot, topic, high),
            37 => self.cut_path(slot, topic),
            38 => self.mend_path(slot, topic),
            39 => self.switch_listening(slot, rest),
            40..=41 => tokio::task::yield_now().await,
            42..=43 => self.pass(Duration::from_millis(value as u64)).await,
            44 => self.pass(Duration::from_millis(value as u64 * 16)).await,
            45 if value < 64 => self.settle().await,
            _ => self.pass(Duration::from_millis(500)).await,
        }
        self.read();
    }

    /// Lets time pass. The clients read several times a second.
    async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let now = Instant::now();
            let next = until.min(now + Duration::from_millis(400));
            let next = self.next_deadline().filter(|at| *at > now).map_or(next, |at| at.min(next));
            sleep(next - now).await;
            self.read();
            self.check_ghosts().await;
            if next == until {
                return;
            }
        }
    }

    /// The clients read what has come.
    fn read(&mut self) {
        let stays = self.clients.iter().flatten().flat_map(Client::stays).collect();
        self.record.expect_to_stay(stays);
        for place in &mut self.clients {
            if let Some(client) = place
                && !client.read(&mut self.record)
            {
                *place = None;
            }
        }
    }

    /// Mends everything and checks it, and again when all clients have come back.
    async fn finish(&mut self) {
        self.settle().await;
        if self.clients.iter().flatten().any(Client::is_away) {
            for client in 0..CLIENTS {
                self.come_back(client, client).await;
            }
            self.settle().await;
        }
    }

    /// A client joins a topic; a new one comes if there is none.
    async fn join(&mut self, client: usize, value: usize) {
        let slot = value % NODES;
        if self.clients[client].is_none()
            && let Some(node) = &self.nodes[slot]
        {
            self.started += 1;
            let user = USERS[(client + client / NODES) % USERS.len()];
            let is_resumable = !(value / NODES).is_multiple_of(4);
            let came = Client::connect(node, self.started, user, is_resumable, &self.record).await;
            self.clients[client] = Some(came);
        }
        self.request(client, async |it, record| it.join(value % TOPICS.len(), record).await).await;
    }

    async fn leave(&mut self, client: usize, value: usize) {
        self.request(client, async |it, record| it.leave(value % TOPICS.len(), record).await).await;
    }

    /// The client pushes a broadcast, which it receives itself or not.
    async fn say(&mut self, client: usize, value: usize) {
        let (topic, spares) = (value % TOPICS.len(), value / TOPICS.len() % 2 == 1);
        self.request(client, async |it, record| it.say(topic, spares, record).await).await;
    }

    async fn track(&mut self, client: usize, value: usize) {
        self.metas += 1;
        let meta = self.metas;
        self.request(client, async |it, record| it.track(value % TOPICS.len(), meta, record).await)
            .await;
    }

    async fn untrack(&mut self, client: usize, value: usize) {
        self.request(client, async |it, record| it.untrack(value % TOPICS.len(), record).await)
            .await;
    }

    fn detach(&mut self, client: usize, value: usize) {
        let Some(it) = &mut self.clients[client] else { return };
        if !it.detach(value.is_multiple_of(2), &mut self.record) {
            self.clients[client] = None;
        }
    }

    /// A client that is away comes to a node that is there, its own or another.
    async fn come_back(&mut self, client: usize, value: usize) {
        let Some(it) = &mut self.clients[client] else { return };
        let Some(node) = find(&self.nodes, it, value) else { return };
        if !it.come_back(node, &mut self.record).await {
            self.clients[client] = None;
        }
    }

    /// A client loses its connection and comes to several nodes, of which only the last one answers in time.
    async fn stray(&mut self, client: usize, value: usize) {
        self.detach(client, 1);
        for stop in 1..=1 + value / NODES % 2 {
            if let Some(it) = &mut self.clients[client]
                && let Some(node) = find(&self.nodes, it, value + stop)
            {
                it.pass_by(node, &mut self.record).await;
            }
        }
        self.come_back(client, value).await;
    }

    /// A client loses its connection and comes to a node at once.
    async fn wander(&mut self, client: usize, value: usize) {
        self.detach(client, 1);
        self.come_back(client, value).await;
    }

    /// A client that is there asks for something. It may find its connection closed.
    async fn request(
        &mut self,
        client: usize,
        request: impl AsyncFnOnce(&mut Client, &mut Record) -> bool,
    ) {
        if let Some(it) = &mut self.clients[client]
            && !request(it, &mut self.record).await
        {
            self.clients[client] = None;
        }
    }

    fn broadcast(&mut self, slot: usize, topic: usize, count: usize, is_long: bool) {
        let Some(node) = &self.nodes[slot] else { return };
        for _ in 0..count {
            let number = self.record.send(topic, node.origin(), Reach::All);
            let padding = if is_long { "x".repeat(LONG) } else { String::new() };
            node.endpoint.broadcast(TOPICS[topic], "n", payload(number, &padding));
        }
    }

    fn local_broadcast(&mut self, slot: usize, topic: usize) {
        let Some(node) = &self.nodes[slot] else { return };
        let number = self.record.send(topic, node.origin(), Reach::Local);
        node.endpoint.pubsub().local_broadcast(TOPICS[topic], "n", payload(number, ""));
    }

    fn disconnect(&mut self, slot: usize, user: &'static str) {
        let Some(node) = &self.nodes[slot] else { return };
        let origin = node.origin();
        self.record.disconnect(user);
        for client in self.clients.iter_mut().flatten() {
            client.be_disconnected(user, origin);
        }
        node.endpoint.disconnect(user);
    }
}

/// Finds a node to which a client may come: the one that `value` names, or one behind it.
fn find<'a>(nodes: &'a [Option<Node>], client: &Client, value: usize) -> Option<&'a Node> {
    let slots = (0..NODES).map(|slot| (slot + value) % NODES);
    let mut nodes = slots.filter_map(|slot| nodes[slot].as_ref());
    // A node that cannot ask the store begins every session anew, without knowing of others.
    nodes.find(|node| node.calm_since.is_some() || node.origin() == client.at)
}

/// The length of a broadcast that does not fit into one frame.
const LONG: usize = 100 << 10;

/// The largest frame of the engine.
const MAX_FRAME: usize = 80 << 10;

fn payload(number: usize, padding: &str) -> Value {
    json!({ "k": number, "padding": padding })
}
