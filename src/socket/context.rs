//! [`EndpointContext`]: what all sockets of an endpoint share.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::questions::EndpointPeers;
use crate::pubsub::PubSub;
use crate::router::Router;

/// What all sockets of an endpoint share.
pub(crate) struct EndpointContext<A> {
    pub(crate) router: Router<A>,
    pub(crate) refresh: Option<RefreshFn<A>>,
    pub(crate) pubsub: PubSub,
    pub(crate) limits: ChannelLimits,
    /// The other nodes, if there may be any.
    pub(crate) peers: Option<Arc<EndpointPeers>>,
}

/// Lets assigns take over what has changed when their client has connected again.
pub(crate) type RefreshFn<A> = Box<dyn Fn(&A, A) + Send + Sync>;

/// Limits on the channels of one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChannelLimits {
    /// How many channels may be joined.
    pub(crate) channels: usize,
    /// How many bytes may wait for one of them.
    pub(crate) mailbox: usize,
    pub(crate) join_timeout: Duration,
}
