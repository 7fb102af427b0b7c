//! Several nodes: this one among the others.
//!
//! Nodes reach each other through an engine, such as Redis or NATS, by an [`Adapter`]. Each tells the others that it is
//! there, and delivers to its own clients what the others broadcast.

// What the nodes send each other is in `wire`, who is there in `members`, which broadcasts were lost in `sequence` and
// `gaps`: plain code. Here it meets the adapter, the topics and the clock.

mod alone;
pub(crate) mod claims;
pub(crate) mod config;
mod disconnects;
mod gaps;
mod interest;
mod members;
#[cfg(feature = "unstable-internals")]
#[doc(hidden)]
pub mod model;
pub(crate) mod node;
mod parts;
mod presence;
pub(crate) mod questions;
mod receive;
mod send;
mod sequence;
mod task;
mod wire;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use metrics::Counter;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::Instant;
use tower_channels_transports::telemetry::{Level, UNLABELED};

use self::alone::Alone;
use self::claims::Claims;
pub use self::config::{ClusterConfig, Listen, OnGap};
use self::disconnects::Disconnects;
pub(crate) use self::gaps::{Gaps, Shared};
use self::gaps::{LostFrames, Scope};
use self::interest::Interest;
use self::members::Members;
pub use self::node::Node;
use self::parts::Parts;
use self::questions::{LocalEndpoint, Questions};
use self::send::Permits;
pub(crate) use self::wire::Versions;
use crate::adapter::{Adapter, AdapterLimits, BoxFuture, HistoryStore, NodeId};
use crate::presence::announcer::Announcer;
use crate::pubsub::sockets::Sockets;
use crate::telemetry::{
    CLUSTER_LINK, CLUSTER_NODES, FRAMES_RECEIVED, FRAMES_SENT, QUESTIONS_IN_FLIGHT,
};
use crate::topics::Topics;

/// This node among the others. Dropping it ends its connections to the engine.
pub(crate) struct Cluster {
    node: NodeId,
    adapter: Box<dyn Adapter>,
    limits: AdapterLimits,
    config: ClusterConfig,
    local: Local,
    /// Where tasks are spawned: an adapter, or the application, may call from a thread without a runtime.
    runtime: Handle,
    started: Instant,
    /// Whether a frame of this node itself has come back since the last step.
    has_heard_itself: AtomicBool,
    /// The time since the start, in milliseconds, as of the last step of the task.
    now: AtomicU64,
    /// The versions that this node reads.
    versions: Versions,
    /// The version to write.
    version: AtomicU8,
    has_left: AtomicBool,
    interest: Interest,
    gaps: Arc<Gaps>,
    /// Held while frames are handed to the adapter, so that they are numbered in order.
    sending: Mutex<Sending>,
    /// What is known of the others. While it is locked, only the standing of nodes in presence is set.
    state: Mutex<State>,
    questions: Mutex<Questions>,
    claims: Claims,
    /// The number of the message that was delivered here last, if what is kept outlives this node.
    delivered: OnceLock<Box<dyn Fn() -> u64 + Send + Sync>>,
    /// Whether there are never other nodes.
    is_alone: bool,
    /// The endpoints of this node, in the order in which they were built.
    endpoints: Mutex<Vec<Weak<dyn LocalEndpoint>>>,
    /// Bounds what is on its way to other nodes.
    permits: Permits,
    metrics: Metrics,
}

/// What broadcasts of other nodes reach.
pub(crate) struct Local {
    pub(crate) topics: Topics,
    pub(crate) sockets: Sockets,
    pub(crate) presence: Arc<Announcer>,
}

#[derive(Default)]
struct Sending {
    /// The number of the last frame to a topic.
    last: u64,
    disconnects: Disconnects,
    lost: LostFrames,
}

struct State {
    members: Members,
    parts: Parts,
    /// Whether the engine is heard.
    is_linked: bool,
    last_beat: Option<Duration>,
    /// Whether the next beat is due at once, and asks the others for theirs.
    hello: Option<Hello>,
    last_reconnect: Duration,
    /// How often that was done since the node heard itself.
    reconnects: u32,
    /// The nodes and presence shards whose questions are being answered.
    answering: HashSet<(NodeId, u32)>,
}

/// Why a beat is due at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hello {
    /// This node has come, and requests an immediate beat of the others.
    Ask,
    /// Another node has asked.
    Answer,
}

struct Metrics {
    sent: Counter,
    received: Counter,
    nodes: Level,
    link: Level,
    in_flight: Level,
}

impl Cluster {
    /// Starts to hear the other nodes. To be called in a runtime.
    pub(crate) fn start(
        node: NodeId,
        adapter: Box<dyn Adapter>,
        config: ClusterConfig,
        local: Local,
    ) -> Arc<Self> {
        Self::start_with(node, adapter, config, local, false)
    }

    /// Starts a node without others, if the store of its histories keeps records: a process that follows this one goes on
    /// with its sessions. To be called in a runtime.
    pub(crate) fn start_alone(store: &Arc<dyn HistoryStore>, local: Local) -> Option<Arc<Self>> {
        store.records()?;
        let adapter = Box::new(Alone(Arc::clone(store)));
        Some(Self::start_with(NodeId::random(), adapter, ClusterConfig::new(), local, true))
    }

