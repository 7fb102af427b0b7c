//! What both transports of an endpoint share: the handler, the origin check and the limits.

use std::fmt;
use std::sync::Arc;

use crate::connect_info::ConnectInfo;
use crate::limits::Limits;
use crate::origin::CheckOrigin;
use crate::outbox;
use crate::resume::{Connected, ResumeConfig, ResumeRegistry};
use crate::session::{Handler, Rejected, Session};

/// A [`Handler`] with what guards it. A cheap clone; every service of an endpoint holds one.
pub struct Acceptor<H: Handler>(Arc<Shared<H>>);

struct Shared<H: Handler> {
    handler: H,
    check_origin: CheckOrigin,
    limits: Limits,
    resumable: Arc<ResumeRegistry<H::Session>>,
}

impl<H: Handler> Acceptor<H> {
    /// Guards `handler`, and keeps its sessions with the default configuration.
    pub fn new(handler: H, check_origin: CheckOrigin, limits: Limits) -> Self {
        Self::with_resume(handler, check_origin, limits, ResumeConfig::default())
    }

    /// Guards `handler`, and keeps its sessions.
    pub fn with_resume(
        handler: H,
        check_origin: CheckOrigin,
        limits: Limits,
        continuity: ResumeConfig,
    ) -> Self {
        let resumable = ResumeRegistry::new(continuity);
        Self(Arc::new(Shared { handler, check_origin, limits, resumable }))
    }

    /// The limits of every connection.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Returns the origin check, which a transport applies to every request.
    pub fn check_origin(&self) -> &CheckOrigin {
        &self.0.check_origin
    }

    /// Connects, to the session that the client asks for or to one of its own.
    pub(crate) async fn connect_to_session(
        &self,
        mut info: ConnectInfo,
    ) -> Result<Connected<H::Session>, Rejected> {
        let (id, received) = (info.session().map(str::to_owned), info.received());
        if id.is_none() && info.param("session").is_some() {
            metrics::counter!("tower_channels_session_ids_ignored").increment(1);
            tracing::debug!("malformed session id ignored");
        }
        if id.as_deref().is_some_and(|id| !self.0.resumable.admits(id, info.transport())) {
            metrics::counter!("tower_channels_websockets_refused_as_flapping").increment(1);
            return Err(Rejected);
        }
        info.set_resuming(id.as_deref().is_some_and(|id| self.0.resumable.knows(id)));
        let transport = info.transport().name();
        let (session, receiver) = self.ask(info).await?;
        metrics::counter!("tower_channels_connections", "transport" => transport).increment(1);
        Ok(match id {
            Some(id) => self.0.resumable.connect(&id, received, session, receiver),
            None => Connected::Own(session, receiver),
        })
    }

    /// Connects and attaches at once, to the session that the client asks for or to one of its own.
    /// Dropping the session and the receiver is the end of the connection; a resumable session outlives it.
    ///
    /// Cancel safety: dropping the future drops the handler's.
    pub async fn connect(
        &self,
        info: ConnectInfo,
    ) -> Result<(impl Session + use<H>, outbox::Receiver), Rejected> {
        let (received, transport) = (info.received(), info.transport());
        let connected = self.connect_to_session(info).await?;
        connected.attach(received, transport).ok_or(Rejected)
    }

    /// Asks the handler, for as long as it may take, and hands out both ends of the new session.
    async fn ask(&self, info: ConnectInfo) -> Result<(H::Session, outbox::Receiver), Rejected> {
        let (outbox, receiver) = outbox::channel(self.0.limits.outbox);
        let connect = self.0.handler.connect(info, outbox);
        match tokio::time::timeout(self.0.limits.connect_timeout, connect).await {
            Ok(Ok(session)) => Ok((session, receiver)),
            Ok(Err(refused)) => Err(refused),
            Err(_) => {
                tracing::warn!("connect took too long");
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
