//! [`LocalEndpoint`]: an endpoint of this node, as the other nodes reach it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tower_channels_transports::limited;
use tower_channels_transports::peers::{BoxFuture, Offering, Relayed, RelayedAnswer, Wanted};

use super::EndpointPeers;
use crate::cluster::Cluster;

/// An endpoint of this node, as the other nodes reach it.
pub(crate) trait LocalEndpoint: Send + Sync + 'static {
    /// Returns the number of its sessions.
    fn count(&self) -> usize;

    /// Returns whether a shutdown has begun.
    fn is_shutting_down(&self) -> bool;

    /// Returns whether a shutdown is over.
    fn has_shut_down(&self) -> bool;

    /// Returns how long a poll waits for a message.
    fn longest_poll(&self) -> Duration;

    /// Answers a long-poll request that another node passes on. Dropping the future withdraws it. `None` if the endpoint
    /// is gone.
    fn relayed(&self, request: Relayed) -> Option<BoxFuture<RelayedAnswer>>;

    /// Offers a session to another node.
    fn offer(&self, wanted: &Wanted) -> Offering;

    /// Ends the session of this id, which another node has by now.
    fn end_moved(&self, id: &str);
}

impl Cluster {
    /// Adds an endpoint to those of this node. Its index is the number of those that were added before, and the same on
    /// all nodes if they build their endpoints in the same order.
    pub(crate) fn add_endpoint(
        self: &Arc<Self>,
        local: Arc<dyn LocalEndpoint>,
    ) -> Arc<EndpointPeers> {
        if self.has_left.load(Ordering::Relaxed) {
            limited!(
                ERROR,
                "an endpoint has a `PubSub` that has left its cluster: build another one"
            );
        }
        let mut endpoints = self.endpoints.lock();
        let index = endpoints.len() as u32;
        endpoints.push(Arc::downgrade(&local));
        drop(endpoints);
        Arc::new(EndpointPeers::new(Arc::clone(self), index, local))
    }

    /// Returns the endpoint with this index, if it is still there.
    pub(in crate::cluster) fn endpoint(&self, index: u32) -> Option<Arc<dyn LocalEndpoint>> {
        let index = usize::try_from(index).ok()?;
        self.endpoints.lock().get(index).and_then(Weak::upgrade)
    }

    pub(super) fn longest_poll(&self, endpoint: u32) -> Duration {
        self.endpoint(endpoint).map(|endpoint| endpoint.longest_poll()).unwrap_or_default()
    }

    /// Returns how many sessions this node has, and whether it is shutting down.
    pub(in crate::cluster) fn count_sessions(&self) -> (u64, bool) {
        let endpoints: Vec<_> = self.endpoints.lock().iter().filter_map(Weak::upgrade).collect();
        let count = endpoints.iter().map(|endpoint| endpoint.count() as u64).sum();
        let is_draining =
            !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.is_shutting_down());
        (count, is_draining)
    }

    /// Returns whether there are endpoints, and all have been shut down.
    pub(in crate::cluster) fn have_shut_down(&self) -> bool {
        let endpoints: Vec<_> = self.endpoints.lock().iter().filter_map(Weak::upgrade).collect();
        !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.has_shut_down())
    }
}
