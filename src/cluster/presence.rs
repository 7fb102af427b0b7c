//! The presence of the nodes, carried between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Cluster;
use super::receive::refuse;
use super::wire::{self, Body, DecodeError, ShardMessage};
use crate::adapter::NodeId;
use crate::presence::cluster::Outgoing;

/// How many bytes of messages share a frame.
const BATCH: usize = 64 << 10;

impl Cluster {
    /// Tells the others what has changed on this node.
    pub(super) fn send_presence(&self) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        // What is lost is asked for by those who lack it.
        let send = |messages| {
            self.send_to_all(Body::Presence(wire::Presence { messages }));
        };
        for outgoing in self.local.presence.collect() {
            let message = encode(&outgoing);
            if bytes > 0 && bytes + message.json.len() > BATCH {
                send(std::mem::take(&mut batch));
                bytes = 0;
            }
            bytes += message.json.len();
            batch.push(message);
        }
        if !batch.is_empty() {
            send(batch);
        }
    }

    pub(super) fn hear_clocks(self: &Arc<Self>, from: NodeId, clocks: &[u64], now: Duration) {
        let requests = self.local.presence.hear_clocks(from, clocks, now);
        let messages: Vec<_> = requests.iter().map(encode).collect();
        if !messages.is_empty() {
            self.answer(from, Body::Presence(wire::Presence { messages }));
        }
    }

    pub(super) fn hear_presence(
        self: &Arc<Self>,
        from: NodeId,
        presence: wire::Presence,
        now: Duration,
    ) {
        for ShardMessage { shard, json } in presence.messages {
            match self.local.presence.receive(from, shard, &json, now) {
                Ok(answers) => self.answer_presence(from, answers),
                Err(_) => refuse(DecodeError::Malformed),
            }
        }
    }

    /// Sends messages to one node, each when the one before is sent: all of a large topic is no burst. If a shard's
    /// messages are on their way to it, others of that shard are dropped: it asks again.
    fn answer_presence(self: &Arc<Self>, node: NodeId, answers: Vec<Outgoing>) {
        let mut shards: BTreeMap<u32, Vec<Outgoing>> = BTreeMap::new();
        answers.into_iter().for_each(|it| shards.entry(it.shard).or_default().push(it));
        {
            let mut state = self.state.lock();
            shards.retain(|shard, _| state.answering.insert((node, *shard)));
        }
        if shards.is_empty() {
            return;
        }
        let cluster = Arc::downgrade(self);
        self.runtime.spawn(async move {
            for (shard, answers) in shards {
                for outgoing in answers {
                    let Some(cluster) = cluster.upgrade() else { return };
                    let messages = vec![encode(&outgoing)];
                    let body = Body::Presence(wire::Presence { messages });
                    if !cluster.reach(node, body).await {
                        break;
                    }
                }
                let Some(cluster) = cluster.upgrade() else { return };
                cluster.state.lock().answering.remove(&(node, shard));
            }
        });
    }
}

fn encode(outgoing: &Outgoing) -> ShardMessage {
    ShardMessage { shard: outgoing.shard, json: outgoing.encode().into() }
}
