//! A client of the crowd: a WebSocket with a session, in a room and in a lobby, which reads next to nothing of what it receives.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval_at, sleep};

use super::super::connection::Connection;
use super::super::support::push;

/// How long a client waits, in ms, that has lost its connection, and each time that it is not let in.
const RETRIES: [u64; 4] = [20, 100, 250, 500];
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The way to a node.
#[derive(Clone)]
pub(crate) enum Path {
    Socket(SocketAddr),
    Pipe(Arc<dyn Fn() -> DuplexStream + Send + Sync>),
}

impl Path {
    async fn connect(&self, query: &str) -> Option<Connection> {
        match self {
            Self::Socket(address) => Connection::open(*address, query).await,
            Self::Pipe(open) => Connection::over(open(), query).await,
        }
    }
}

/// Which nodes are there, as a balancer knows it.
pub(crate) struct Paths {
    nodes: Mutex<Vec<Option<Path>>>,
    turn: AtomicUsize,
}

impl Paths {
    pub(crate) fn new(nodes: impl IntoIterator<Item = Path>) -> Self {
        let nodes = Mutex::new(nodes.into_iter().map(Some).collect());
        Self { nodes, turn: AtomicUsize::new(0) }
    }

    pub(crate) fn set(&self, index: usize, node: Option<Path>) {
        self.nodes.lock().expect("no panic")[index] = node;
    }

    fn next(&self) -> Path {
        let nodes = self.nodes.lock().expect("no panic");
        let there: Vec<_> = nodes.iter().flatten().collect();
        there[self.turn.fetch_add(1, Ordering::Relaxed) % there.len()].clone()
    }
}

/// What a client has seen.
#[derive(Default)]
pub(crate) struct Member {
    number: usize,
    pub(crate) room: usize,
    lobby: usize,
    /// Whether rooms have a history, and their clients ask for positions.
    has_history: bool,
    /// The number of the last message.
    last: u64,
    /// The position of the last message of the room.
    position: String,
    /// The broadcasts, and when they came.
    pub(crate) heard: Vec<(usize, Instant)>,
    /// From when until when it was away.
    pub(crate) absences: Vec<(Instant, Instant)>,
    pub(crate) anew: usize,
    pub(crate) gaps: usize,
}

impl Member {
    pub(crate) fn new(number: usize, room: usize, lobby: usize, has_history: bool) -> Self {
        Self { number, room, lobby, has_history, ..Self::default() }
    }

    /// How many topics it has joined anew when it came first, of those that count.
    pub(crate) fn first_joins(&self) -> usize {
        if self.has_history { 1 } else { 2 }
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
        let Self { number, room, lobby, last, has_history, position, .. } = self;
        let mut query = format!("user=u{number}&session=member-{number:016}&received={last}");
        let mut payload = "{}".to_owned();
        if *has_history {
            query.push_str("&positions=refs");
            if !position.is_empty() {
                payload = format!(r#"{{"after":"{position}"}}"#);
            }
        }
        let joins = [
            push("1", &format!("room:{room}"), "phx_join", &payload),
            push("1", &format!("lobby:{lobby}"), "phx_join", "{}"),
        ];
        let mut connection = paths.next().connect(&query).await?;
        connection.write(&joins.concat()).await?;
        let mut joined = 0;
        while joined < joins.len() {
            let message = connection.next().await?;
            if !message.contains(r#""phx_reply""#) {
                self.receive(&message);
                continue;
            }
            let is = |name: &str| message.contains(&format!(r#""response":"{name}""#));
            // Only what has a history outlives a node.
            if !self.has_history || message.contains(r#","room:"#) {
                self.anew += usize::from(is("new"));
                self.gaps += usize::from(is("gap"));
            }
            if joined == 0 && (is("new") || is("recovered")) {
                // The messages of a session that is new, or whose node was killed, are counted from the beginning.
                self.last = 0;
            }
            joined += usize::from(message.contains(r#""status":"ok""#));
        }
        Some(connection)
    }

    fn receive(&mut self, message: &str) {
        let Some(place) = message.strip_prefix(r#"[null,"s:"#) else { return };
        let Some(place) = place.split('"').next() else { return };
        let (number, position) = place.split_once(':').unwrap_or((place, ""));
        let number = number.parse().expect("a number");
        if number <= self.last {
            return;
        }
        self.last = number;
        if !position.is_empty() {
            self.position = position.to_owned();
        }
        if let Some((_, rest)) = message.split_once(r#","n","#) {
            let id = rest.trim_end_matches(']').parse().expect("a number");
            self.heard.push((id, Instant::now()));
        }
    }
}
