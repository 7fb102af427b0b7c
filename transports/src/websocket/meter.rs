//! What one WebSocket adds to the metrics of its endpoint.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::Handles;

/// Counts the messages of one connection, and measures how long its client keeps them waiting. Without a
/// recorder each call is a branch.
#[derive(Default)]
pub(super) struct Meter {
    handles: Option<Arc<Handles>>,
    /// Since when the client has to read before more can be written.
    blocked_since: Option<Instant>,
}

impl Meter {
    pub(super) fn new(handles: &Arc<Handles>) -> Self {
        Self { handles: Some(Arc::clone(handles)), blocked_since: None }
    }

    /// Counts messages that were read.
    pub(super) fn receive(&self, messages: u64) {
        if let Some(handles) = &self.handles {
            handles.websocket.received.increment(messages);
        }
    }

    /// Counts messages that were taken to be written.
    pub(super) fn send(&self, messages: usize) {
        if let Some(handles) = &self.handles {
            handles.websocket.sent.increment(messages as u64);
        }
    }

    /// Records the round trip of a Ping, if one was measured.
    pub(super) fn round_trip(&self, took: Option<Duration>) {
        if let (Some(handles), Some(took)) = (&self.handles, took) {
            handles.round_trips.record(took);
        }
    }

    /// The client accepts no more bytes, and something is left to be written.
    pub(super) fn block(&mut self) {
        if self.blocked_since.is_none() {
            self.blocked_since = self.handles.as_ref().and_then(|it| it.delivery_lag.start());
        }
    }

    /// Everything is written.
    pub(super) fn unblock(&mut self) {
        if let Some(handles) = &self.handles {
            handles.delivery_lag.stop(self.blocked_since.take());
        }
    }
}
