//! The metrics that are recorded often, with handles that are registered once per endpoint.

use super::metric::{Timing, UNLABELED};
use super::names::{CONNECT, DELIVERY_LAG, MESSAGES_RECEIVED, MESSAGES_SENT};
use super::watched::{RoundTrips, Tally};

/// The handles of one endpoint, in the recorder that was installed when it was built.
#[derive(Debug)]
pub(crate) struct Handles {
    pub(crate) connect: Timing,
    pub(crate) delivery_lag: Timing,
    pub(crate) websocket: Traffic,
    pub(crate) longpoll: Traffic,
    pub(crate) round_trips: RoundTrips,
}

/// The messages of one transport.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) received: Tally,
    pub(crate) sent: Tally,
}

impl Handles {
    pub(crate) fn new() -> Self {
        Self {
            connect: Timing::new(CONNECT.handle(UNLABELED)),
            delivery_lag: Timing::new(DELIVERY_LAG.handle(UNLABELED)),
            websocket: Traffic::new("websocket"),
            longpoll: Traffic::new("longpoll"),
            round_trips: RoundTrips::default(),
        }
    }

    /// Begins to count what is counted only while somebody watches, or ends it.
    pub(crate) fn watch(&self, begins: bool) {
        for Traffic { received, sent } in [&self.websocket, &self.longpoll] {
            received.watch(begins);
            sent.watch(begins);
        }
        self.round_trips.watch(begins);
    }
}

impl Traffic {
    fn new(transport: &'static str) -> Self {
        Self {
            received: Tally::new(MESSAGES_RECEIVED.handle([transport])),
            sent: Tally::new(MESSAGES_SENT.handle([transport])),
        }
    }
}
