//! Several nodes: this one among the others.
//!
//! Nodes reach each other through an engine, such as Redis or NATS, by an [`Adapter`]. Each tells the others that it is
//! there, and delivers to its own clients what the others broadcast.

// What the nodes send each other is in `wire`, who is there in `members`, which broadcasts were lost in `sequence` and
// `gaps`: plain code. Here it meets the adapter, the topics and the clock.

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
mod receive;
mod sequence;
mod task;
mod wire;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::BytesMut;
use metrics::Counter;
use parking_lot::Mutex;
use tokio::time::Instant;
use tower_channels_transports::limited;
use tower_channels_transports::telemetry::{Level, UNLABELED};

pub use self::config::{ClusterConfig, Listen, OnGap};
use self::disconnects::Disconnects;
use self::gaps::{Gaps, LostTopics, Scope};
use self::interest::Interest;
use self::members::Members;
pub use self::node::Node;
use self::parts::Parts;
use self::wire::Body;
pub(crate) use self::wire::Versions;
use crate::adapter::{Adapter, AdapterLimits, BoxFuture, Channel, NodeId};
use crate::presence::announcer::Announcer;
use crate::pubsub::sockets::Sockets;
use crate::telemetry::{CLUSTER_LINK, CLUSTER_NODES, FRAMES_LOST, FRAMES_RECEIVED, FRAMES_SENT};
use crate::topics::Topics;
use crate::topics::broadcast::Broadcast;

/// This node among the others. Dropping it ends its connections to the engine.
pub(crate) struct Cluster {
    node: NodeId,
    adapter: Box<dyn Adapter>,
    limits: AdapterLimits,
    config: ClusterConfig,
    local: Local,
    started: Instant,
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
    /// What is known of the others. Nothing is called while it is locked.
    state: Mutex<State>,
    /// The sessions of the endpoints of this node.
    sessions: Mutex<Vec<Weak<dyn Sessions>>>,
    metrics: Metrics,
}

/// What broadcasts of other nodes reach.
pub(crate) struct Local {
    pub(crate) topics: Topics,
    pub(crate) sockets: Sockets,
    pub(crate) presence: Arc<Announcer>,
}

/// The sessions of an endpoint.
pub(crate) trait Sessions: Send + Sync {
    fn count(&self) -> usize;
    fn is_shutting_down(&self) -> bool;
}

#[derive(Default)]
struct Sending {
    /// The number of the last frame to a topic.
    last: u64,
    disconnects: Disconnects,
    lost: LostTopics,
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
    /// The nodes and presence shards whose questions are being answered.
    answering: HashSet<(NodeId, u32)>,
}

/// Why a beat is due at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hello {
    /// This node has come, and asks the others to say what they are.
    Ask,
    /// Another node has asked.
    Answer,
}

struct Metrics {
    sent: Counter,
    received: Counter,
    nodes: Level,
    link: Level,
}

/// How much of a frame is left for what is not the payload's bytes.
const SLACK: usize = 1024;

