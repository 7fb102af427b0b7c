//! What a running channel counts for: in the gauge of channels, for its socket, and against the memory of the endpoint.

use std::sync::Arc;

use tower_channels_transports::FixedReservation;

use super::context::ChannelContext;
use super::moving::Continued;
use crate::message::Ref;
use crate::payload::heap_size;
use crate::socket_info::SocketInfo;
use crate::telemetry::ChannelMetrics;

/// Counts a channel from the moment its task is spawned until nothing of it is left: also while it waits
/// for an earlier instance, and while it handles what a client that is gone has sent.
pub(super) struct RunningChannel {
    metrics: Arc<ChannelMetrics>,
    socket: Arc<SocketInfo>,
    _memory: Option<FixedReservation>,
}

impl RunningChannel {
    pub(super) fn new<A>(
        context: &ChannelContext<A>,
        sent_join_ref: &Ref,
        continued: Option<&Continued>,
    ) -> Self {
        let metrics = Arc::clone(&context.metrics);
        metrics.begin();
        let socket = Arc::clone(&context.info);
        socket.begin_channel();
        let names = 2 * (heap_size(&context.topic) + sent_join_ref.heap_size());
        let arrival = continued.map_or(0, |continued| continued.arrival.heap_size());
        let account = context.client.outbox.account();
        let memory = account.map(|account| account.hold(CHANNEL + names + arrival));
        Self { metrics, socket, _memory: memory }
    }
}

impl Drop for RunningChannel {
    fn drop(&mut self) {
        self.metrics.end();
        self.socket.end_channel();
    }
}

/// What a joined channel holds at least, in bytes: its task, mailbox, stream and subscription.
const CHANNEL: usize = 1536;
