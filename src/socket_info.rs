//! [`SocketInfo`]: what is known of a socket, for its channels and for those that look for it.

use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::time::Instant;
use tower_channels_transports::Transport;

/// A socket's id, and how its client is connected.
#[derive(Debug)]
pub(crate) struct SocketInfo {
    id: Option<SmolStr>,
    since: Instant,
    channels: AtomicU32,
    /// Held to read or write it.
    connection: Mutex<Connection>,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    /// Of the newest connection.
    transport: Transport,
    is_detached: bool,
}

impl SocketInfo {
    pub(crate) fn new(id: Option<SmolStr>, transport: Transport) -> Self {
        let connection = Mutex::new(Connection { transport, is_detached: false });
        Self { id, since: Instant::now(), channels: AtomicU32::new(0), connection }
    }

    /// The socket id.
    pub(crate) fn id(&self) -> Option<&SmolStr> {
        self.id.as_ref()
    }

    /// When its client connected first, to this node.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Returns how many channels it has.
    pub(crate) fn channels(&self) -> u32 {
        self.channels.load(Ordering::Relaxed)
    }

    pub(crate) fn begin_channel(&self) {
        self.channels.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end_channel(&self) {
        self.channels.fetch_sub(1, Ordering::Relaxed);
    }

    /// The transport of the client's connection, or of its last one.
    pub(crate) fn transport(&self) -> Transport {
        self.connection.lock().transport
    }

    /// Returns whether the session has no connection.
    pub(crate) fn is_detached(&self) -> bool {
        self.connection.lock().is_detached
    }

    /// The client uses a connection over this transport.
    pub(crate) fn attach(&self, transport: Transport) {
        *self.connection.lock() = Connection { transport, is_detached: false };
    }

    /// The client's connection is lost, or used again after all.
    pub(crate) fn set_detached(&self, is_detached: bool) {
        self.connection.lock().is_detached = is_detached;
    }
}
