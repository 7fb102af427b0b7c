//! What both transports of an endpoint share: the handler, the origin check, the limits and the
//! resumable sessions.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::HeaderValue;
use http::header::ORIGIN;
use http::request::Parts;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::Instrument;

use crate::connect_info::{ConnectInfo, Transport};
use crate::error::ConnectError;
use crate::figures::Figures;
use crate::limited;
use crate::limits::Limits;
use crate::log_limit::excerpt;
use crate::memory::Memory;
use crate::origin::{self, CheckOrigin};
use crate::outbox;
use crate::panics;
use crate::peers::{Offering, Peers, Wanted};
use crate::rejected::Rejected;
use crate::resume::census::Gauges;
use crate::resume::sweeper::Sweep;
use crate::resume::{Accepted, Connected, ResumeConfig, ResumeRegistry};
use crate::session::{Handler, Session};
use crate::telemetry::{CONNECTS, Handles, SESSION_IDS_IGNORED, refuse};

/// Accepts connections for a [`Handler`]: checks origins, applies limits and resumes sessions.
///
/// A cheap clone. All transports of an endpoint share one acceptor.
pub struct Acceptor<H: Handler>(Arc<Shared<H>>);

/// An [`Acceptor`] that may be gone.
pub struct WeakAcceptor<H: Handler>(Weak<Shared<H>>);

impl<H: Handler> WeakAcceptor<H> {
    /// Returns the acceptor, if it is still there.
    pub fn upgrade(&self) -> Option<Acceptor<H>> {
        self.0.upgrade().map(Acceptor)
    }
}

