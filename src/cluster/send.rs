//! What a node sends to the others.

use std::str;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;
use tower_channels_transports::limited;

use super::gaps::Scope;
use super::wire::{self, Beat, Body, Lost, Part};
use super::{Cluster, Sending, parts};
use crate::adapter::{Channel, NodeId, Reached};
use crate::telemetry::FRAMES_LOST;
use crate::topics::broadcast::Broadcast;
use crate::topics::heard::Origin;

/// A broadcast, encoded for the other nodes.
pub(crate) enum Frames {
    Whole(BytesMut),
    Parts(Vec<BytesMut>),
    /// It stays on this node.
    TooLong,
}

/// What became of a broadcast to the other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The number of its origin is that of its last frame: with that one it arrives.
    Whole {
        origin: Origin,
        frames: u64,
    },
    /// Too much waits to be sent.
    Overflow,
    TooLong,
}

impl Sent {
    /// Its origin, if it can arrive.
    pub(crate) fn origin(self) -> Option<Origin> {
        match self {
            Self::Whole { origin, .. } => Some(origin),
            Self::Overflow | Self::TooLong => None,
        }
    }
}

/// How much of a frame is left for what is not a part's bytes: its header and its topic.
const SLACK: usize = 1024;

/// The size of the parts of a long body.
const PART: usize = 256 << 10;

/// Bounds what is on its way to single nodes, which the queue of the adapter does not.
pub(super) struct Permits {
    /// Short messages that nobody waits for.
    messages: Arc<Semaphore>,
    /// KiB of long bodies. A node that gets all of them has room for them, beside the longest broadcast.
    long: Semaphore,
}

/// How many short messages may be on their way. What is lost beyond it is said again, asked again or given up.
const MAX_MESSAGES: usize = 256;

/// How many KiB of long bodies may be on their way.
const MAX_LONG: u32 = 8 << 10;

impl Permits {
    pub(super) fn new() -> Self {
        let messages = Arc::new(Semaphore::new(MAX_MESSAGES));
        Self { messages, long: Semaphore::new(MAX_LONG as usize) }
    }
}

impl Cluster {
    /// Encodes a broadcast, in several frames if it is long.
    pub(crate) fn encode_broadcast(&self, broadcast: &Broadcast) -> Frames {
        let payload = broadcast.payload();
        let (bytes, is_binary) = match payload.as_binary() {
            Some(bytes) => (&bytes[..], true),
            None => (payload.as_json().unwrap_or_default().as_bytes(), false),
        };
        let (topic, event) = (broadcast.topic(), broadcast.event());
        let version = self.version.load(Ordering::Relaxed);
        let frame = wire::encode_broadcast(version, self.node, topic, event, bytes, is_binary);
        if frame.len() > parts::LONGEST {
            Frames::TooLong
        } else if frame.len() > self.limits.max_frame {
            Frames::Parts(self.cut(topic, frame))
        } else {
            Frames::Whole(frame)
        }
    }

    /// Sends a broadcast to the nodes that hear its topic, and returns what became of it, to be
    /// [reported](Self::report_sent). Never blocks and calls no foreign code: it is called under the topic's lock.
    pub(crate) fn publish(&self, topic: &str, frames: Frames) -> Sent {
        let mut sending = self.sending.lock();
        let before = sending.last;
        let is_sent = match frames {
            Frames::Whole(frame) => self.send_to_topic(topic, frame, &mut sending),
            Frames::Parts(parts) => {
                parts.into_iter().all(|part| self.send_to_topic(topic, part, &mut sending))
            }
            Frames::TooLong => {
                sending.lost.add(Scope::topic(topic), None);
                return Sent::TooLong;
            }
        };
        if !is_sent {
            sending.lost.add(Scope::topic(topic), None);
            return Sent::Overflow;
        }
        Sent::Whole { origin: (self.node, sending.last), frames: sending.last - before }
    }

    /// Counts and logs what became of a broadcast. The caller holds no lock.
    pub(crate) fn report_sent(&self, topic: &str, sent: Sent) {
        match sent {
            Sent::Whole { frames, .. } => self.count_sent(frames, true),
            Sent::Overflow => self.count_sent(0, false),
            Sent::TooLong => {
                FRAMES_LOST.increment(["too_large"], 1);
                limited!(ERROR, ?topic, "a broadcast is too long for the other nodes");
            }
        }
    }

    /// The number of the last frame of this node to a topic.
    pub(super) fn last_sent(&self) -> u64 {
        self.sending.lock().last
    }

    /// Disconnects the sockets with this id on the other nodes.
    pub(crate) fn disconnect(&self, id: &str) {
        let mut sending = self.sending.lock();
        let disconnects = sending.disconnects.push(id, self.started.elapsed());
        // If it is not sent, the next beat tells the others that they lack it.
        let frame = self.encode(Body::Disconnects(disconnects));
        let _ = self.adapter.publish(Channel::All, frame.freeze());
    }

    /// Tells the others that this node is there, and what it is.
    pub(super) fn beat(&self, is_hello: bool) {
        let (sessions, is_draining) = self.count_sessions();
        let age = self.started.elapsed().as_millis();
        let clocks = self.local.presence.clocks();
        // Under the lock, so that no frame that it counts comes after it.
        let sending = self.sending.lock();
        let beat = Beat {
            age: u64::try_from(age).unwrap_or(u64::MAX),
            sessions,
            is_draining,
            min_version: self.versions.min.into(),
            max_version: self.versions.max.into(),
            topics: sending.last,
            disconnects: sending.disconnects.last(),
            is_hello,
            clocks,
        };
        // In the version that every node reads.
        let frame = wire::encode(self.versions.min, self.node, Body::Beat(beat));
        let is_sent = self.adapter.publish(Channel::All, frame.freeze()).is_ok();
        drop(sending);
        self.count_sent(1, is_sent);
    }

