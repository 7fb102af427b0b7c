//! A live dashboard for [tower-channels](tower_channels), as a Tower service: which sessions there are, what waits for them,
//! which topics are busy, how many messages come and go and how long they take, who is present, which nodes there are.
//!
//! ```
//! use std::net::SocketAddr;
//!
//! use axum::Router;
//! use axum::extract::ConnectInfo;
//! use tower_channels::Endpoint;
//! use tower_channels_dashboard::{Access, Dashboard, Parts, has_password};
//!
//! fn app(endpoint: &Endpoint<()>, password: &'static str) -> Router {
//!     let dashboard = Dashboard::new(endpoint).authorize(move |request: Parts| async move {
//!         if has_password(&request, password) { Access::ALL } else { Access::LOGIN }
//!     });
//!     Router::new().nest_service("/socket", endpoint.service()).nest_service("/dashboard", dashboard)
//! }
//! # let _ = app;
//! ```
//!
//! # Who may see it
//!
//! Nobody, until [`Dashboard::authorize`] decides otherwise: every request gets HTTP 403. The closure is asked for each
//! request, that for the page and those of its connection, and again every ten minutes. It returns an [`Access`]: to see
//! figures and names, to see the content of messages and presences, to disconnect clients. The page connects only from the
//! host that served it, see [`Dashboard::check_origin`].
//!
//! Whoever may see it sees socket ids, topics and presence keys. Connect parameters, headers, tokens and assigns are not
//! shown to anybody.
//!
//! # What it costs
//!
//! Nothing while nobody looks, beside the test of a flag where messages are counted anyway. The plots begin when somebody
//! looks, and are forgotten when nobody does any more. Lists are read in small parts with other tasks in between, one list at
//! a time, and show the first hundred rows of what was found, however many sessions there are.
//!
//! The page is one of its own [`Endpoint`], inside, with its own limits: 64 viewers and 32 MiB. It is served from memory, needs
//! nothing from elsewhere, and runs under a strict content security policy.

mod access;
mod console;
mod files;
mod lists;
mod monitor;
mod numbers;
mod rates;
mod sampling;
mod service;
mod traffic;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use http::request::Parts;
use tower_channels::{
    CheckOrigin, ConnectInfo, Endpoint, PubSub, PubSubConfig, Rate, Rejected, ResumeConfig,
    ShutdownConfig,
};

pub use self::access::{Access, has_password, is_local};
use self::console::Console;
use self::monitor::Monitor;
use self::service::{AuthorizeFn, Socket};
pub use self::service::{Body, ResponseFuture};
use self::traffic::Traffic;

/// A service that shows an endpoint. A cheap clone; clones share everything.
///
/// Mount it anywhere, below a prefix that the router removes or leaves: it knows its requests by the end of their path and
/// by their query.
#[derive(Clone)]
pub struct Dashboard {
    authorize: Option<AuthorizeFn>,
    monitor: Arc<Monitor>,
    /// The endpoint of the pages, and its service.
    pages: Endpoint<Viewer>,
    socket: Socket,
}

/// What a page that has connected may do.
pub(crate) struct Viewer {
    pub(crate) access: Access,
    pub(crate) monitor: Arc<Monitor>,
}

impl Dashboard {
    /// Creates a dashboard of an endpoint, which refuses everybody until [`authorize`](Self::authorize) is called.
    pub fn new<A: Send + Sync + 'static>(endpoint: &Endpoint<A>) -> Self {
        let monitor = Monitor::new(endpoint.inspect());
        let pages = pages(&monitor, CheckOrigin::default());
        Self { authorize: None, monitor, socket: pages.service(), pages }
    }

    /// Sets who may see what. The closure is asked for every request, with its head, in which the server and outer layers may
    /// have left what they know of the visitor. It should answer within a second.
    ///
    /// Use what guards the rest of the application's administration: a session cookie, a layer in front, or
    /// [`has_password`]. Tokens in the URL do not work: the page connects without them.
    #[must_use]
    pub fn authorize<F, D>(mut self, decide: D) -> Self
    where
        D: Fn(Parts) -> F + Send + Sync + 'static,
        F: Future<Output = Access> + Send + 'static,
    {
        self.authorize = Some(Arc::new(move |request| Box::pin(decide(request))));
        self
    }

    /// Sets which pages may connect to the dashboard. Default: those of the same host. Behind a proxy that changes `Host`,
    /// name the hosts.
    #[must_use]
    pub fn check_origin(mut self, check_origin: CheckOrigin) -> Self {
        self.pages = pages(&self.monitor, check_origin);
        self.socket = self.pages.service();
        self
    }

    /// Ends the connections of all pages and accepts none any more, as [`Endpoint::shutdown`] does. For a server that waits for its
    /// responses when it stops.
    pub async fn shutdown(&self, config: impl Into<ShutdownConfig>) -> bool {
        self.pages.shutdown(config).await
    }
}

/// Creates the endpoint of the pages.
fn pages(monitor: &Arc<Monitor>, check_origin: CheckOrigin) -> Endpoint<Viewer> {
    let monitor = Arc::clone(monitor);
    let accept = move |info: ConnectInfo| {
        let access = info.extensions().get::<Access>().copied().filter(|access| access.views());
        let monitor = Arc::clone(&monitor);
        async move {
            let access = access.ok_or_else(|| Rejected::reason("the dashboard is not allowed"))?;
            Ok(Viewer { access, monitor })
        }
    };
    let pubsub = PubSub::with_config(PubSubConfig::new().memory(MEMORY));
    let pubsub = pubsub.unwrap_or_else(|error| unreachable!("the limits are valid: {error}"));
    Endpoint::builder(accept)
        .channel::<Console>(console::TOPIC)
        .channel::<Traffic>(traffic::TOPIC)
        .expires(|_: &Viewer| Some(SystemTime::now() + AUTHORIZED_FOR))
        .check_origin(check_origin)
        .resume(ResumeConfig::off())
        .pubsub(pubsub)
        .max_sessions(VIEWERS)
        .max_message(16 << 10)
        .max_outbox(1 << 20)
        .max_mailbox(256 << 10)
        .rate(Rate::new(20, 64 << 10))
        .build()
}

/// How many pages may be open.
const VIEWERS: usize = 64;

/// What all of them may take.
const MEMORY: usize = 32 << 20;

/// After this time a page connects anew, and is authorized again.
const AUTHORIZED_FOR: Duration = Duration::from_secs(600);

impl fmt::Debug for Dashboard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dashboard")
            .field("is_authorized", &self.authorize.is_some())
            .finish_non_exhaustive()
    }
}
