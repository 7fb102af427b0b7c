//! A session that moves from one node to another: what it takes along, and what it finds.

pub(super) mod arriving;
mod packing;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use tower_channels_transports::peers::BoxFuture;

use self::arriving::Unpacked;
use self::packing::{Packing, outline};
use super::dispatch::Dispatcher;

impl<A: Send + Sync + 'static> Dispatcher<A> {
    /// Names the topics of the client, for the node that it goes to.
    pub(super) fn outline(&self) -> Bytes {
        let alive = self.channels.iter().filter(|(_, channel)| !channel.mailbox.is_over());
        let arriving = self.arriving.iter().flat_map(|arriving| arriving.names());
        outline(&self.responder, alive.map(|(topic, _)| topic).chain(arriving))
    }

    /// Ends the channels, and resolves with what goes along to another node, also of the refs that were `handled`.
    pub(super) fn pack(
        &mut self,
        prepared: Option<Bytes>,
        handled: Option<Vec<(u64, u64)>>,
    ) -> BoxFuture<Bytes> {
        let router = &self.endpoint.router;
        let intercepted = |topic: &str| router.find(topic).map_or(&[][..], |it| it.intercepted);
        let arriving = self.arriving.take().map(|arriving| arriving.into_packing(intercepted));
        let left = self.remembering.get().map(|it| it.move_away()).unwrap_or_default();
        let packing = Packing {
            left,
            pubsub: self.endpoint.pubsub.clone(),
            responder: self.responder.clone(),
            channels: self.channels.drain().collect(),
            arriving: arriving.unwrap_or_default(),
            handled,
        };
        Box::pin(packing.run(prepared))
    }

    /// Keeps what is broadcast to the topics of a session that is about to come from another node.
    pub(super) fn prepare(&mut self, outline: &Bytes) -> BoxFuture<Bytes> {
        let endpoint = Arc::clone(&self.endpoint);
        let is_known = |topic: &str| topic != "phoenix" && endpoint.router.find(topic).is_some();
        let arriving = self.arriving.insert(Box::default());
        let limit = endpoint.limits.channels;
        arriving.prepare(outline, &endpoint.pubsub, &self.responder, limit, is_known)
    }

    /// Continues a session of another node. Returns the refs that were handled there, if they are counted; `None` if it
    /// cannot be continued.
    pub(super) fn unpack(&mut self, packed: &Bytes) -> Option<Option<Vec<(u64, u64)>>> {
        let mut arriving = self.arriving.take().unwrap_or_default();
        let Unpacked { handled, left } =
            arriving.unpack(packed, &self.endpoint.pubsub, &self.responder)?;
        self.remembering.move_here(left);
        self.arriving = Some(arriving);
        Some(handled)
    }
}

#[cfg(test)]
mod tests;
