//! [`Figures`]: what can be seen of an endpoint without a metrics recorder.

use std::fmt;
use std::sync::Arc;

use crate::memory::Memory;
use crate::resume::census::{Census, LABELS};
use crate::telemetry::{Handles, ROUND_TRIPS};

/// What can be seen of an endpoint without a metrics recorder. A cheap clone, from
/// [`Acceptor::figures`](crate::Acceptor::figures).
#[derive(Clone)]
pub struct Figures {
    handles: Arc<Handles>,
    census: Arc<Census>,
    memory: Memory,
}

/// The sessions and the messages of one transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportFigures {
    /// `websocket`, `longpoll`, or `other` for the transports of other crates.
    pub name: &'static str,
    /// Sessions with a connection over it.
    pub connected: usize,
    /// Sessions whose last connection was one, and that have none now.
    pub detached: usize,
    /// Messages from clients, counted while somebody [watches](Figures::watch).
    pub received: u64,
    /// Messages to clients, counted likewise.
    pub sent: u64,
}

/// Lets messages and round trips be counted for as long as it exists.
pub struct Watch(Arc<Handles>);

impl Figures {
    pub(crate) fn new(handles: &Arc<Handles>, census: &Arc<Census>, memory: &Memory) -> Self {
        let (handles, census) = (Arc::clone(handles), Arc::clone(census));
        Self { handles, census, memory: memory.clone() }
    }

    /// Lets messages and round trips be counted until the result is dropped. Without one they cost the test of a flag for each
    /// read and each write of a connection.
    #[must_use = "dropping it ends the count"]
    pub fn watch(&self) -> Watch {
        self.handles.watch(true);
        Watch(Arc::clone(&self.handles))
    }

    /// Returns the sessions and the messages by transport.
    pub fn transports(&self) -> [TransportFigures; 3] {
        let traffic = [Some(&self.handles.websocket), Some(&self.handles.longpoll), None];
        let mut index = 0;
        traffic.map(|traffic| {
            let (connected, detached) = self.census.counts(index);
            let name = LABELS[index];
            index += 1;
            let received = traffic.map_or(0, |traffic| traffic.received.counted());
            let sent = traffic.map_or(0, |traffic| traffic.sent.counted());
            TransportFigures { name, connected, detached, received, sent }
        })
    }

    /// Returns how many round trips of Pings took how long, in classes with the bounds [`ROUND_TRIPS`]; counted while somebody
    /// [watches](Self::watch). WebSockets of resumable sessions send Pings after what they write.
    pub fn round_trips(&self) -> [u64; ROUND_TRIPS.len() + 1] {
        self.handles.round_trips.counted()
    }

    /// Returns the budget of memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.watch(false);
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Figures").field("transports", &self.transports()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
