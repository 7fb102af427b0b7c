//! A client of the crowd: a WebSocket with a session, in a room and in a lobby, which reads next to nothing of what it receives.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval_at, sleep};

use super::super::connection::{Connection, number};
use super::super::support::push;

/// How long a client waits, in ms, that has lost its connection, and each time that it is not let in.
const RETRIES: [u64; 4] = [20, 100, 250, 500];
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Which nodes are there, as a balancer knows it.
pub(crate) struct Paths {
    nodes: Mutex<Vec<Option<SocketAddr>>>,
    turn: AtomicUsize,
}

impl Paths {
    pub(crate) fn new(nodes: impl IntoIterator<Item = SocketAddr>) -> Self {
        let nodes = Mutex::new(nodes.into_iter().map(Some).collect());
        Self { nodes, turn: AtomicUsize::new(0) }
    }

    pub(crate) fn set(&self, index: usize, node: Option<SocketAddr>) {
        self.nodes.lock().expect("no panic")[index] = node;
    }

    fn next(&self) -> SocketAddr {
        let nodes = self.nodes.lock().expect("no panic");
        let there: Vec<_> = nodes.iter().flatten().collect();
        *there[self.turn.fetch_add(1, Ordering::Relaxed) % there.len()]
    }
}

/// What a client has seen.
#[derive(Default)]
pub(crate) struct Member {
    number: usize,
    pub(crate) room: usize,
    lobby: usize,
    /// The number of the last message.
    last: u64,
    /// The broadcasts, and when they came.
    pub(crate) heard: Vec<(usize, Instant)>,
    /// From when until when it was away.
    pub(crate) absences: Vec<(Instant, Instant)>,
    pub(crate) anew: usize,
    pub(crate) gaps: usize,
}

impl Member {
    pub(crate) fn new(number: usize, room: usize, lobby: usize) -> Self {
        Self { number, room, lobby, ..Self::default() }
    }

    /// Lives until it is over. Says `entered` when it has joined first.
    pub(crate) async fn live(
        mut self,
        paths: Arc<Paths>,
        entered: Arc<AtomicUsize>,
        mut is_over: watch::Receiver<bool>,
    ) -> Self {
        let (mut lost, mut tries) = (None, 0);
        while !*is_over.borrow() {
            let Some(mut connection) = self.come(&paths).await else {
                sleep(Duration::from_millis(RETRIES[tries.min(RETRIES.len() - 1)])).await;
                tries += 1;
                continue;
            };
            match lost.take() {
                Some(from) => self.absences.push((from, Instant::now())),
                None => drop(entered.fetch_add(1, Ordering::Relaxed)),
            }
            self.stay(&mut connection, &mut is_over).await;
            lost = Some(Instant::now());
            sleep(Duration::from_millis(RETRIES[0])).await;
            tries = 1;
        }
        self
    }

    /// Receives until the connection is lost, or it is over.
    async fn stay(&mut self, connection: &mut Connection, is_over: &mut watch::Receiver<bool>) {
        let first =
            tokio::time::Instant::now() + HEARTBEAT.mul_f64(self.number as f64 % 1000.0 / 1000.0);
        let mut heartbeat = interval_at(first, HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_there = tokio::select! {
                message = connection.next() => message.map(|message| self.receive(&message)),
                _ = heartbeat.tick() => {
                    connection.write(&push("9", "phoenix", "heartbeat", "{}")).await
                }
                _ = is_over.changed() => None,
            };
            if is_there.is_none() {
                return;
            }
        }
    }

    /// Connects and joins. `None` if that fails.
    async fn come(&mut self, paths: &Paths) -> Option<Connection> {
        let Self { number, room, lobby, last, .. } = self;
        let query = format!("user=u{number}&session=member-{number:016}&received={last}");
        let joins = [
            push("1", &format!("room:{room}"), "phx_join", "{}"),
            push("1", &format!("lobby:{lobby}"), "phx_join", "{}"),
        ];
        let mut connection = Connection::open(paths.next(), &query).await?;
        connection.write(&joins.concat()).await?;
        let mut joined = 0;
        while joined < joins.len() {
            let message = connection.next().await?;
            if !message.contains(r#""phx_reply""#) {
                self.receive(&message);
                continue;
            }
            let is = |name: &str| message.contains(&format!(r#""response":"{name}""#));
            self.anew += usize::from(is("new"));
            self.gaps += usize::from(is("gap"));
            joined += usize::from(message.contains(r#""status":"ok""#));
        }
        Some(connection)
    }

    fn receive(&mut self, message: &str) {
        let Some(number) = number(message) else { return };
        if number <= self.last {
            return;
        }
        self.last = number;
        if let Some((_, rest)) = message.split_once(r#","n","#) {
            let id = rest.trim_end_matches(']').parse().expect("a number");
            self.heard.push((id, Instant::now()));
        }
    }
}
