//! Who may connect.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tower_channels_transports::{self as transports, ConnectInfo, Handler, outbox};

use crate::responder::Responder;
use crate::serializer::Version;
use crate::socket::registry::SessionRegistry;
use crate::socket::{EndpointContext, SocketSession};

/// Error returned by `connect`: the client is refused.
///
/// Any error becomes one through `?` and is logged; the client learns no more than HTTP 403.
#[derive(Debug)]
pub struct Rejected {
    reason: String,
    error: Option<Box<dyn Error + Send + Sync>>,
}

impl Rejected {
    /// Refuses the client, for a reason that is for the server's log alone.
    pub fn reason(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), error: None }
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Rejected {
    fn from(error: E) -> Self {
        Self { error: Some(error.into()), ..Self::reason("connect failed") }
    }
}

pub(super) type ConnectFn<A> = Box<dyn Fn(ConnectInfo) -> Connecting<A> + Send + Sync>;
type Connecting<A> = Pin<Box<dyn Future<Output = Result<A, Rejected>> + Send>>;
pub(super) type IdFn<A> = Box<dyn Fn(&A) -> Option<String> + Send + Sync>;

/// Makes a socket of a client that `connect` lets in. It has no use outside the types of an
/// endpoint's services.
pub struct Connect<A> {
    pub(super) connect: ConnectFn<A>,
    pub(super) id: IdFn<A>,
    pub(super) endpoint: Arc<EndpointContext<A>>,
    pub(super) sessions: SessionRegistry,
}

impl<A: Send + Sync + 'static> Handler for Connect<A> {
    type Session = SocketSession<A>;

    async fn connect(
        &self,
        info: ConnectInfo,
        outbox: outbox::Sender,
    ) -> Result<SocketSession<A>, transports::Rejected> {
        let (unknown_token, resuming) = (info.presented_unknown_token(), info.is_resuming());
        let version = Version::negotiate(info.params().get("vsn")).ok_or(transports::Rejected)?;
        let assigns = (self.connect)(info).await.map_err(|refused| {
            if let Some(error) = refused.error {
                tracing::error!(%error, "connect failed");
            }
            transports::Rejected
        })?;
        let id = (self.id)(&assigns);
        let Ok(membership) = self.sessions.enter(&outbox, id.clone(), resuming) else {
            metrics::counter!("tower_channels_sessions_refused").increment(1);
            return Err(transports::Rejected);
        };
        let (endpoint, client) =
            (Arc::clone(&self.endpoint), Responder { outbox, version, resumable: false });
        Ok(SocketSession::new(endpoint, assigns, client, id, unknown_token, membership))
    }
}

impl<A> fmt::Debug for Connect<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("endpoint", &self.endpoint.router).finish_non_exhaustive()
    }
}
