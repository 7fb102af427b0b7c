//! What one WebSocket adds to the metrics of its endpoint.

use std::sync::Arc;

use tokio::time::Instant;

use crate::telemetry::Handles;

/// Counts the messages of one connection, and measures how long its client keeps them waiting. It does
/// nothing, and takes no memory, without a recorder.
#[derive(Default)]
pub(super) struct Meter(Option<Box<Recorded>>);

struct Recorded {
    handles: Arc<Handles>,
    /// Since when the client has to read before more can be written.
    blocked_since: Option<Instant>,
}

impl Meter {
    pub(super) fn new(handles: &Arc<Handles>) -> Self {
        let recorded = || Box::new(Recorded { handles: Arc::clone(handles), blocked_since: None });
        Self(handles.delivery_lag.is_recorded().then(recorded))
    }

    /// Counts messages that were read.
    pub(super) fn receive(&self, messages: u64) {
        if let Some(Recorded { handles, .. }) = self.0.as_deref() {
            handles.websocket.received.increment(messages);
        }
    }

    /// Counts messages that were taken to be written.
    pub(super) fn send(&self, messages: usize) {
        if let Some(Recorded { handles, .. }) = self.0.as_deref() {
            handles.websocket.sent.increment(messages as u64);
        }
    }

    /// The client accepts no more bytes, and something is left to be written.
    pub(super) fn block(&mut self) {
        if let Some(Recorded { handles, blocked_since }) = self.0.as_deref_mut()
            && blocked_since.is_none()
        {
            *blocked_since = handles.delivery_lag.start();
        }
    }

    /// Everything is written.
    pub(super) fn unblock(&mut self) {
        if let Some(Recorded { handles, blocked_since }) = self.0.as_deref_mut() {
            handles.delivery_lag.stop(blocked_since.take());
        }
    }
}
