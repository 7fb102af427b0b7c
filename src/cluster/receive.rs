//! What a node does with the frames of the others.

use std::str;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tower_channels_transports::limited;

use super::disconnects::{Plan, plan};
use super::gaps::Scope;
use super::members::{Change, YOUNG};
use super::wire::{self, Beat, Body, DecodeError, Header, Lost, Resend};
use super::{Cluster, Hello, WeakCluster};
use crate::adapter::{Link, NodeId, NodeInbox};
use crate::payload::Payload;
use crate::telemetry::{CLUSTER_GAPS, FRAMES_REFUSED, FRAMES_REPEATED, LINKS_LOST};
use crate::topics::broadcast::Broadcast;
use crate::topics::heard::Origin;

/// What an adapter has of a node.
pub(super) struct Inbox(pub(super) WeakCluster);

impl NodeInbox for Inbox {
    fn receive(&self, frame: Bytes) {
        if let Some(cluster) = self.0.upgrade() {
            cluster.receive(frame);
        }
    }

    fn link(&self, link: Link) {
        if let Some(cluster) = self.0.upgrade() {
            match link {
                Link::Up => cluster.link_up(),
                Link::Down => cluster.link_down(),
            }
        }
    }

    fn lost(&self, frame: Bytes) {
        if let Some(cluster) = self.0.upgrade() {
            cluster.lose(frame);
        }
    }
}

impl Cluster {
    /// Takes a frame from the engine.
    fn receive(self: &Arc<Self>, frame: Bytes) {
        let now = self.now();
        let readable = self.versions;
        let (header, body) = match wire::decode_header(frame, readable) {
            Ok(decoded) => decoded,
            Err(error) => return refuse(error),
        };
        if header.from == self.node {
            // Its broadcasts have reached its clients before they were sent.
            return self.has_heard_itself.store(true, Ordering::Relaxed);
        }
        self.metrics.received.increment(1);
        // Most of what a node hears that hears all topics is wanted by nobody.
        let topic = wire::topic_of(&body);
        let mut state = self.state.lock();
        // Under the lock: a subscriber that comes later, for a session that moves, finds the number of the frame there.
        let is_wanted = topic.is_none_or(|topic| self.local.topics.subscribers(topic) > 0);
        let change = state.members.hear(header.from, now);
        self.set_standing(change.as_slice());
        let is_new = header.number == 0 || state.members.receive(header, is_wanted);
        drop(state);
        change.into_iter().for_each(|change| self.change(change));
        if !is_new {
            return FRAMES_REPEATED.add(1);
        }
        if !is_wanted {
            return;
        }
        match wire::decode_body(body) {
            Ok(Some(body)) => self.handle(header, body, now),
            // A later release may say more.
            Ok(None) => {}
            Err(error) => refuse(error),
        }
        if header.number > 0 {
            self.state.lock().members.deliver(header);
        }
    }

    fn handle(self: &Arc<Self>, header: Header, body: Body, now: Duration) {
        let from = header.from;
        match body {
            Body::Broadcast(broadcast) => self.deliver(header, broadcast),
            Body::Part(part) => {
                let whole = self.state.lock().parts.add(from, &part, now);
                match whole.map(wire::decode_body) {
                    Some(Err(_) | Ok(Some(Body::Part(_)))) => refuse(DecodeError::Malformed),
                    Some(Ok(Some(body))) => self.handle(header, body, now),
                    Some(Ok(None)) | None => {}
                }
            }
            Body::Beat(beat) => self.hear_beat(from, beat, now),
            Body::Bye(last) => {
                let mut state = self.state.lock();
                let changes = state.members.bye(from, last);
                self.set_standing(&changes);
                drop(state);
                changes.into_iter().for_each(|change| self.change(change));
            }
            Body::Disconnects(disconnects) => self.hear_disconnects(from, disconnects),
            Body::Resend(asked) => {
                let disconnects = self.sending.lock().disconnects.answer(asked);
                self.answer(from, Body::Disconnects(disconnects));
            }
            Body::Lost(Lost { topics, numbers }) => {
                self.state.lock().members.explain(from, &numbers);
                self.miss("sender", Lost::scope(topics));
            }
            Body::Presence(presence) => self.hear_presence(from, presence, now),
            Body::Probe(()) => {}
            Body::Ask(ask) => self.hear_question(from, ask, now),
            Body::Answer(answered) => self.hear_answer(from, answered),
            Body::Accepted(accepted) => self.hear_accepted(from, accepted, now),
            Body::Cancel(cancelled) => self.hear_cancel(from, cancelled),
            Body::Notice(notice) => self.hear_notice(from, notice),
        }
    }

    /// Delivers a broadcast to the clients of this node. `header` is that of the frame with which it has come whole.
    fn deliver(&self, header: Header, broadcast: wire::Broadcast) {
        let wire::Broadcast { topic, event, payload, is_binary } = broadcast;
        let (Ok(topic), Ok(event)) = (str::from_utf8(&topic), str::from_utf8(&event)) else {
            return refuse(DecodeError::Malformed);
        };
        let payload = if is_binary {
            Payload::binary(payload)
        } else {
            match str::from_utf8(&payload) {
                Ok(text) => Payload::from_json_text(text),
                Err(_) => return refuse(DecodeError::Malformed),
            }
        };
        let broadcast = Broadcast::new(topic.into(), event.into(), payload);
        let origin = (header.number > 0).then_some((header.from, header.number));
        self.local.topics.broadcast_from_node(broadcast, None, || origin);
    }

