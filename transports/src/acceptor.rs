//! What both transports of an endpoint share: the handler, the origin check, the limits and the
//! resumable sessions.

use std::fmt;
use std::sync::Arc;

use crate::connect_info::{ConnectInfo, Transport};
use crate::limits::Limits;
use crate::origin::CheckOrigin;
use crate::outbox;
use crate::resume::{Accepted, Connected, ResumeConfig, ResumeRegistry};
use crate::session::{Handler, Rejected, Session};

/// Accepts connections for a [`Handler`]: checks origins, applies limits and resumes sessions.
///
/// A cheap clone. All transports of an endpoint share one acceptor.
pub struct Acceptor<H: Handler>(Arc<Shared<H>>);

struct Shared<H: Handler> {
    handler: H,
    check_origin: CheckOrigin,
    limits: Limits,
    resumable: Arc<ResumeRegistry<H::Session>>,
}

impl<H: Handler> Acceptor<H> {
    /// Creates an acceptor whose sessions are resumable as by default.
    pub fn new(handler: H, check_origin: CheckOrigin, limits: Limits) -> Self {
        Self::with_resume(handler, check_origin, limits, ResumeConfig::default())
    }

    /// Creates an acceptor.
    pub fn with_resume(
        handler: H,
        check_origin: CheckOrigin,
        limits: Limits,
        resume: ResumeConfig,
    ) -> Self {
        let resumable = ResumeRegistry::new(resume);
        Self(Arc::new(Shared { handler, check_origin, limits, resumable }))
    }

    /// The limits of every connection.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Returns the number of resumable sessions that have no connection at the moment.
    pub fn detached_sessions(&self) -> usize {
        self.0.resumable.detached()
    }

    /// Returns the origin check, which a transport applies to every request.
    pub fn check_origin(&self) -> &CheckOrigin {
        &self.0.check_origin
    }

    /// Lets the handler decide on a connect.
    ///
    /// A transport whose handshake may still fail drops the result then; otherwise it goes on with
    /// [`admit`](Self::admit).
    pub(crate) async fn accept(&self, info: ConnectInfo) -> Result<Accepted<H::Session>, Rejected> {
        let (id, received) = (info.session().map(str::to_owned), info.received());
        if id.is_none() && info.param("session").is_some() {
            metrics::counter!("tower_channels_session_ids_ignored").increment(1);
            tracing::debug!("malformed session id ignored");
        }
        if id.as_deref().is_some_and(|id| self.0.resumable.is_flapping(id, info.transport())) {
            metrics::counter!("tower_channels_websockets_refused_as_flapping").increment(1);
            tracing::debug!("WebSocket refused: those of this session keep dying");
            return Err(Rejected);
        }
        let (session, receiver) = self.call_handler(info).await?;
        Ok(Accepted { id, received, session, receiver })
    }

    /// Finds the session that an accepted client asks for, or admits its new one. Nobody else is
    /// affected until the client [attaches](Connected::attach) to it.
    pub(crate) fn admit(
        &self,
        accepted: Accepted<H::Session>,
        transport: Transport,
    ) -> Result<Connected<H::Session>, Rejected> {
        let connected = Connected::new(&self.0.resumable, accepted)?;
        let transport = transport.name();
        metrics::counter!("tower_channels_connections", "transport" => transport).increment(1);
        Ok(connected)
    }

    /// Connects to the session that the client asks for, or to a new one, and attaches to it.
    ///
    /// Dropping the session and the receiver ends the connection; a resumable session outlives it.
    ///
    /// # Errors
    ///
    /// [`Rejected`] if the handler rejects the connect or does not decide in time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the handler's.
    pub async fn connect(
        &self,
        info: ConnectInfo,
    ) -> Result<(impl Session + use<H>, outbox::Receiver), Rejected> {
        let transport = info.transport();
        let accepted = self.accept(info).await?;
        self.admit(accepted, transport)?.attach(transport).ok_or(Rejected)
    }

    /// Calls the handler, within the connect timeout, and returns the session with its outbox.
    async fn call_handler(
        &self,
        info: ConnectInfo,
    ) -> Result<(H::Session, outbox::Receiver), Rejected> {
        let (outbox, receiver) = outbox::channel(self.0.limits.outbox);
        let connect = self.0.handler.connect(info, outbox);
        match tokio::time::timeout(self.0.limits.connect_timeout, connect).await {
            Ok(connected) => connected.map(|session| (session, receiver)),
            Err(_) => {
                tracing::warn!("connect timed out");
                Err(Rejected)
            }
        }
    }
}

impl<H: Handler> Clone for Acceptor<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H: Handler> fmt::Debug for Acceptor<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}
