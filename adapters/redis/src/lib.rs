//! Several [tower-channels](tower_channels) nodes over Redis or Valkey.
//!
//! ```no_run
//! # mod example {
//! use tower_channels_redis::{ConnectError, Redis, RedisConfig};
//!
//! # pub
//! async fn redis() -> Result<Redis, ConnectError> {
//!     let config = RedisConfig::new("redis://chat:secret@10.0.0.5").app("chat");
//!     Redis::connect(config).await
//! }
//! # }
//! ```
//!
//! [`Builder::adapter`](tower_channels::Builder::adapter) takes it from there.
//!
//! # Requirements
//!
//! Redis 6 or Valkey, as one server, as a master with replicas (see [`RedisConfig::sentinel`]) or as a Redis Cluster,
//! where messages go over its bus; for [histories](#histories) Redis 7 or Valkey. A topic takes about 220 bytes per node, the
//! record of a resumable session about 300 bytes for an hour after its last use; a session that a node has left behind in a
//! deploy up to 64 KiB. Keys are in database 0 and begin with `tc:{app}:`, with the braces: so that a Redis Cluster keeps
//! them on one server. Records need no persistence, and should not be evicted: `maxmemory-policy noeviction`, or
//! `volatile-ttl`.
//!
//! A server with access control needs this user; Redis compares a pattern that is subscribed to
//! with the rules literally, so those with `&` are needed as they stand:
//!
//! ```text
//! ACL SETUSER chat on >secret +publish +subscribe +psubscribe +unsubscribe +punsubscribe
//!     resetchannels &tc:chat:all &tc:chat:n:* &tc:chat:t:*
//!     +eval +evalsha +get +set +del ~tc:{chat}:r:*
//!     # and for histories:
//!     &tc:chat:h:* ~tc:{chat}:* +script|load +info +time +mget +pexpire +xadd +xrange +xrevrange +xtrim +multi +exec
//! ```
//!
//! Anyone who can publish there can impersonate the application, and who reads its keys reads what was sent to its
//! clients: keep the server away from others.
//!
//! # Failures
//!
//! Each node has two connections, one to receive and one to send, and a third with histories. Each is opened again when it
//! ends, or when the server is silent for 2 s, after pauses that grow from 20 ms to 400 ms; the address is looked up each
//! time. What is sent meanwhile waits for up to 5 s; what was on its way, at most 64 frames, is taken for lost, since sending it
//! again could deliver it twice. What the others publish while a node does not hear is lost to it. The node knows both, and what it does
//! then is its own affair.
//!
//! A Redis Cluster can lose messages between its own servers, when the link of two of them breaks or one is silent for half
//! of `cluster-node-timeout`: no connection of a node ends then, and no error is seen. Nodes notice what was lost by its
//! number when the next message comes, or by the beats of the others.
//!
//! A call for a record takes at most a second, and fails at once while the node is not connected. A record that the
//! server loses, in a failover or with its memory, is a session that cannot move to another node.
//!
//! A node that reads too slowly is cut off by the server (`client-output-buffer-limit pubsub`, 32 MiB).
//!
//! # Histories
//!
//! The server keeps the messages of topics with a [history](tower_channels::Builder::history), if the user has the rights and
//! the server the commands for it. A script adds a message to the stream of its topic and publishes it, so that both
//! happen or neither. A message takes its bytes and about 100 more, a topic about 5 KiB, until a day after its messages
//! are too old. In a Redis Cluster one server has all of it.
//!
//! A message is tried for as long as a frame (`max_age`, 5 s), so that most outlast a restart of the server; who waits for it
//! does so for two seconds. One whose answer is lost is sent again on the next connection, and counts once: the server executes nothing any more
//! that comes from the older one, and is asked what it has executed.
//!
//! What clients do not receive they learn of, as a gap:
//!
//! - What was evicted (`maxmemory-policy allkeys-*` or `volatile-*`) or flushed: the topic has another epoch. With
//!   `noeviction`, a full server refuses messages, and what it refuses is not delivered.
//! - What a server has lost that was killed, or a master whose replica has taken over: each time a server's process is new,
//!   all positions from before are refused, since its last messages may be missing. A server that loses nothing
//!   (`appendonly yes`, `appendfsync always`, no replica that takes over) can be declared
//!   [durable](RedisConfig::durable); then positions outlive its restarts.
//!
//! A run of the server is told apart by time: let the clocks of a master and its replicas agree to a second. As long as two
//! servers both take themselves for the master, either keeps messages that the other never has: `min-replicas-to-write 1`
//! makes the abandoned one refuse them.
//!
//! # Features
//!
//! `tls`: `rediss://` addresses, with rustls. If the process has no default crypto provider by then, the first
//! connection installs ring.

mod backoff;
mod check;
mod config;
mod connector;
mod error;
mod hearing;
mod history;
mod listening;
mod names;
mod records;
mod sending;
#[cfg(feature = "tls")]
mod tls;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tower_channels::adapter::{
    Adapter, AdapterLimits, BoxFuture, Channel, HistoryStore, NodeId, NodeInbox, PublishError,
    Reached, SendQueue, Store,
};
use tower_channels_transports::limited;

