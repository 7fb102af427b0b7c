//! A session as one connection uses it.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::census::Present;
use super::session::ResumableSession;
use crate::connect_info::Transport;
use crate::frame::{Close, Inbound};
use crate::outbox;
use crate::session::Session;

/// A session in use by one connection. Dropping it ends the use: a resumable session is detached, any
/// other one ends.
pub(crate) enum Attached<S: Session> {
    Own(S, #[expect(dead_code, reason = "counts until it is dropped")] Present),
    Resumable(Epoch<S>),
}

impl<S: Session> Attached<S> {
    /// Begins an epoch of a resumable session, which `newer` has resumed unless it is `None`. Returns
    /// `None` if the session has ended.
    pub(super) fn resumable(
        session: Arc<ResumableSession<S>>,
        received: Option<u64>,
        transport: Transport,
        newer: Option<S>,
    ) -> Option<(Self, outbox::Receiver)> {
        let receiver = session.attach(received, transport, newer)?;
        let epoch = Epoch { session, number: receiver.epoch() };
        Some((Self::Resumable(epoch), receiver))
    }

    /// The connection of a resumable session.
    pub(crate) fn epoch(&self) -> Option<Epoch<S>> {
        match self {
            Self::Own(..) => None,
            Self::Resumable(epoch) => Some(epoch.clone()),
        }
    }
}

impl<S: Session> Session for Attached<S> {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        match self {
            Self::Own(session, _) => session.handle_in(message),
            Self::Resumable(epoch) => epoch.session.handle_in(epoch.number, message),
        }
    }
}

impl<S: Session> Drop for Attached<S> {
    fn drop(&mut self) {
        if let Self::Resumable(epoch) = self {
            epoch.session.detach(epoch.number);
        }
    }
}

/// One connection of a resumable session, for a transport whose client comes and goes.
///
/// The methods do nothing once a newer connection has the session. Those that change something only
/// queue events for the session, so that they may be called under a lock;
/// [`run_pending`](Self::run_pending) delivers them.
pub(crate) struct Epoch<S> {
    session: Arc<ResumableSession<S>>,
    number: u64,
}

impl<S: Session> Epoch<S> {
    /// The client waits for messages.
    pub(crate) fn set_active(&self) {
        self.session.set_active(self.number);
    }

    /// The client was there a moment ago, and does not wait for messages.
    pub(crate) fn set_idle(&self, now: Instant) {
        self.session.set_idle(self.number, now);
    }

    /// The client has been idle for too long. Returns whether this detached the session, which
    /// [`report_detached`](Self::report_detached) counts.
    pub(crate) fn detach_idle(&self) -> bool {
        self.session.detach_idle(self.number)
    }

    pub(crate) fn report_detached(&self) {
        self.session.report_detached(self.number);
    }

    /// Delivers the session's events. Application code runs: no lock may be held.
    pub(crate) fn run_pending(&self) {
        self.session.run_pending();
    }
}

impl<S> Clone for Epoch<S> {
    fn clone(&self) -> Self {
        Self { session: Arc::clone(&self.session), number: self.number }
    }
}

impl<S> fmt::Debug for Epoch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Epoch").field(&self.number).finish()
    }
}

impl<S: Session> fmt::Debug for Attached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Own(..)) { "Own" } else { "Resumable" })
    }
}
