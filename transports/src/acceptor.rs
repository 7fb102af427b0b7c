//! What both transports of an endpoint share: the handler, the origin check, the limits and the
//! resumable sessions.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;

use crate::connect_info::ConnectInfo;
use crate::limits::Limits;
use crate::origin::CheckOrigin;
use crate::outbox;
use crate::resume::{Connected, ResumeConfig, ResumeRegistry};
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
    /// How many connects wait for the handler.
    connecting: AtomicUsize,
}

/// Why a client is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// The handler rejected it or did not decide in time, or its session is flapping.
    Rejected,
    /// Too many others are being connected.
    Busy,
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
        let connecting = AtomicUsize::new(0);
        Self(Arc::new(Shared { handler, check_origin, limits, resumable, connecting }))
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

    /// Connects to the session that the client asks for, or to a new one.
    pub(crate) async fn connect_to_session(
        &self,
        mut info: ConnectInfo,
    ) -> Result<Connected<H::Session>, ConnectError> {
        let _connecting = self.begin_connect()?;
        let (id, received) = (info.session().map(str::to_owned), info.received());
        if id.is_none() && info.param("session").is_some() {
            metrics::counter!("tower_channels_session_ids_ignored").increment(1);
            tracing::debug!("malformed session id ignored");
        }
        if id.as_deref().is_some_and(|id| !self.0.resumable.admits(id, info.transport())) {
            metrics::counter!("tower_channels_websockets_refused_as_flapping").increment(1);
            return Err(ConnectError::Rejected);
        }
        info.set_resuming(id.as_deref().is_some_and(|id| self.0.resumable.knows(id)));
        let transport = info.transport().name();
        let (session, receiver) = self.call_handler(info).await?;
        metrics::counter!("tower_channels_connections", "transport" => transport).increment(1);
        Ok(match id {
            Some(id) => self.0.resumable.connect(&id, received, session, receiver),
            None => Connected::Own(session, receiver),
        })
    }

    /// Connects to the session that the client asks for, or to a new one, and attaches to it.
    ///
    /// Dropping the session and the receiver ends the connection; a resumable session outlives it.
    ///
    /// # Errors
    ///
    /// [`Rejected`] if the handler rejects the connect or does not decide in time, or if
    /// [`Limits::max_connecting`] others wait for it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the handler's.
    pub async fn connect(
        &self,
        info: ConnectInfo,
    ) -> Result<(impl Session + use<H>, outbox::Receiver), Rejected> {
        let (received, transport) = (info.received(), info.transport());
        let connected = self.connect_to_session(info).await.map_err(|_| Rejected)?;
        connected.attach(received, transport).ok_or(Rejected)
    }

    /// Counts a connect as being in progress, until the result is dropped.
    fn begin_connect(&self) -> Result<Connecting<'_>, ConnectError> {
        let limit = self.0.limits.connecting;
        // Dropped at once if there are too many.
        let connecting = Connecting(&self.0.connecting);
        if self.0.connecting.fetch_add(1, Ordering::Relaxed) >= limit {
            metrics::counter!("tower_channels_connects_refused_as_busy").increment(1);
            tracing::warn!(limit, "connect refused: too many are in progress");
            return Err(ConnectError::Busy);
        }
        Ok(connecting)
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

/// A connect in progress.
struct Connecting<'a>(&'a AtomicUsize);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ConnectError {
    /// Returns the HTTP status for it.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Rejected => StatusCode::FORBIDDEN,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<Rejected> for ConnectError {
    fn from(_: Rejected) -> Self {
        Self::Rejected
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
