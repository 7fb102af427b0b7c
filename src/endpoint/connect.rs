//! The decision about a connecting client: the application's `connect`, and the session it leads to.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tower_channels_transports::{
    self as transports, ConnectInfo, Handler, excerpt, limited, outbox,
};

use crate::guarded::Guarded;
use crate::message::LONGEST_NAME;
use crate::responder::Responder;
use crate::serializer::Version;
use crate::socket::registry::SessionRegistry;
use crate::socket::{EndpointContext, SocketSession};
use crate::socket_info::SocketInfo;

/// Error returned by `connect` to reject a client.
///
/// Any error converts into one through `?` and is logged. The client sees only HTTP 403.
///
/// Like `anyhow::Error`, it converts from every error type and so does not implement
/// [`Error`] itself.
#[derive(Debug)]
pub struct Rejected {
    reason: String,
    error: Option<Box<dyn Error + Send + Sync>>,
}

impl Rejected {
    /// Rejects the client. The reason is for the server alone; it is not sent.
    pub fn reason(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), error: None }
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Rejected {
    fn from(error: E) -> Self {
        Self { error: Some(error.into()), ..Self::reason("connect failed") }
    }
}

/// Compares the reasons and the texts of the errors, for tests.
impl PartialEq for Rejected {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "{}: {error}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

pub(super) type ConnectFn<A> = Box<dyn Fn(ConnectInfo) -> Connecting<A> + Send + Sync>;
type Connecting<A> = Pin<Box<dyn Future<Output = Result<A, Rejected>> + Send>>;
pub(super) type IdFn<A> = Box<dyn Fn(&A) -> Option<String> + Send + Sync>;

/// The transports' handler: creates the session of a client that `connect` accepts.
pub(crate) struct ConnectHandler<A> {
    pub(super) connect: ConnectFn<A>,
    pub(super) id: IdFn<A>,
    pub(super) endpoint: Arc<EndpointContext<A>>,
    pub(super) sessions: SessionRegistry,
}

impl<A: Send + Sync + 'static> Handler for ConnectHandler<A> {
    type Session = SocketSession<A>;

    async fn connect(
        &self,
        info: ConnectInfo,
        outbox: outbox::Sender,
    ) -> Result<SocketSession<A>, transports::Rejected> {
        let transport = info.transport();
        let version = Version::negotiate(info.params().get("vsn")).ok_or_else(|| {
            let version = info.param("vsn").map(excerpt);
            limited!(INFO, ?version, "connect refused: the protocol version is unknown");
            transports::Rejected::new("version")
        })?;
        #[cfg(feature = "test-util")]
        let slot = info.extensions().get::<Arc<RejectedSlot>>().cloned();
        let assigns = self.decide(info).await.map_err(|rejected| {
            let label = if let Some(error) = &rejected.error {
                limited!(ERROR, error = ?excerpt(&error.to_string()), "connect failed");
                "failed"
            } else {
                limited!(INFO, reason = ?excerpt(&rejected.reason), "connect refused by the application");
                "rejected"
            };
            #[cfg(feature = "test-util")]
            if let Some(slot) = slot {
                *slot.lock() = Some(rejected);
            }
            transports::Rejected::new(label)
        })?;
        let id = (self.id)(&assigns);
        if let Some(long) = id.as_ref().filter(|id| id.len() > LONGEST_NAME) {
            limited!(WARN, bytes = long.len(), "connect refused: the socket id is too long");
            return Err(transports::Rejected::new("socket_id"));
        }
        if self.sessions.is_shutting_down() {
            // Also a client that would resume its session, which is about to close.
            limited!(INFO, "connect refused: the endpoint is shutting down");
            return Err(transports::Rejected::new("draining"));
        }
        let responder = Responder { outbox, version, resumable: false };
        let endpoint = Arc::clone(&self.endpoint);
        let info = SocketInfo::new(id.map(Into::into), transport);
        Ok(SocketSession::new(endpoint, assigns, info, responder, self.sessions.clone()))
    }
}

impl<A: Send + Sync + 'static> ConnectHandler<A> {
    /// Asks the application, unless a test has given the assigns.
    async fn decide(&self, info: ConnectInfo) -> Result<Arc<Guarded<A>>, Rejected> {
        #[cfg(feature = "test-util")]
        if let Some(GivenAssigns(assigns)) = info.extensions().get::<GivenAssigns<A>>() {
            return Ok(Arc::clone(assigns));
        }
        (self.connect)(info).await.map(|assigns| Arc::new(Guarded::new(assigns)))
    }
}

/// An extension of a request: assigns that take the place of what `connect` would return.
#[cfg(feature = "test-util")]
pub(crate) struct GivenAssigns<A>(pub(crate) Arc<Guarded<A>>);

#[cfg(feature = "test-util")]
impl<A> Clone for GivenAssigns<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// An extension of a request: takes the reason why the client was rejected, which is sent to none.
#[cfg(feature = "test-util")]
pub(crate) type RejectedSlot = parking_lot::Mutex<Option<Rejected>>;

impl<A> fmt::Debug for ConnectHandler<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectHandler")
            .field("channels", &self.endpoint.router)
            .finish_non_exhaustive()
    }
}
