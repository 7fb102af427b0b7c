//! Clients that wander between three nodes which share the histories of topics, while everything breaks. What each receives
//! is compared with what the engine has kept.

mod client;
mod room;
mod truth;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use self::client::Client;
use self::room::builder;
use self::truth::Truth;
use crate::adapter::NodeId;
use crate::cluster::ClusterConfig;
use crate::history::{Position, PublishError};
use crate::test::{Bus, HistoryPath, Path, Place};
use crate::{Endpoint, History};

const NODES: usize = 3;
const CLIENTS: usize = 6;
const TOPICS: [&str; 2] = ["log:0", "log:1"];

/// How soon everything is as it should be once it is mended: clients are told of gaps within 10 s.
const RECOVERY: Duration = Duration::from_secs(12);

/// Runs the steps that the bytes encode, two bytes each, then mends everything and waits.
///
/// # Panics
/// If a client receives a message of a topic twice, in another order than others, or not at all, without a join that has
/// said so; if it receives what was not kept, or what was published is not; or if something takes too long.
pub fn walk(bytes: &[u8]) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        sleep(Duration::from_millis(1)).await;
        let mut simulation = Simulation::new().await;
        for step in bytes.chunks_exact(2) {
            simulation.step(step[0], usize::from(step[1])).await;
        }
        simulation.finish().await;
    });
}

/// A node with a small application.
struct Node {
    endpoint: Endpoint<u64>,
    place: Place,
    /// Names it among all that were ever started.
    number: u64,
}

struct Simulation {
    bus: Bus,
    is_away: bool,
    nodes: [Option<Node>; NODES],
    clients: Vec<Client>,
    truth: Truth,
    /// Where the clients of nodes are that have ended.
    nowhere: Endpoint<u64>,
    started: u64,
    /// The last message.
    sent: u64,
    publishing: Vec<(u64, JoinHandle<Result<Position, PublishError>>)>,
    /// Whether nothing has broken yet.
    is_whole: bool,
    is_traced: bool,
    began: Instant,
}

impl Simulation {
    async fn new() -> Self {
        let bus = Bus::new();
        let nowhere = builder().build();
        let mut simulation = Self {
            truth: Truth::new(&bus),
            is_away: false,
            nodes: Default::default(),
            clients: Vec::new(),
            nowhere,
            started: 0,
            sent: 0,
            publishing: Vec::new(),
            is_whole: true,
            is_traced: std::env::var_os("TRACE").is_some(),
            began: Instant::now(),
            bus,
        };
        (0..NODES).for_each(|slot| simulation.start(slot));
        sleep(Duration::from_secs(6)).await;
        for number in 0..CLIENTS {
            let node = simulation.nodes[number % NODES].as_ref().expect("all are there");
            let client = Client::connect(&node.endpoint, node.number, number as u64).await;
            simulation.clients.push(client);
            for topic in 0..TOPICS.len() {
                simulation.join(number, topic).await;
            }
        }
        simulation
    }

    async fn step(&mut self, step: u8, value: usize) {
        let (slot, rest) = (value % NODES, value / NODES);
        let (topic, high) = (rest % TOPICS.len(), rest / TOPICS.len());
        let client = value % CLIENTS;
        self.trace(format_args!("step {} {value}", step % 40));
        match step % 40 {
            0..=4 => self.broadcast(slot, topic, 1 + high % 3),
            5..=7 => self.publish(slot, topic),
            8 => self.say(client, value / CLIENTS % TOPICS.len()).await,
            9 => self.leave(client, value / CLIENTS % TOPICS.len()).await,
            10 | 11 => self.join_if_left(client, value / CLIENTS % TOPICS.len()).await,
            12..=15 => self.wander(client, value / CLIENTS).await,
            16 => self.clients[client].detach(),
            17 => self.kill(slot),
            18 => self.shut_down(slot).await,
            19..=21 => self.start(slot),
            22 => self.stop_or_restart(rest),
            23 => self.break_line(slot, Bus::cut),
            24 => self.break_line(slot, Bus::stall),
            25 => self.break_line(slot, Bus::deafen),
            26..=28 => self.heal(slot),
            29 => self.set_history(slot, HistoryPath { lose: 1 + high as u32 % 3, ..healthy() }),
            30 => self.set_history(slot, HistoryPath { repeat: 1 + high as u32, ..healthy() }),
            31 => {
                let delay = Duration::from_millis(rest as u64 * 5);
                self.set_history(slot, HistoryPath { delay, ..healthy() });
            }
            32 => {
                let read_delay = Duration::from_millis(rest as u64 * 10);
                self.set_history(slot, HistoryPath { read_delay, ..healthy() });
            }
            33 => self.set_history(slot, HistoryPath { is_away: true, ..healthy() }),
            34 => self.set_history(slot, HistoryPath { lose_answers: 2, ..healthy() }),
            35 if value < 40 => self.forget(value < 20),
            36 => self.cut_path(slot, topic),
            37 => self.pass(Duration::from_millis(value as u64 * 20)).await,
            _ => self.pass(Duration::from_millis(value as u64)).await,
        }
        self.read();
    }

