//! [`Leaving`]: the sessions of an endpoint that is shut down, for the other nodes.

use std::sync::Arc;

use tower_channels_transports::peers::{Offering, Wanted};
use tower_channels_transports::{Acceptor, LongPoll};

use super::connect::ConnectHandler;
use crate::cluster::questions::EndpointPeers;
use crate::pubsub::PubSub;
use crate::socket::drain::Leftovers;

/// The sessions of an endpoint that is shut down, for the other nodes.
pub(super) struct Leaving<A: Send + Sync + 'static> {
    acceptor: Acceptor<ConnectHandler<A>>,
    long_poll: LongPoll<ConnectHandler<A>>,
    pubsub: PubSub,
    peers: Arc<EndpointPeers>,
}

impl<A: Send + Sync + 'static> Leaving<A> {
    /// `None` if no other node can take the sessions.
    pub(super) fn new(
        acceptor: &Acceptor<ConnectHandler<A>>,
        long_poll: &LongPoll<ConnectHandler<A>>,
        pubsub: &PubSub,
        peers: Option<Arc<EndpointPeers>>,
    ) -> Option<Arc<Self>> {
        let peers = peers.filter(|peers| peers.can_take_sessions())?;
        let (acceptor, long_poll) = (acceptor.clone(), long_poll.clone());
        Some(Arc::new(Self { acceptor, long_poll, pubsub: pubsub.clone(), peers }))
    }
}

impl<A: Send + Sync + 'static> Leftovers for Leaving<A> {
    fn sweep(&self) {
        self.acceptor.sweep();
        self.long_poll.sweep();
    }

    fn detached(&self) -> Vec<(Arc<str>, Option<Box<str>>)> {
        self.acceptor.detached()
    }

    async fn leave_behind(&self, id: Arc<str>, socket_id: Option<Box<str>>) {
        // Its client may have come meanwhile, here or to another node.
        if !self.acceptor.is_detached(&id) {
            return;
        }
        // Nobody asks yet; who does will say what it has received.
        let wanted = Wanted { id: Arc::clone(&id), socket_id: socket_id.clone(), received: None };
        let Offering::Offered(session) = self.acceptor.offer(&wanted) else { return };
        if let Some(state) = session.give(None).await {
            let ttl = self.acceptor.session_ttl();
            self.peers.deposit(&id, socket_id.as_deref(), state, ttl).await;
        }
    }

    fn are_alone(&self) -> bool {
        self.peers.is_alone()
    }

    fn is_settling(&self) -> bool {
        !self.peers.is_alone() && self.pubsub.presence().0.is_lingering()
    }
}
