//! The rate of one WebSocket's client.

use tokio::time::Instant;

use crate::frame::Close;
use crate::rate::{Rate, Throttle};

/// The rate of one client, if it is limited.
pub(super) struct Throttled(Option<Box<Throttle>>);

impl Throttled {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self(rate.map(|rate| Box::new(Throttle::new(rate, Instant::now()))))
    }

    /// Until when the client is not read, because it has sent more than its rate.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.0.as_ref()?.waits_until(Instant::now())
    }

    /// How many of so many messages may be read at once.
    pub(super) fn limit(&self, messages: usize) -> usize {
        self.0.as_ref().map_or(messages, |it| it.allowance(Instant::now()).min(messages))
    }

    /// Counts what was read. Fails if the client has sent far too much.
    pub(super) fn receive(&mut self, messages: usize, bytes: usize) -> Result<(), Close> {
        let Some(throttle) = &mut self.0 else { return Ok(()) };
        let received = throttle.receive(messages, bytes, Instant::now());
        received.report().map(drop).map_err(|_| Close::Policy)
    }
}