    fn trace(&self, what: std::fmt::Arguments<'_>) {
        if self.is_traced {
            eprintln!("{:?} {what}", self.began.elapsed());
        }
    }

    /// Lets time pass, in which the clients read, and those whose channels have ended join again.
    async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep(Duration::from_millis(200).min(until - Instant::now())).await;
            self.read();
            for client in 0..CLIENTS {
                for topic in 0..TOPICS.len() {
                    if self.clients[client].has_lost(topic) {
                        self.join(client, topic).await;
                    }
                }
            }
        }
    }

    fn read(&mut self) {
        for client in &mut self.clients {
            client.read(&self.truth, self.is_traced);
        }
    }

    async fn join(&mut self, client: usize, topic: usize) {
        let may_fail = !self.is_whole;
        self.clients[client].join(topic, &self.truth, may_fail, self.is_traced).await;
    }

    async fn join_if_left(&mut self, client: usize, topic: usize) {
        if !self.clients[client].has_joined(topic) {
            self.join(client, topic).await;
        }
    }

    async fn leave(&mut self, client: usize, topic: usize) {
        self.clients[client].leave(topic, &self.truth, self.is_traced).await;
    }

    /// A client pushes a message that it does not receive itself.
    async fn say(&mut self, client: usize, topic: usize) {
        self.sent += 1;
        self.truth.sends(self.sent, client as u64);
        let number = self.sent;
        self.clients[client].say(topic, number, &self.truth, self.is_traced).await;
    }

    fn broadcast(&mut self, slot: usize, topic: usize, count: usize) {
        let Some(node) = &self.nodes[slot] else { return };
        for _ in 0..count {
            self.sent += 1;
            node.endpoint.broadcast(TOPICS[topic], "n", payload(self.sent));
        }
    }

    fn publish(&mut self, slot: usize, topic: usize) {
        let Some(node) = &self.nodes[slot] else { return };
        self.sent += 1;
        let (pubsub, payload) = (node.endpoint.pubsub().clone(), payload(self.sent));
        let publish = async move { pubsub.publish(TOPICS[topic], "n", payload).await };
        self.publishing.push((self.sent, tokio::spawn(publish)));
    }

    /// A client loses its connection, if it has one, and comes to a node.
    async fn wander(&mut self, client: usize, value: usize) {
        self.clients[client].read(&self.truth, self.is_traced);
        self.clients[client].detach();
        let slots = (0..NODES).map(|slot| (slot + value) % NODES);
        let Some(slot) = slots.into_iter().find(|slot| self.nodes[*slot].is_some()) else { return };
        self.come_to(client, slot).await;
    }

    async fn come_to(&mut self, client: usize, slot: usize) {
        let Some(node) = &self.nodes[slot] else { return };
        self.trace(format_args!("client {client} comes to node {}", node.number));
        // No two connects of a client are at the same moment.
        sleep(Duration::from_millis(1)).await;
        if self.clients[client].come_to(&node.endpoint, node.number).await {
            for topic in 0..TOPICS.len() {
                if self.clients[client].wants(topic) {
                    self.join(client, topic).await;
                }
            }
        }
    }

    fn start(&mut self, slot: usize) {
        if self.nodes[slot].is_some() {
            return;
        }
        self.started += 1;
        let adapter = self.bus.adapter();
        let place = adapter.place();
        let mut config = ClusterConfig::new().gap_pace(Duration::from_secs(1));
        config.node = Some(NodeId(self.started));
        let endpoint = builder().adapter(adapter).cluster(config);
        let endpoint = endpoint.history("log:*", History::last(40)).build();
        self.nodes[slot] = Some(Node { endpoint, place, number: self.started });
    }

    /// A node's process dies, with the connections of its clients.
    fn kill(&mut self, slot: usize) {
        self.is_whole = false;
        let Some(node) = self.nodes[slot].take() else { return };
        self.bus.cut(node.place);
        let at = node.number;
        for client in self.clients.iter_mut().filter(|client| client.at == at) {
            client.lose_node(&self.nowhere);
        }
    }

    async fn shut_down(&mut self, slot: usize) {
        self.is_whole = false;
        let Some(node) = &self.nodes[slot] else { return };
        let (endpoint, at) = (node.endpoint.clone(), node.number);
        let time = Duration::from_millis(400);
        let shutdown = tokio::spawn(async move { endpoint.shutdown(time).await });
        sleep(time / 4).await;
        // Some come to other nodes at once, the others are left behind.
        for client in 0..CLIENTS {
            if self.clients[client].at == at && client % 2 == 0 {
                self.wander(client, slot + 1).await;
            }
        }
        shutdown.await.expect("it shuts down");
        self.read();
        self.kill(slot);
    }

    fn stop_or_restart(&mut self, apart: usize) {
        self.is_whole = false;
        self.is_away = !self.is_away;
        if self.is_away {
            self.bus.stop();
        } else {
            self.bus.restart_apart(Duration::from_millis(apart as u64 % 8 * 30));
        }
    }

    fn break_line(&mut self, slot: usize, fault: fn(&Bus, Place)) {
        let Some(node) = &self.nodes[slot] else { return };
        self.is_whole = false;
        fault(&self.bus, node.place);
    }

    fn heal(&self, slot: usize) {
        let Some(node) = &self.nodes[slot] else { return };
        self.bus.heal(node.place);
        self.bus.set_history(node.place, healthy());
        for other in self.nodes.iter().flatten() {
            self.bus.set_path(other.place, node.place, Path::default());
        }
    }

    fn set_history(&mut self, slot: usize, path: HistoryPath) {
        let Some(node) = &self.nodes[slot] else { return };
        self.is_whole = false;
        self.bus.set_history(node.place, path);
    }

    fn cut_path(&mut self, from: usize, to: usize) {
        let (Some(from), Some(to)) = (&self.nodes[from], &self.nodes[to]) else { return };
        self.is_whole = false;
        let path = Path { is_cut: true, ..Path::default() };
        self.bus.set_path(from.place, to.place, path);
    }

    /// Everything that is kept is forgotten, or only the messages.
    fn forget(&mut self, everything: bool) {
        self.is_whole = false;
        if everything {
            self.bus.forget_histories();
        } else {
            self.bus.forget_messages();
        }
    }

    /// Mends everything, and then everybody has everything.
    async fn finish(&mut self) {
        if self.is_away {
            self.stop_or_restart(0);
        }
        (0..NODES).for_each(|slot| self.start(slot));
        (0..NODES).for_each(|slot| self.heal(slot));
        self.pass(RECOVERY).await;
        for client in 0..CLIENTS {
            if self.clients[client].is_away() {
                self.come_to(client, client % NODES).await;
            }
            for topic in 0..TOPICS.len() {
                self.join_if_left(client, topic).await;
            }
        }
        // What a quiet topic lacks shows at its next message.
        for topic in 0..TOPICS.len() {
            self.broadcast(0, topic, 1);
        }
        self.pass(RECOVERY).await;
        for topic in 0..TOPICS.len() {
            (0..NODES).for_each(|slot| self.broadcast(slot, topic, 2));
        }
        self.pass(Duration::from_secs(2)).await;
        for client in &self.clients {
            client.check_end(&self.truth);
        }
        for (number, publishing) in std::mem::take(&mut self.publishing) {
            if let Ok(position) = publishing.await.expect("no panic") {
                assert!(self.truth.has(number, position), "{number} at {position} is not kept");
            }
        }
    }
}

fn healthy() -> HistoryPath {
    HistoryPath::default()
}

fn payload(number: u64) -> Value {
    json!(format!("#{number}#"))
}
