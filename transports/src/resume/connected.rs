//! The result of a connect, until its transport begins to use it.
//!
//! Nothing is registered yet: a client whose handshake fails, or that never uses its token, takes no
//! session over and pushes none out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::census::{Census, Present};
use super::connection::Attached;
use super::moved::MovedSession;
use super::registry::{Opened, ResumeRegistry};
use super::session::{ResumableSession, TokenId};
use super::state::SessionId;
use crate::connect_info::Transport;
use crate::outbox;
use crate::rejected::Rejected;
use crate::session::Session;

/// A client that the handler has accepted.
pub(crate) struct Accepted<S> {
    /// The id of the resumable session that the client asks for.
    pub(crate) id: Option<SessionId>,
    /// The last sequence number that the client has received, if it tracks them.
    pub(crate) received: Option<u64>,
    pub(crate) session: S,
    pub(crate) receiver: outbox::Receiver,
    /// How long the handler took.
    pub(crate) took: Duration,
}

/// The session that an accepted client is going to use.
pub(crate) struct Connected<S> {
    pub(super) received: Option<u64>,
    pub(super) census: Arc<Census>,
    /// What another node has left of the session.
    pub(super) moved: Option<Box<MovedSession>>,
    pub(super) kind: Kind<S>,
}

pub(super) enum Kind<S> {
    /// Lives as long as its connection.
    Own(S, outbox::Receiver),
    /// Becomes resumable under this id with its first connection.
    New(Arc<ResumeRegistry<S>>, SessionId, S, outbox::Receiver),
    /// Is there already. The new one lets it take over what has changed.
    Resumed(Arc<ResumableSession<S>>, S),
    /// Is there already, unless another node has a newer one by now. The new one is not admitted.
    Known(Arc<ResumeRegistry<S>>, SessionId, Arc<ResumableSession<S>>, S, outbox::Receiver),
}

impl<S: Session> Connected<S> {
    /// Finds the session that the client asks for. Without a session to resume, the new one is admitted.
    ///
    /// # Errors
    ///
    /// [`Rejected`] if the new session is not admitted.
    pub(crate) fn new(
        registry: &Arc<ResumeRegistry<S>>,
        accepted: Accepted<S>,
    ) -> Result<Self, Rejected> {
        let Accepted { id, received, mut session, receiver, .. } = accepted;
        let id = id.filter(|_| registry.is_eligible(session.id()));
        let known = id.as_ref().and_then(|id| registry.find_own(id, session.id(), received));
        let kind = if let Some(known) = known {
            match id.filter(|_| registry.peers().is_some()) {
                Some(id) => Kind::Known(Arc::clone(registry), id, known, session, receiver),
                None => Kind::Resumed(known, session),
            }
        } else {
            session.admit()?;
            match id {
                Some(id) => Kind::New(Arc::clone(registry), id, session, receiver),
                None => Kind::Own(session, receiver),
            }
        };
        Ok(Self { received, census: Arc::clone(registry.census()), moved: None, kind })
    }

    /// Creates a session that lives as long as its connection.
    #[cfg(test)]
    pub(crate) fn own(session: S, receiver: outbox::Receiver) -> Self {
        let kind = Kind::Own(session, receiver);
        Self { received: None, census: Arc::default(), moved: None, kind }
    }

    /// Whether the session lives as long as its connection.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.kind, Kind::Own(..))
    }

    /// Whether the client finds no session on this node.
    pub(crate) fn is_new(&self) -> bool {
        matches!(self.kind, Kind::Own(..) | Kind::New(..))
    }

    /// The outbox of a session that is new, or may turn out to be.
    pub(crate) fn receiver(&self) -> Option<&outbox::Receiver> {
        match &self.kind {
            Kind::Own(_, receiver)
            | Kind::New(_, _, _, receiver)
            | Kind::Known(_, _, _, _, receiver) => Some(receiver),
            Kind::Resumed(..) => None,
        }
    }

    /// Returns whether the session can still be used, if only to read what waits.
    pub(crate) fn is_open(&self) -> bool {
        match &self.kind {
            Kind::Own(_, receiver)
            | Kind::New(_, _, _, receiver)
            | Kind::Known(_, _, _, _, receiver) => !receiver.is_closed() || receiver.backlog() > 0,
            Kind::Resumed(session, _) => session.is_alive(),
        }
    }

    /// Remembers the token of a long-poll connect to a session that is there already, and returns the
    /// one before.
    pub(crate) fn replace_token(&self, id: TokenId) -> Option<TokenId> {
        match &self.kind {
            Kind::Resumed(session, _) | Kind::Known(_, _, session, ..) => session.replace_token(id),
            Kind::Own(..) | Kind::New(..) => None,
        }
    }

    /// Begins to use the session on a connection. Returns `None` if it has ended meanwhile.
    pub(crate) fn attach(self, transport: Transport) -> Option<(Attached<S>, outbox::Receiver)> {
        let Self { received, census, moved, kind } = self;
        let own = |session, receiver| {
            Some((Attached::Own(session, Present::new(census, transport)), receiver))
        };
        let (session, newer) = match kind {
            Kind::Own(session, receiver) => return own(session, receiver),
            Kind::Resumed(session, newer) | Kind::Known(_, _, session, newer, _) => {
                (session, Some(newer))
            }
            Kind::New(registry, id, session, receiver) => {
                match registry.open(&id, received, moved, session, receiver) {
                    Opened::Own(session, receiver) => return own(session, receiver),
                    Opened::Resumable(session) => (session, None),
                    Opened::Resumed(session, newer) => (session, Some(newer)),
                }
            }
        };
        if newer.as_ref().is_some_and(Session::has_expired) {
            return None;
        }
        Attached::resumable(session, received, transport, newer)
    }
}

impl<S> fmt::Debug for Connected<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Own(..) => "Own",
            Kind::New(..) => "New",
            Kind::Resumed(..) => "Resumed",
            Kind::Known(..) => "Known",
        })
    }
}
