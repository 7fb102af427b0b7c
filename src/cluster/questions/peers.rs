//! [`EndpointPeers`]: the other nodes, as an endpoint of this one reaches them.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tower_channels_transports::peers::{
    self, BoxFuture, Found, NotRelayed, Peers, RelayedAnswer, Wanted,
};

use super::{Answer, AskError, LocalEndpoint, Question};
use crate::adapter::NodeId;
use crate::cluster::Cluster;
use crate::cluster::claims::Recoverable;
use crate::cluster::wire::questions::{Poll, Post, Relayed};

/// The other nodes, as an endpoint of this one reaches them.
pub(crate) struct EndpointPeers {
    pub(in crate::cluster) cluster: Arc<Cluster>,
    /// The index of the endpoint.
    pub(in crate::cluster) index: u32,
    /// The cluster refers to it weakly.
    _local: Arc<dyn LocalEndpoint>,
}

impl EndpointPeers {
    pub(super) fn new(cluster: Arc<Cluster>, index: u32, local: Arc<dyn LocalEndpoint>) -> Self {
        Self { cluster, index, _local: local }
    }

    /// Returns whether sessions can move: the engine keeps records.
    pub(crate) fn can_take_sessions(&self) -> bool {
        self.cluster.adapter.store().is_some()
    }

    /// Returns whether there are never other nodes.
    pub(crate) fn is_alone(&self) -> bool {
        self.cluster.is_alone()
    }

    /// See [`Cluster::can_recover`].
    pub(crate) fn can_recover(&self) -> bool {
        self.cluster.can_recover()
    }

    /// See [`Cluster::follow`].
    pub(crate) fn follow(&self, id: &str, session: Weak<dyn Recoverable>, continues: bool) {
        self.cluster.follow(self.index, id, session, continues);
    }

    /// See [`Cluster::own_id`].
    pub(crate) fn own_id(&self, id: &str) -> Option<Arc<str>> {
        self.cluster.own_id(self.index, id)
    }

    /// See [`Cluster::change_topics`].
    pub(crate) fn change_topics(&self, id: &str) {
        self.cluster.change_topics(self.index, id);
    }

    /// See [`Cluster::expect_topics`].
    pub(crate) fn expect_topics(&self, id: &Arc<str>) {
        self.cluster.expect_topics(self.index, id);
    }

    /// Leaves a session behind in the store. See [`Cluster::deposit`].
    pub(crate) async fn deposit(
        &self,
        id: &str,
        socket_id: Option<&str>,
        state: Bytes,
        ttl: Duration,
    ) -> bool {
        self.cluster.deposit(self.index, id, socket_id, state, ttl).await
    }
}

impl Peers for EndpointPeers {
    fn node(&self) -> peers::NodeId {
        self.cluster.node.0
    }

    fn knows(&self, node: peers::NodeId) -> bool {
        self.cluster.knows(NodeId(node))
    }

    fn relay(
        &self,
        node: peers::NodeId,
        request: peers::Relayed,
    ) -> BoxFuture<Result<RelayedAnswer, NotRelayed>> {
        let (cluster, index) = (Arc::clone(&self.cluster), self.index);
        Box::pin(async move {
            let question = match request {
                peers::Relayed::Poll { token } => Question::Poll(Poll { token }),
                peers::Relayed::Post { token, ndjson, body } => {
                    Question::Post(Post { token, is_ndjson: ndjson, body })
                }
                _ => return Err(NotRelayed::Gone),
            };
            match cluster.ask(NodeId(node), index, question).await {
                Ok(Answer::Relayed(answer)) => answer.check().ok_or(NotRelayed::Gone),
                // It has no such endpoint any more.
                Ok(_) | Err(AskError::Gone | AskError::Silent) => Err(NotRelayed::Gone),
                Err(AskError::Late) => Err(NotRelayed::Late),
                Err(AskError::Busy) => Err(NotRelayed::Busy),
            }
        })
    }

    fn find(&self, wanted: Wanted) -> BoxFuture<Found> {
        self.cluster.find(self.index, wanted)
    }

    fn release(&self, id: &Arc<str>) {
        self.cluster.release(self.index, id);
    }
}

impl Relayed {
    /// Returns the answer, if its status is one.
    fn check(self) -> Option<RelayedAnswer> {
        let status = u16::try_from(self.status).ok().filter(|it| (200..600).contains(it))?;
        Some(RelayedAnswer { status, retry_after: self.retry_after, body: self.body })
    }
}

impl fmt::Debug for EndpointPeers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointPeers").field("endpoint", &self.index).finish_non_exhaustive()
    }
}