impl Cluster {
    /// Starts to hear the other nodes. To be called in a runtime.
    pub(crate) fn start(
        node: NodeId,
        adapter: Box<dyn Adapter>,
        config: ClusterConfig,
        local: Local,
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
            answering: HashSet::new(),
        };
        let cluster = Arc::new(Self {
            node,
            adapter,
            limits,
            started: Instant::now(),
            now: AtomicU64::new(0),
            versions,
            version: AtomicU8::new(versions.min),
            has_left: AtomicBool::new(false),
            interest: Interest::new(&config),
            gaps: Gaps::new(local.topics.clone(), &config),
            sending: Mutex::default(),
            state: Mutex::new(state),
            sessions: Mutex::default(),
            metrics: Metrics {
                sent: FRAMES_SENT.handle(UNLABELED),
                received: FRAMES_RECEIVED.handle(UNLABELED),
                nodes: Level::new(CLUSTER_NODES.handle(UNLABELED)),
                link: Level::new(CLUSTER_LINK.handle(UNLABELED)),
            },
            config,
            local,
        });
        cluster.listen(cluster.config.listen);
        let inbox = receive::Inbox(Arc::downgrade(&cluster));
        cluster.adapter.start(cluster.node, Arc::new(inbox));
        tokio::spawn(task::run(Arc::downgrade(&cluster)));
        cluster
    }

    /// Sends a broadcast to the nodes that hear its topic, in several frames if it is long.
    pub(crate) fn publish(&self, broadcast: &Broadcast) {
        let frame = self.encode_broadcast(broadcast);
        let topic = broadcast.topic();
        if frame.len() > parts::LONGEST {
            self.sending.lock().lost.add(Scope::topic(topic));
            FRAMES_LOST.increment(["too_large"], 1);
            limited!(ERROR, ?topic, "a broadcast is too long for the other nodes");
        } else if frame.len() > self.limits.max_frame {
            self.send_to_topic(topic, self.cut(frame));
        } else {
            self.send_to_topic(topic, [frame]);
        }
    }

    /// Disconnects the sockets with this id on the other nodes.
    pub(crate) fn disconnect(&self, id: &str) {
        let mut sending = self.sending.lock();
        let disconnects = sending.disconnects.push(id, self.started.elapsed());
        // If it is not sent, the next beat tells the others that they lack it.
        let frame = self.encode(Body::Disconnects(disconnects));
        let _ = self.adapter.publish(Channel::All, frame.freeze());
    }

    /// Returns what to wait for until broadcasts of other nodes on this topic are heard; `None` if they are.
    pub(crate) fn hear(&self, topic: &str) -> Option<BoxFuture<'static, ()>> {
        self.interest.listen(topic, &*self.adapter, self.now())
    }

    /// Chooses which topics are heard.
    pub(crate) fn listen(self: &Arc<Self>, listen: Listen) {
        let heard = self.interest.choose(listen, &*self.adapter, self.now());
        if listen == Listen::Topics {
            self.state.lock().members.set_hears_all(false);
        }
        let Some(heard) = heard else { return };
        let cluster = Arc::downgrade(self);
        tokio::spawn(async move {
            heard.await;
            let Some(cluster) = cluster.upgrade() else { return };
            if cluster.interest.widen(&*cluster.adapter) {
                cluster.state.lock().members.set_hears_all(cluster.limits.is_ordered);
            }
        });
    }

    /// Adds the sessions of an endpoint to those of this node.
    pub(crate) fn add_sessions(&self, sessions: Weak<dyn Sessions>) {
        self.sessions.lock().push(sessions);
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

    /// Says goodbye to the others if all endpoints of this node have been shut down. Waits a second at most.
    pub(crate) async fn leave(&self) {
        if !self.count_sessions().1 || self.has_left.swap(true, Ordering::Relaxed) {
            return;
        }
        let _ = self.adapter.publish(Channel::All, self.encode(Body::Bye(())).freeze());
        let _ = tokio::time::timeout(Duration::from_secs(1), self.adapter.flush()).await;
    }

    /// Updates the gauges.
    pub(crate) fn record_gauges(&self) {
        let state = self.state.lock();
        let (nodes, is_linked) = (state.members.count_up() + 1, state.is_linked);
        drop(state);
        self.metrics.nodes.set(nodes);
        self.metrics.link.set(usize::from(is_linked));
    }

    /// Returns how many sessions this node has, and whether it is shutting down.
    fn count_sessions(&self) -> (u64, bool) {
        let sessions: Vec<_> = self.sessions.lock().iter().filter_map(Weak::upgrade).collect();
        let count = sessions.iter().map(|sessions| sessions.count() as u64).sum();
        let is_draining =
            !sessions.is_empty() && sessions.iter().all(|sessions| sessions.is_shutting_down());
        (count, is_draining)
    }

    /// The time since the start, as of the last step of the task.
    fn now(&self) -> Duration {
        Duration::from_millis(self.now.load(Ordering::Relaxed))
    }

    fn encode(&self, body: Body) -> BytesMut {
        wire::encode(self.version.load(Ordering::Relaxed), self.node, body)
    }

    fn encode_broadcast(&self, broadcast: &Broadcast) -> BytesMut {
        let payload = broadcast.payload();
        let (bytes, is_binary) = match payload.as_binary() {
            Some(bytes) => (&bytes[..], true),
            None => (payload.as_json().unwrap_or_default().as_bytes(), false),
        };
        let (topic, event) = (broadcast.topic(), broadcast.event());
        let version = self.version.load(Ordering::Relaxed);
        wire::encode_broadcast(version, self.node, topic, event, bytes, is_binary)
    }

    /// Sends a frame to all nodes. Returns whether there was room.
    fn send_to_all(&self, body: Body) -> bool {
        let mut frames = self.cut(self.encode(body)).into_iter();
        let is_sent = frames.all(|frame| self.adapter.publish(Channel::All, frame.freeze()).is_ok());
        self.count_sent(is_sent);
        is_sent
    }

    /// Cuts a frame into several, if it is too long for the engine.
    fn cut(&self, frame: BytesMut) -> Vec<BytesMut> {
        if frame.len() <= self.limits.max_frame {
            return vec![frame];
        }
        let size = self.limits.max_frame.saturating_sub(SLACK).clamp(1, PART);
        let parts = parts::cut(NodeId::random().0, wire::body_of(frame), size);
        parts.map(|part| self.encode(Body::Part(part))).collect()
    }

    /// Sends the frames of a body to the nodes that hear the topic.
    fn send_to_topic(&self, topic: &str, frames: impl IntoIterator<Item = BytesMut>) {
        let mut sending = self.sending.lock();
        let is_sent = frames.into_iter().all(|mut frame| {
            wire::set_number(&mut frame, sending.last + 1);
            let is_sent = self.adapter.publish(Channel::Topic(topic), frame.freeze()).is_ok();
            sending.last += u64::from(is_sent);
            is_sent
        });
        if !is_sent {
            sending.lost.add(Scope::topic(topic));
        }
        drop(sending);
        self.count_sent(is_sent);
    }

    fn count_sent(&self, is_sent: bool) {
        if is_sent {
            self.metrics.sent.increment(1);
        } else {
            FRAMES_LOST.increment(["overflow"], 1);
            limited!(WARN, "too much waits to be sent to the other nodes: a frame is dropped");
        }
    }
}

/// The size of the parts of a long body.
const PART: usize = 256 << 10;

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node", &self.node).finish_non_exhaustive()
    }
}

/// The cluster as tasks and adapters have it: they do not keep it alive.
type WeakCluster = Weak<Cluster>;