struct Shared<H: Handler> {
    handler: H,
    check_origin: CheckOrigin,
    limits: Limits,
    resumable: Arc<ResumeRegistry<H::Session>>,
    memory: Memory,
    handles: Arc<Handles>,
    gauges: Gauges,
    /// Since when connects have found memory scarce.
    scarce_since: Mutex<Option<Instant>>,
    /// How many connects wait for the handler.
    connecting: AtomicUsize,
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
        let memory = Memory::new(limits.memory);
        Self::with_memory(handler, check_origin, limits, resume, memory)
    }

    /// Creates an acceptor whose sessions share `memory` with other parts of the endpoint.
    pub fn with_memory(
        handler: H,
        check_origin: CheckOrigin,
        limits: Limits,
        resume: ResumeConfig,
        memory: Memory,
    ) -> Self {
        Self::with_peers(handler, check_origin, limits, resume, memory, None)
    }

    /// Creates an acceptor whose sessions may move to other nodes, and from them.
    pub fn with_peers(
        handler: H,
        check_origin: CheckOrigin,
        limits: Limits,
        resume: ResumeConfig,
        memory: Memory,
        peers: Option<Arc<dyn Peers>>,
    ) -> Self {
        let resumable = ResumeRegistry::with_peers(resume, peers);
        Self(Arc::new(Shared {
            handler,
            check_origin,
            limits,
            resumable,
            memory,
            handles: Arc::new(Handles::new()),
            gauges: Gauges::new(),
            scarce_since: Mutex::default(),
            connecting: AtomicUsize::new(0),
        }))
    }

    /// The limits of every connection.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The memory that all sessions share.
    pub(crate) fn memory(&self) -> &Memory {
        &self.0.memory
    }

    /// The other nodes, if there may be any.
    pub(crate) fn peers(&self) -> Option<&Arc<dyn Peers>> {
        self.0.resumable.peers()
    }

    /// The metrics that are recorded often.
    pub(crate) fn handles(&self) -> &Arc<Handles> {
        &self.0.handles
    }

    /// Offers the session that a client asks another node for. Its connection ends if it is offered.
    pub fn offer(&self, wanted: &Wanted) -> Offering {
        self.0.resumable.offer(wanted)
    }

    /// Ends the session of this id, which another node has by now.
    pub fn end_moved(&self, id: &str) {
        self.0.resumable.end_moved(id);
    }

    /// The resumable sessions that have no connection and are not offered to another node right now, by their ids and
    /// socket ids.
    pub fn detached(&self) -> Vec<(Arc<str>, Option<Box<str>>)> {
        self.0.resumable.detached_ids()
    }

    /// Returns whether [`detached`](Self::detached) would yield the session: nobody uses it, or is about to take it.
    pub fn is_detached(&self, id: &str) -> bool {
        self.0.resumable.is_left(id)
    }

    /// How long a resumable session is kept without a connection.
    pub fn session_ttl(&self) -> Duration {
        self.0.resumable.session_ttl()
    }

    /// Returns a handle that does not keep the acceptor alive.
    pub fn downgrade(&self) -> WeakAcceptor<H> {
        WeakAcceptor(Arc::downgrade(&self.0))
    }

    /// Drops resumable sessions without a connection whose outbox is closed. They are dropped anyway,
    /// within seconds; for a shutdown that waits for it. One call drops a few hundred at most.
    pub fn sweep(&self) {
        self.0.resumable.sweep_now();
    }

    /// Returns the number of resumable sessions that have no connection at the moment.
    pub fn detached_sessions(&self) -> usize {
        self.0.resumable.detached()
    }

    /// Returns what can be seen without a metrics recorder.
    pub fn figures(&self) -> Figures {
        Figures::new(&self.0.handles, self.0.resumable.census(), &self.0.memory)
    }

    /// Updates the gauges of sessions and memory. The caller holds no lock.
    pub fn record_gauges(&self) {
        self.0.gauges.record(self.0.resumable.census());
        self.0.memory.record_gauges();
    }

    /// Checks the origin of a request by its head. A transport does this for every request, first.
    ///
    /// # Errors
    ///
    /// If the origin is not allowed, or the application's check panics.
    pub fn check_origin(&self, parts: &Parts) -> Result<(), ConnectError> {
        let allows = panics::catch("check_origin", || self.0.check_origin.allows(parts));
        if allows.inspect_err(|_| refuse("panicked"))? {
            return Ok(());
        }
        refuse("origin");
        let text = |header: &HeaderValue| String::from_utf8_lossy(header.as_bytes()).into_owned();
        let origin = parts.headers.get(ORIGIN).map(text);
        let host = origin::requested_host(parts);
        limited!(
            WARN,
            origin = ?origin.as_deref().map(excerpt),
            host = ?host.as_ref().map(|host| excerpt(host.as_str())),
            "origin refused: it would be allowed by `Builder::check_origin`, with \
             `CheckOrigin::hosts([origin]).and_same_host()`"
        );
        Err(Rejected::reason("the origin is not allowed").into())
    }

    /// Lets the handler decide on a connect.
    ///
    /// A transport whose handshake may still fail drops the result then; otherwise it goes on with
    /// [`admit`](Self::admit).
    pub(crate) async fn accept(
        &self,
        info: ConnectInfo,
    ) -> Result<Accepted<H::Session>, ConnectError> {
        let id = info.session().unwrap_or_else(|expected| {
            SESSION_IDS_IGNORED.add(1);
            limited!(WARN, expected, "session id ignored: it has another form");
            None
        });
        let (id, received) = (id.map(Arc::from), info.received());
        if id.as_deref().is_some_and(|id| self.0.resumable.refuses(id, info.transport())) {
            refuse("flapping");
            limited!(DEBUG, "WebSocket refused: its session keeps losing them");
            return Err(Rejected::reason("the session keeps losing its WebSockets").into());
        }
        if id.is_none() {
            self.check_memory()?;
        }
        let (session, receiver, took) = self.call_handler(info).await?;
        Ok(Accepted { id, received, session, receiver, took })
    }

    /// Finds the session that an accepted client asks for, or admits its new one. Nobody else is
    /// affected until the client [attaches](Connected::attach) to it.
    pub(crate) fn admit(
        &self,
        accepted: Accepted<H::Session>,
        transport: Transport,
    ) -> Result<Connected<H::Session>, ConnectError> {
        // Without an id it was checked before the handler was called.
        let has_id = accepted.id.is_some();
        let (took, socket_id) = (accepted.took, accepted.session.id().map(str::to_owned));
        let connected = Connected::new(&self.0.resumable, accepted).map_err(reject)?;
        if has_id && connected.is_new() {
            self.check_memory()?;
        }
        let transport = transport.name();
        CONNECTS.increment([transport], 1);
        limited!(INFO, id = ?socket_id, transport, ?took, "client connected");
        Ok(connected)
    }

    /// Returns an error if memory is too scarce for a new session. If it has been so for a while, room is
    /// made for the next ones.
    fn check_memory(&self) -> Result<(), ConnectError> {
        let Shared { memory, scarce_since, .. } = &*self.0;
        let now = Instant::now();
        if !memory.is_scarce() {
            *scarce_since.lock() = None;
            return Ok(());
        }
        let before = {
            let mut since = scarce_since.lock();
            let before = *since;
            since.get_or_insert(now);
            before
        };
        refuse("memory");
        match before {
            None => limited!(WARN, "memory is scarce: new sessions are refused"),
            Some(since) if now - since >= SCARCE_PATIENCE => memory.make_room(),
            Some(_) => {}
        }
        limited!(DEBUG, "session refused: memory is scarce");
        Err(ConnectError::Busy)
    }

    /// Connects to the session that the client asks for, or to a new one, and attaches to it.
    ///
    /// Dropping the session and the receiver ends the connection; a resumable session outlives it.
    ///
    /// # Errors
    ///
    /// If the handler rejects the connect, does not decide in time, or panics, if
    /// [`Limits::max_connecting`] others wait for it, if the memory of the endpoint is scarce, or if the
    /// session has no [place](Session::admit).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the handler's.
    pub async fn connect(
        &self,
        info: ConnectInfo,
    ) -> Result<(impl Session + use<H>, outbox::Receiver), ConnectError> {
        let transport = info.transport();
        let accepted = self.accept(info).await?;
        let connected = self.admit(accepted, transport)?;
        let attached = if connected.may_be_elsewhere() {
            tokio::spawn(connected.claim(transport)).await.unwrap_or(None)
        } else {
            connected.attach(transport)
        };
        // The session that it would resume has ended in this moment.
        attached.ok_or(ConnectError::Busy)
    }

    /// Counts a connect as being in progress, until the result is dropped.
    fn begin_connect(&self) -> Result<Connecting<'_>, ConnectError> {
        let limit = self.0.limits.connecting;
        // Dropped at once if there are too many.
        let connecting = Connecting(&self.0.connecting);
        if self.0.connecting.fetch_add(1, Ordering::Relaxed) >= limit {
            refuse("busy");
            limited!(WARN, limit, "connect refused: too many are in progress");
            return Err(ConnectError::Busy);
        }
        Ok(connecting)
    }

    /// Calls the handler, within the connect timeout. Returns the session, its outbox, and how long the
    /// handler took.
    async fn call_handler(
        &self,
        info: ConnectInfo,
    ) -> Result<(H::Session, outbox::Receiver, Duration), ConnectError> {
        let _connecting = self.begin_connect()?;
        let (outbox, receiver) = outbox::channel_in(self.0.limits.outbox, &self.0.memory);
        let transport = info.transport().name();
        let span = tracing::info_span!("connect", transport);
        let began = Instant::now();
        // The call and the drop of its future may panic, too.
        let connect = async {
            let connect = self.0.handler.connect(info, outbox);
            tokio::time::timeout(self.0.limits.connect_timeout, connect).await
        };
        let called = panics::catch_async("connect", connect.instrument(span)).await;
        let took = began.elapsed();
        self.0.handles.connect.record(took);
        match called.inspect_err(|_| refuse("panicked"))? {
            Ok(Ok(session)) => Ok((session, receiver, took)),
            Ok(Err(rejected)) => Err(reject(rejected)),
            Err(_) => {
                refuse("timeout");
                limited!(WARN, "connect timed out");
                Err(ConnectError::TimedOut)
            }
        }
    }
}

/// Logs and counts the refusal of a connect.
fn reject(rejected: Rejected) -> ConnectError {
    refuse(rejected.report());
    rejected.into()
}

/// How long new sessions are refused before others are closed for them.
const SCARCE_PATIENCE: Duration = Duration::from_secs(5);

/// A connect in progress.
struct Connecting<'a>(&'a AtomicUsize);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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

impl<H: Handler> fmt::Debug for WeakAcceptor<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakAcceptor")
    }
}