use self::backoff::{Retries, random};
pub use self::config::RedisConfig;
use self::connector::Connector;
pub use self::error::ConnectError;
use self::hearing::{Hearing, Interest};
use self::history::{Delivery, Door, History, Scripts};
use self::names::Names;
use self::records::Records;
use self::sending::{Publisher, Sending};

/// The largest frame. Redis allows 512 MiB, but a frame delays those behind it.
const MAX_FRAME: usize = 1 << 20;

/// An [`Adapter`] over a Redis server.
pub struct Redis {
    connector: Connector,
    names: Arc<Names>,
    queue: SendQueue,
    interest: Arc<Interest>,
    /// The connection that sends, while there is one.
    publisher: watch::Sender<Option<Publisher>>,
    records: Records,
    /// What is kept of topics, or why it cannot be.
    history: Result<Arc<History>, ConnectError>,
    delivery: Arc<Delivery>,
    retries: Arc<Retries>,
    /// Counts the wishes for new connections.
    renewals: watch::Sender<u64>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Redis {
    /// Connects to a server once, to find out whether it can be used: reached, with this user, who may do what is
    /// needed. Must be called within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// If it cannot. Later, when a node runs, nothing is an error: it connects until it can.
    pub async fn connect(config: RedisConfig) -> Result<Self, ConnectError> {
        config.validate()?;
        let names = Arc::new(Names::new(&config.app));
        let queue = SendQueue::new(config.max_queue, config.max_age);
        let messages = history::Queue::new(config.max_queue, config.max_age.min(history::MAX_AGE));
        let (patience, is_durable) = (config.connect_timeout, config.is_durable);
        let connector = Connector::new(config);
        let door = Door {
            connector: connector.clone(),
            names: names.clone(),
            scripts: Arc::new(Scripts::new()),
            sender: random(),
            is_durable,
        };
        let can_keep = check::check(&connector, &names, &door, patience).await?;
        let publisher = watch::Sender::new(None);
        let records = Records::new(connector.clone(), names.clone(), publisher.subscribe());
        let (delivery, retries) = (Arc::<Delivery>::default(), Arc::<Retries>::default());
        let renewals = watch::Sender::new(0);
        let history = can_keep.map(|()| {
            let (delivery, renewals) = (delivery.clone(), renewals.clone());
            Arc::new(History::new(door, messages, delivery, renewals, retries.clone()))
        });
        Ok(Self {
            connector,
            names,
            queue,
            interest: Arc::new(Interest::new()),
            publisher,
            records,
            history,
            delivery,
            retries,
            renewals,
            tasks: Mutex::default(),
        })
    }
}

impl Adapter for Redis {
    fn start(&self, node: NodeId, inbox: Arc<dyn NodeInbox>) {
        let hearing = Hearing {
            connector: self.connector.clone(),
            names: self.names.clone(),
            own: self.names.node(node),
            inbox: inbox.clone(),
            interest: self.interest.clone(),
            history: self.delivery.clone(),
            renewals: self.renewals.clone(),
            retries: self.retries.clone(),
        };
        let sending = Sending {
            connector: self.connector.clone(),
            names: self.names.clone(),
            queue: self.queue.clone(),
            inbox,
            publisher: self.publisher.clone(),
            renewals: self.renewals.subscribe(),
            retries: self.retries.clone(),
            was_connected: false,
        };
        let tasks = [tokio::spawn(hearing.run()), tokio::spawn(sending.run())];
        self.tasks.lock().extend(tasks.map(|task| task.abort_handle()));
    }

    fn publish(&self, to: Channel<'_>, frame: Bytes) -> Result<(), PublishError> {
        self.queue.push(to, frame)
    }

    fn reach(&self, node: NodeId, frame: Bytes) -> BoxFuture<'_, Reached> {
        let (publisher, channel) = (self.publisher.subscribe(), self.names.node(node));
        Box::pin(async move { sending::reach(publisher, &channel, frame).await })
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.queue.drained())
    }

    fn listen(&self, topic: &str) -> BoxFuture<'static, ()> {
        self.interest.wait(|listening, waiter| listening.listen(topic, waiter))
    }

    fn ignore(&self, topic: &str) {
        self.interest.with(|listening| listening.ignore(topic));
    }

    fn hear_all(&self, all: bool) -> BoxFuture<'static, ()> {
        self.interest.wait(|listening, waiter| listening.hear_all(all, waiter))
    }

    fn reconnect(&self) {
        self.renewals.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn limits(&self) -> AdapterLimits {
        AdapterLimits::new(MAX_FRAME)
    }

    fn store(&self) -> Option<&dyn Store> {
        Some(&self.records)
    }

    fn history(&self) -> Option<Arc<dyn HistoryStore>> {
        match &self.history {
            Ok(history) => Some(history.clone()),
            Err(reason) => {
                limited!(WARN, ?reason, "Redis cannot be used for a history");
                None
            }
        }
    }
}

/// Ends the tasks, and with them the connections.
impl Drop for Redis {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("config", &self.connector)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}
