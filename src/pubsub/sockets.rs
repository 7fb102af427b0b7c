//! [`Sockets`]: the sessions of all endpoints that share a [`PubSub`](super::PubSub), by socket id.

use std::sync::Arc;

use smol_str::SmolStr;
use tower_channels_transports::{Close, outbox};

use crate::socket_info::SocketInfo;
use crate::topics::registry::{Membership, Registry};

/// Sessions by their socket id. A cheap clone.
#[derive(Clone)]
pub(crate) struct Sockets(Arc<Registry<Socket>>);

/// A session with a socket id.
#[derive(Clone)]
pub(crate) struct Socket {
    outbox: outbox::Sender,
    info: Arc<SocketInfo>,
}

impl Sockets {
    pub(super) fn new() -> Self {
        Self(Arc::new(Registry::new()))
    }

    /// Registers a session until the result is dropped.
    pub(crate) fn register(
        &self,
        id: &SmolStr,
        outbox: &outbox::Sender,
        info: &Arc<SocketInfo>,
    ) -> Membership<Socket> {
        let socket = Socket { outbox: outbox.clone(), info: Arc::clone(info) };
        self.0.add(id, |()| socket)
    }

    /// Closes every session with this id.
    pub(crate) fn disconnect(&self, id: &str) {
        self.0.members(id).iter().for_each(|socket| socket.outbox.close(Close::GoingAway));
    }

    /// Counts the sessions with this id, with or without a connection.
    pub(super) fn count(&self, id: &str) -> usize {
        self.open(id).count()
    }

    /// Returns whether a session with this id has a connection.
    pub(super) fn is_connected(&self, id: &str) -> bool {
        self.open(id).any(|socket| !socket.info.is_detached())
    }

    fn open(&self, id: &str) -> impl Iterator<Item = Socket> {
        self.0.members(id).into_iter().filter(|socket| !socket.outbox.is_closed())
    }
}
