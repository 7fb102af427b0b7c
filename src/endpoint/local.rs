//! [`Local`]: an endpoint, as the other nodes reach it.

use std::sync::OnceLock;
use std::time::Duration;

use tower_channels_transports::peers::{BoxFuture, Offering, Relayed, RelayedAnswer, Wanted};
use tower_channels_transports::{Acceptor, LongPoll, WeakAcceptor, WeakLongPoll};

use super::connect::ConnectHandler;
use crate::cluster::questions::LocalEndpoint;
use crate::socket::registry::{Phase, SessionRegistry};

/// An endpoint, as the other nodes reach it. It does not keep the acceptor alive, which keeps it.
pub(super) struct Local<A: Send + Sync + 'static> {
    sessions: SessionRegistry,
    longest_poll: Duration,
    acceptor: OnceLock<WeakAcceptor<ConnectHandler<A>>>,
    long_poll: OnceLock<WeakLongPoll<ConnectHandler<A>>>,
}

impl<A: Send + Sync + 'static> Local<A> {
    pub(super) fn new(sessions: SessionRegistry, longest_poll: Duration) -> Self {
        Self { sessions, longest_poll, acceptor: OnceLock::new(), long_poll: OnceLock::new() }
    }

    /// Begins to answer questions.
    pub(super) fn begin(
        &self,
        acceptor: &Acceptor<ConnectHandler<A>>,
        long_poll: &LongPoll<ConnectHandler<A>>,
    ) {
        let _ = self.acceptor.set(acceptor.downgrade());
        let _ = self.long_poll.set(long_poll.downgrade());
    }

    fn acceptor(&self) -> Option<Acceptor<ConnectHandler<A>>> {
        self.acceptor.get()?.upgrade()
    }
}

impl<A: Send + Sync + 'static> LocalEndpoint for Local<A> {
    fn count(&self) -> usize {
        self.sessions.count()
    }

    fn is_shutting_down(&self) -> bool {
        self.sessions.is_in(Phase::Draining)
    }

    fn has_shut_down(&self) -> bool {
        self.sessions.is_in(Phase::ShutDown)
    }

    fn longest_poll(&self) -> Duration {
        self.longest_poll
    }

    fn relayed(&self, request: Relayed) -> Option<BoxFuture<RelayedAnswer>> {
        Some(self.long_poll.get()?.upgrade()?.relayed(request))
    }

    fn offer(&self, wanted: &Wanted) -> Offering {
        self.acceptor().map_or(Offering::None, |acceptor| acceptor.offer(wanted))
    }

    fn end_moved(&self, id: &str) {
        if let Some(acceptor) = self.acceptor() {
            acceptor.end_moved(id);
        }
    }
}