    /// See [`PubSub::heard`](crate::PubSub::heard).
    pub(crate) fn heard(&self) -> Vec<Origin> {
        let mut heard: Vec<_> = self.state.lock().members.heard().collect();
        heard.push((self.node, self.last_sent()));
        heard
    }

    /// Returns whether a node is or was one of the cluster, as far as this one can know: it may not have heard of it yet.
    pub(super) fn knows(&self, node: NodeId) -> bool {
        if self.is_alone {
            return false;
        }
        let state = self.state.lock();
        let is_known = state.members.knows(node) || state.members.has_left(node);
        is_known || !state.is_linked || self.started.elapsed() < ACQUAINTED
    }

    /// See [`PubSub::has_heard`](crate::PubSub::has_heard).
    pub(crate) fn has_heard(&self, numbers: &[Origin]) -> bool {
        let state = self.state.lock();
        // Its own reach its subscribers as they are numbered.
        numbers.iter().all(|origin| origin.0 == self.node || state.members.has_heard(*origin))
    }

    fn hear_beat(self: &Arc<Self>, from: NodeId, mut beat: Beat, now: Duration) {
        let age = self.started.elapsed();
        let clocks = std::mem::take(&mut beat.clocks);
        let mut state = self.state.lock();
        if beat.is_hello {
            state.hello = state.hello.or(Some(Hello::Answer));
        }
        let change = state.members.beat(from, beat, age);
        let missing = state.members.missing_disconnects(from);
        self.write_version(&state);
        drop(state);
        change.into_iter().for_each(|change| self.change(change));
        if let Some(missing) = missing {
            self.answer(from, Body::Resend(missing));
        }
        self.hear_clocks(from, &clocks, now);
    }

    fn hear_disconnects(self: &Arc<Self>, from: NodeId, disconnects: wire::Disconnects) {
        let mut state = self.state.lock();
        let next = match state.members.next_disconnect(from) {
            Some(next) => next,
            None if disconnects.is_answer => disconnects.first,
            // The next beat says what to ask for.
            None => return,
        };
        match plan(next, disconnects) {
            Plan::Ask(first) => {
                drop(state);
                self.answer(from, Body::Resend(Resend { first, since: 0 }));
            }
            Plan::Apply(ids, last) => {
                state.members.disconnected(from, last);
                drop(state);
                ids.iter().for_each(|id| self.local.sockets.disconnect(id));
            }
        }
    }

    /// Shows or hides the presence of the nodes that changed. Called under the lock under which that was decided, so that
    /// what was decided last is what holds.
    pub(super) fn set_standing(&self, changes: &[Change]) {
        let presence = &self.local.presence;
        for change in changes {
            match change {
                Change::Up(node) => presence.node_up(*node),
                Change::Down(node) => presence.node_down(*node),
                Change::Gone(node) => presence.node_gone(*node),
                Change::Missing(_) | Change::Ignored(_) => {}
            }
        }
    }

    /// Reports a change, and does what else it entails. The caller holds no lock.
    pub(super) fn change(self: &Arc<Self>, change: Change) {
        match change {
            Change::Up(node) => {
                limited!(INFO, ?node, "another node is heard");
                // It may have been out of reach, and a part of the engine with it.
                self.gaps.doubt();
            }
            Change::Down(node) => {
                limited!(WARN, ?node, "another node is silent");
                self.end_questions(node);
            }
            Change::Gone(node) => {
                limited!(INFO, ?node, "another node is gone");
                self.end_questions(node);
            }
            Change::Ignored(node) => {
                return limited!(WARN, ?node, "there are too many nodes: another one is ignored");
            }
            Change::Missing(node) => {
                limited!(WARN, ?node, "broadcasts of another node were lost");
                self.miss("numbers", Scope::All);
                // What was for this node alone may be lost, too.
                self.check_records();
            }
        }
        self.write_version(&self.state.lock());
    }

    /// Broadcasts of other nodes on these topics may have been lost.
    pub(super) fn miss(&self, cause: &'static str, scope: Scope) {
        CLUSTER_GAPS.increment([cause], 1);
        self.gaps.report(scope);
    }

    fn link_up(self: &Arc<Self>) {
        let now = self.now();
        let mut state = self.state.lock();
        let was_linked = std::mem::replace(&mut state.is_linked, true);
        let is_young = self.started.elapsed() < YOUNG;
        state.hello = Some(Hello::Ask);
        state.members.link_up(now);
        // By their numbers it is seen whether anything was missed, if everything is heard.
        let sees_gaps = state.members.sees_gaps();
        drop(state);
        if was_linked {
            return;
        }
        limited!(INFO, "the other nodes are heard");
        self.check_records();
        if !is_young && !sees_gaps {
            self.miss("link", Scope::All);
        }
    }

    fn link_down(&self) {
        let mut state = self.state.lock();
        let was_linked = std::mem::replace(&mut state.is_linked, false);
        state.members.link_down();
        drop(state);
        if was_linked {
            LINKS_LOST.add(1);
            limited!(WARN, "the other nodes are not heard any more");
        }
    }
}

/// From which age on a node has heard of all others.
const ACQUAINTED: Duration = Duration::from_secs(5);

/// Counts a frame that cannot be read.
pub(super) fn refuse(error: DecodeError) {
    let reason = match error {
        DecodeError::Version => "version",
        DecodeError::Malformed => "malformed",
    };
    FRAMES_REFUSED.increment([reason], 1);
    limited!(WARN, reason, "refused a frame of another node");
}