    fn start_with(
        node: NodeId,
        adapter: Box<dyn Adapter>,
        config: ClusterConfig,
        local: Local,
        is_alone: bool,
    ) -> Arc<Self> {
        let versions = config.versions;
        let limits = adapter.limits();
        let state = State {
            members: Members::new(&config, versions, limits.is_ordered),
            parts: Parts::default(),
            is_linked: false,
            last_beat: None,
            hello: None,
            last_reconnect: Duration::ZERO,
            reconnects: 0,
            answering: HashSet::new(),
        };
        let cluster = Arc::new(Self {
            node,
            limits,
            runtime: Handle::current(),
            started: Instant::now(),
            has_heard_itself: AtomicBool::new(false),
            now: AtomicU64::new(0),
            versions,
            version: AtomicU8::new(versions.min),
            has_left: AtomicBool::new(false),
            interest: Interest::new(&config),
            gaps: Gaps::new(local.topics.clone(), &config),
            sending: Mutex::default(),
            state: Mutex::new(state),
            questions: Mutex::default(),
            claims: Claims::new(node, &*adapter),
            delivered: OnceLock::new(),
            is_alone,
            endpoints: Mutex::default(),
            permits: Permits::new(),
            metrics: Metrics {
                sent: FRAMES_SENT.handle(UNLABELED),
                received: FRAMES_RECEIVED.handle(UNLABELED),
                nodes: Level::new(CLUSTER_NODES.handle(UNLABELED)),
                link: Level::new(CLUSTER_LINK.handle(UNLABELED)),
                in_flight: Level::new(QUESTIONS_IN_FLIGHT.handle(UNLABELED)),
            },
            adapter,
            config,
            local,
        });
        cluster.listen(cluster.config.listen);
        let inbox = receive::Inbox(Arc::downgrade(&cluster));
        cluster.adapter.start(cluster.node, Arc::new(inbox));
        tokio::spawn(task::run(Arc::downgrade(&cluster)));
        cluster
    }

    /// Returns what to wait for until broadcasts of other nodes on this topic are heard; `None` if they are.
    pub(crate) fn hear(&self, topic: &str) -> Option<BoxFuture<'static, ()>> {
        self.interest.listen(topic, &*self.adapter, self.now())
    }

    /// Chooses which topics are heard.
    pub(crate) fn listen(self: &Arc<Self>, listen: Listen) {
        let heard = self.interest.choose(listen, &*self.adapter, self.now());
        if listen == Listen::Topics {
            self.set_sees_gaps(false);
        }
        let Some(heard) = heard else { return };
        let cluster = Arc::downgrade(self);
        self.runtime.spawn(async move {
            heard.await;
            let Some(cluster) = cluster.upgrade() else { return };
            if cluster.interest.widen(&*cluster.adapter) {
                cluster.set_sees_gaps(cluster.limits.is_ordered);
            }
        });
    }

    /// Whether lost frames are noticed by their numbers from now on.
    fn set_sees_gaps(&self, sees_gaps: bool) {
        let is_missing = self.state.lock().members.set_hears_all(sees_gaps);
        if is_missing {
            self.miss("numbers", Scope::All);
        }
    }

    /// Returns whether there are never other nodes.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// What tells clients that they may have missed something.
    pub(crate) fn gaps(&self) -> Arc<Gaps> {
        Arc::clone(&self.gaps)
    }

    /// Returns whether clients have yet to learn that broadcasts may have been missed.
    pub(crate) fn has_pending_gaps(&self) -> bool {
        self.gaps.are_pending()
    }

    /// Sessions on topics with a history can go on after this node: `delivered` returns the number of the message that was
    /// delivered here last. To be called once.
    pub(crate) fn set_delivered(&self, delivered: impl Fn() -> u64 + Send + Sync + 'static) {
        let _ = self.delivered.set(Box::new(delivered));
    }

    /// The identity of this node.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Returns the nodes that are known, this one first.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let (sessions, is_draining) = self.count_sessions();
        let (id, uptime) = (self.node, self.started.elapsed());
        let this = Node { id, is_self: true, uptime, sessions, is_draining, is_up: true };
        let state = self.state.lock();
        let others = state.members.iter().map(|(id, member)| {
            let beat = member.beat.clone().unwrap_or_default();
            Node {
                id,
                is_self: false,
                uptime: Duration::from_millis(beat.age),
                sessions: beat.sessions,
                is_draining: beat.is_draining,
                is_up: member.is_up,
            }
        });
        std::iter::once(this).chain(others).collect()
    }

    /// Says goodbye to the others if all endpoints of this node have been shut down. Waits a second at most. After that
    /// the node is no longer one of the cluster.
    pub(crate) async fn leave(&self) {
        if !self.have_shut_down() || self.has_left.swap(true, Ordering::Relaxed) {
            return;
        }
        self.leave_questions();
        self.send_presence();
        self.say_goodbye();
        let _ = tokio::time::timeout(Duration::from_secs(1), self.adapter.flush()).await;
    }

    /// Updates the gauges.
    pub(crate) fn record_gauges(&self) {
        self.claims.record_gauges();
        if self.is_alone {
            return;
        }
        let state = self.state.lock();
        let (nodes, is_linked) = (state.members.count_up() + 1, state.is_linked);
        drop(state);
        self.metrics.nodes.set(nodes);
        self.metrics.link.set(usize::from(is_linked));
        self.metrics.in_flight.set(self.questions_in_flight());
    }

    /// The time since the start, as of the last step of the task.
    fn now(&self) -> Duration {
        Duration::from_millis(self.now.load(Ordering::Relaxed))
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The cluster as tasks and adapters have it: they do not keep it alive.
type WeakCluster = Weak<Cluster>;
