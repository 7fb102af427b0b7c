//! How many sessions there are, by transport and by whether their connection is there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::connect_info::Transport;
use crate::telemetry::{Level, SESSIONS};

/// The number of sessions in each state. Sessions count from the first use of a connection.
#[derive(Debug, Default)]
pub(crate) struct Census([Counts; LABELS.len()]);

/// The sessions of one transport.
#[derive(Debug, Default)]
struct Counts {
    connected: AtomicUsize,
    detached: AtomicUsize,
}

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Connected,
    Detached,
}

/// A session that is counted as connected until this is dropped.
#[derive(Debug)]
pub(crate) struct Present {
    census: Arc<Census>,
    transport: Transport,
}

/// The label values of the transports, in the order of the counts.
pub(crate) const LABELS: [&str; 3] = ["websocket", "longpoll", "other"];

impl Census {
    pub(crate) fn add(&self, transport: Transport, status: Status) {
        self.count(transport, status).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, transport: Transport, status: Status) {
        self.count(transport, status).fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns how many sessions are detached.
    pub(crate) fn detached(&self) -> usize {
        self.0.iter().map(|counts| counts.detached.load(Ordering::Relaxed)).sum()
    }

    /// Returns how many sessions of the transport at this place of [`LABELS`] are connected, and how many detached.
    pub(crate) fn counts(&self, index: usize) -> (usize, usize) {
        let Counts { connected, detached } = &self.0[index];
        (connected.load(Ordering::Relaxed), detached.load(Ordering::Relaxed))
    }

    fn count(&self, transport: Transport, status: Status) -> &AtomicUsize {
        let counts = match transport {
            Transport::WebSocket => &self.0[0],
            Transport::LongPoll => &self.0[1],
            Transport::InMemory | Transport::Other(_) => &self.0[2],
        };
        match status {
            Status::Connected => &counts.connected,
            Status::Detached => &counts.detached,
        }
    }
}

impl Present {
    pub(crate) fn new(census: Arc<Census>, transport: Transport) -> Self {
        census.add(transport, Status::Connected);
        Self { census, transport }
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.census.remove(self.transport, Status::Connected);
    }
}

/// The gauges of a [`Census`].
#[derive(Debug)]
pub(crate) struct Gauges([[Level; 2]; LABELS.len()]);

impl Gauges {
    pub(crate) fn new() -> Self {
        let level = |transport, state| Level::new(SESSIONS.handle([transport, state]));
        Self(LABELS.map(|transport| ["connected", "detached"].map(|state| level(transport, state))))
    }

    pub(crate) fn record(&self, census: &Census) {
        for (index, levels) in self.0.iter().enumerate() {
            let (connected, detached) = census.counts(index);
            levels[0].set(connected);
            levels[1].set(detached);
        }
    }
}
