//! The metrics that are recorded often, with handles that are registered once per endpoint.

use metrics::Counter;

use super::metric::{Timing, UNLABELED};
use super::names::{CONNECT, DELIVERY_LAG, MESSAGES_RECEIVED, MESSAGES_SENT};

/// The handles of one endpoint, in the recorder that was installed when it was built.
#[derive(Debug)]
pub(crate) struct Handles {
    pub(crate) connect: Timing,
    pub(crate) delivery_lag: Timing,
    pub(crate) websocket: Traffic,
    pub(crate) longpoll: Traffic,
}

/// The messages of one transport.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
}

impl Handles {
    pub(crate) fn new() -> Self {
        Self {
            connect: Timing::new(CONNECT.handle(UNLABELED)),
            delivery_lag: Timing::new(DELIVERY_LAG.handle(UNLABELED)),
            websocket: Traffic::new("websocket"),
            longpoll: Traffic::new("longpoll"),
        }
    }
}

impl Traffic {
    fn new(transport: &'static str) -> Self {
        Self {
            received: MESSAGES_RECEIVED.handle([transport]),
            sent: MESSAGES_SENT.handle([transport]),
        }
    }
}
