//! The decision about a connecting client: the application's `connect`, and the session it leads to.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use tower_channels_transports::{ConnectInfo, Handler, Rejected, outbox};

use crate::guarded::Guarded;
use crate::message::LONGEST_NAME;
use crate::responder::{Positions, Responder};
use crate::serializer::Version;
use crate::socket::expiry::Expiry;
use crate::socket::registry::{NotAdmitted, Phase, SessionRegistry};
use crate::socket::{EndpointContext, SocketSession};
use crate::socket_info::SocketInfo;

pub(super) type ConnectFn<A> = Box<dyn Fn(ConnectInfo) -> Connecting<A> + Send + Sync>;
type Connecting<A> = Pin<Box<dyn Future<Output = Result<A, Rejected>> + Send>>;
pub(super) type IdFn<A> = Box<dyn Fn(&A) -> Option<String> + Send + Sync>;
pub(super) type ExpiresFn<A> = Box<dyn Fn(&A) -> Option<SystemTime> + Send + Sync>;

/// The transports' handler: creates the session of a client that `connect` accepts.
pub(crate) struct ConnectHandler<A> {
    pub(super) connect: ConnectFn<A>,
    pub(super) id: IdFn<A>,
    pub(super) expires: Option<ExpiresFn<A>>,
    pub(super) endpoint: Arc<EndpointContext<A>>,
    pub(super) sessions: SessionRegistry,
}

impl<A: Send + Sync + 'static> Handler for ConnectHandler<A> {
    type Session = SocketSession<A>;

    async fn connect(
        &self,
        info: ConnectInfo,
        outbox: outbox::Sender,
    ) -> Result<SocketSession<A>, Rejected> {
        let transport = info.transport();
        let once = info.param("pushes") == Some("once");
        let positions = Positions::from_param(info.param("positions"));
        let session = self.remembers(positions).then(|| info.param("session").map(Arc::from));
        let version = Version::negotiate(info.params().get("vsn")).ok_or_else(|| {
            Rejected::reason("the protocol version is unknown").with_label("version")
        })?;
        let assigns = self.decide(info).await?;
        let id = (self.id)(&assigns);
        if id.as_ref().is_some_and(|id| id.len() > LONGEST_NAME) {
            return Err(Rejected::reason("the socket id is too long").with_label("socket_id"));
        }
        if self.sessions.is_in(Phase::Closed) {
            // Also a client that would resume its session, which is about to close.
            return Err(NotAdmitted::ShuttingDown.refuse());
        }
        let expires = self.expires.as_ref().and_then(|expires| expires(&assigns));
        let expiry = expires.map(Expiry::until).transpose()?.flatten();
        let responder = Responder { outbox, version, resumable: false, positions };
        let endpoint = Arc::clone(&self.endpoint);
        let info = SocketInfo::new(id.map(Into::into), transport);
        let created = SocketSession::new(
            endpoint,
            assigns,
            info,
            responder,
            expiry,
            self.sessions.clone(),
            once,
        );
        Ok(match session.flatten() {
            Some(session) => created.remember(session),
            None => created,
        })
    }
}

impl<A: Send + Sync + 'static> ConnectHandler<A> {
    /// Returns whether another node has to know from where the topics of a client go on: it does not say so itself.
    fn remembers(&self, positions: Positions) -> bool {
        let peers = self.endpoint.peers.as_ref().filter(|_| !positions.are_wanted());
        peers.is_some_and(|peers| peers.can_recover())
    }

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

impl<A> fmt::Debug for ConnectHandler<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectHandler")
            .field("channels", &self.endpoint.router)
            .finish_non_exhaustive()
    }
}