    /// Tells the others that this node leaves.
    pub(super) fn say_goodbye(&self) {
        let sending = self.sending.lock();
        let frame = self.encode(Body::Bye(sending.last));
        let _ = self.adapter.publish(Channel::All, frame.freeze());
    }

    /// A frame of this node was not sent, or may not have been.
    pub(super) fn lose(&self, frame: Bytes) {
        let Ok((header, body)) = wire::decode_header(frame, self.versions) else { return };
        let scope = match wire::decode_body(body) {
            Ok(Some(Body::Broadcast(broadcast))) => match str::from_utf8(&broadcast.topic) {
                Ok(topic) => Scope::topic(topic),
                Err(_) => Scope::All,
            },
            Ok(Some(Body::Part(part))) if header.number > 0 => Scope::topic(&part.topic),
            Ok(Some(Body::Lost(Lost { topics, numbers }))) => {
                return self.sending.lock().lost.add(Lost::scope(topics), numbers);
            }
            // What is said again anyway.
            _ => return,
        };
        self.sending.lock().lost.add(scope, Some(header.number));
        FRAMES_LOST.increment(["unsent"], 1);
    }

    /// Tells the others which broadcasts of this node were lost.
    pub(super) fn announce_lost(&self) {
        let Some(lost) = self.sending.lock().lost.take() else { return };
        if !self.send_to_all(Body::Lost(lost.clone())) {
            self.sending.lock().lost.add(Lost::scope(lost.topics), lost.numbers);
        }
    }

    pub(super) fn encode(&self, body: Body) -> BytesMut {
        wire::encode(self.version.load(Ordering::Relaxed), self.node, body)
    }

    /// Sends a body to all nodes. Returns whether there was room.
    pub(super) fn send_to_all(&self, body: Body) -> bool {
        let frames = self.cut("", self.encode(body));
        let count = frames.len() as u64;
        let publish = |frame: BytesMut| self.adapter.publish(Channel::All, frame.freeze()).is_ok();
        let is_sent = frames.into_iter().all(publish);
        self.count_sent(count, is_sent);
        is_sent
    }

    /// Cuts a frame into several, if it is too long for the engine. `topic` is that of a broadcast.
    pub(super) fn cut(&self, topic: &str, frame: BytesMut) -> Vec<BytesMut> {
        self.cut_as(|part| Part { topic: topic.into(), ..part }, frame)
    }

    /// As [`cut`](Self::cut), for a frame to one node.
    pub(super) fn cut_private(&self, frame: BytesMut) -> Vec<BytesMut> {
        self.cut_as(|part| Part { is_private: true, ..part }, frame)
    }

    fn cut_as(&self, mark: impl Fn(Part) -> Part, frame: BytesMut) -> Vec<BytesMut> {
        if frame.len() <= self.limits.max_frame {
            return vec![frame];
        }
        let size = self.limits.max_frame.saturating_sub(SLACK).clamp(1, PART);
        let parts = parts::cut(NodeId::random().0, wire::body_of(frame), size);
        parts.map(|part| self.encode(Body::Part(mark(part)))).collect()
    }

    /// Sends a short body to one node.
    pub(super) fn answer(self: &Arc<Self>, node: NodeId, body: Body) {
        let Ok(permit) = Arc::clone(&self.permits.messages).try_acquire_owned() else {
            FRAMES_LOST.increment(["overflow"], 1);
            return limited!(WARN, ?node, "too much waits for other nodes: a message is dropped");
        };
        let cluster = Arc::downgrade(self);
        self.runtime.spawn(async move {
            if let Some(cluster) = cluster.upgrade() {
                cluster.reach(node, body).await;
            }
            drop(permit);
        });
    }

    /// Sends a body to one node, and waits until the engine has it. Returns whether anybody may have heard it.
    pub(super) async fn reach(&self, node: NodeId, body: Body) -> bool {
        let len = body.encoded_len();
        let _permit = if len.saturating_add(SLACK) > self.limits.max_frame {
            let kib = u32::try_from(len.div_ceil(1 << 10)).unwrap_or(MAX_LONG).min(MAX_LONG);
            self.permits.long.acquire_many(kib).await.ok()
        } else {
            None
        };
        for frame in self.cut_private(self.encode(body)) {
            if self.adapter.reach(node, frame.freeze()).await == Reached::Nobody {
                let now = self.now();
                self.state.lock().members.nobody(node, now);
                return false;
            }
        }
        true
    }

    /// Numbers a frame and sends it to the nodes that hear the topic. Returns whether there was room.
    fn send_to_topic(&self, topic: &str, mut frame: BytesMut, sending: &mut Sending) -> bool {
        wire::set_number(&mut frame, sending.last + 1);
        let is_sent = self.adapter.publish(Channel::Topic(topic), frame.freeze()).is_ok();
        sending.last += u64::from(is_sent);
        is_sent
    }

    fn count_sent(&self, frames: u64, is_sent: bool) {
        if is_sent {
            self.metrics.sent.increment(frames);
        } else {
            FRAMES_LOST.increment(["overflow"], 1);
            limited!(WARN, "too much waits to be sent to the other nodes: a frame is dropped");
        }
    }
}
