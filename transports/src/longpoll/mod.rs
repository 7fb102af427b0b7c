//! Long polling as a Tower service.
//!
//! A GET without a token connects, and is answered with a token. A GET with one waits for
//! messages, and a POST brings some. The head of a request decides everything, before the body is read
//! and before anything is awaited, so that a waiting poll keeps nothing of its request.

mod answer;
mod batch;
mod body;
mod config;
mod first_use;
mod future;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
pub mod fuzzing;
mod pause;
mod pending_poll;
mod post;
mod registry;
mod relay;
mod repeats;
mod session;
mod shared_answer;
mod state;
mod token;

use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body::Body;
use tower_service::Service;

pub use self::config::LongPollConfig;
pub use self::future::ResponseFuture;
use self::future::ready;
use self::pause::Pauses;
use self::pending_poll::PendingPoll;
use self::registry::Registry;
use self::session::LongPollSession;
use self::state::Gone;
use self::token::Token;
use crate::acceptor::Acceptor;
use crate::connect_info::{ConnectInfo, Transport};
use crate::limited;
use crate::params;
use crate::peers::{BoxFuture, NodeId, Relayed, RelayedAnswer};
use crate::response::{self, Answer};
use crate::resume::sweeper::Sweep;
use crate::session::Handler;
use crate::telemetry::{LONGPOLL_REPEATS_REFUSED, LONGPOLL_TOKENS_REFUSED};

/// Long polling as a Tower service. It answers every request, whatever its path. Clones share their
/// sessions.
pub struct LongPoll<H: Handler>(Arc<Server<H>>);

/// A [`LongPoll`] that may be gone.
pub struct WeakLongPoll<H: Handler>(Weak<Server<H>>);

impl<H: Handler> WeakLongPoll<H> {
    /// Returns the service, if it is still there.
    pub fn upgrade(&self) -> Option<LongPoll<H>> {
        self.0.upgrade().map(LongPoll)
    }
}

struct Server<H: Handler> {
    acceptor: Acceptor<H>,
    config: LongPollConfig,
    registry: Arc<Registry<H::Session>>,
    pauses: Pauses,
}

type SharedSession<H> = Arc<LongPollSession<<H as Handler>::Session>>;

impl<H: Handler> LongPoll<H> {
    /// Creates a service for the connections that `acceptor` accepts.
    pub fn new(acceptor: Acceptor<H>, config: LongPollConfig) -> Self {
        let handles = Arc::clone(acceptor.handles());
        let registry = Registry::new(config.session_timeout(), config.poll_timeout, handles);
        Self(Arc::new(Server { acceptor, config, registry, pauses: Pauses::default() }))
    }

    /// Drops sessions that were closed for a restart and have no poll waiting. They are dropped anyway,
    /// within seconds; for a shutdown that waits for it. One call drops a few hundred at most.
    pub fn sweep(&self) {
        self.0.registry.sweep_now();
    }

    /// Answers a request that another node passes on, as if its client had sent it here, and within three seconds
    /// if it is a POST. A token that names another node is unknown here: no request is passed on twice.
    ///
    /// # Cancel safety
    ///
    /// Nothing happens before the future is polled. Dropping it withdraws a poll; a POST is handled as a whole, or
    /// not at all.
    pub fn relayed(&self, request: Relayed) -> BoxFuture<RelayedAnswer> {
        Box::pin(Arc::clone(&self.0).answer_relayed(request))
    }

    /// Returns a handle that does not keep the sessions alive.
    pub fn downgrade(&self) -> WeakLongPoll<H> {
        WeakLongPoll(Arc::downgrade(&self.0))
    }

    pub(crate) fn acceptor(&self) -> &Acceptor<H> {
        &self.0.acceptor
    }

    pub(crate) fn config(&self) -> &LongPollConfig {
        &self.0.config
    }
}

impl<H, B> Service<Request<B>> for LongPoll<H>
where
    H: Handler,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let (parts, body) = request.into_parts();
        let (closes, cors) = (response::expects_continue(&parts), self.0.config.cors);
        let answer = if let Err(error) = self.0.acceptor.check_origin(&parts) {
            ready(answer::refused(&error))
        } else if parts.uri.query().is_some_and(params::is_too_long) {
            ready(response::bad_query())
        } else {
            match parts.method {
                Method::GET => self.0.get(parts),
                Method::POST => match self.0.post(&parts, body) {
                    Ok(receiving) => return receiving.with_cors(cors.is_on),
                    Err(answer) => answer,
                },
                Method::OPTIONS if cors.is_on => {
                    ready(answer::preflight(&parts.headers, cors.private_network))
                }
                _ => ready(answer::bad_method()),
            }
        };
        answer.closing_if(closes).with_cors(cors.is_on)
    }
}

impl<H: Handler> Server<H> {
    /// Begins a poll or, without a token, connects.
    fn get(self: &Arc<Self>, mut parts: Parts) -> ResponseFuture {
        if let Some(token) = token::of(&parts) {
            if let Some(owner) = self.other_node(&token) {
                return ResponseFuture::new(Arc::clone(self).relay_poll(owner));
            }
            return match self.begin_poll(&token) {
                Ok(answer) => answer,
                Err(refused) => ResponseFuture::new(Arc::clone(self).refuse(refused)),
            };
        }
        token::remove_blank(&mut parts);
        let Ok(info) = ConnectInfo::from_request_parts(&parts, Transport::LongPoll) else {
            return ready(response::bad_query());
        };
        ResponseFuture::new(Arc::clone(self).connect(info))
    }

    fn begin_poll(self: &Arc<Self>, token: &str) -> Result<ResponseFuture, Refused> {
        let (token, session) = self.find(token)?;
        if !session.admit_repeat(token.cursor) {
            LONGPOLL_REPEATS_REFUSED.add(1);
            limited!(DEBUG, "poll answered without messages: its token is repeated too often");
            return Ok(ready(answer::empty(StatusCode::NO_CONTENT, token)));
        }
        match self.claim(&session) {
            None => self.poll(token, session),
            Some(claiming) => Ok(Arc::clone(self).poll_after(claiming, token, session)),
        }
    }

    fn poll(
        self: &Arc<Self>,
        token: Token,
        session: SharedSession<H>,
    ) -> Result<ResponseFuture, Refused> {
        match session.begin_poll(token.cursor) {
            Ok(id) => {
                let registry = Arc::clone(&self.registry);
                let poll = PendingPoll { registry, session, token, id };
                Ok(ResponseFuture::new(poll.wait()))
            }
            Err(Gone) => Err(self.end(&token, &session)),
        }
    }

    fn check(&self, token: &Token, session: &LongPollSession<H::Session>) -> Result<(), Refused> {
        session.check(token.cursor).map_err(|Gone| self.end(token, session))
    }

    fn find(&self, token: &str) -> Result<(Token, SharedSession<H>), Refused> {
        let token = Token::parse(token).filter(|token| token.node == self.node());
        let token = token.ok_or(Refused::Unknown)?;
        let session = self.registry.find(&token.id).ok_or(Refused::Unknown)?;
        Ok((token, session))
    }

    /// Forgets a token that will never be valid again.
    fn end(&self, token: &Token, session: &LongPollSession<H::Session>) -> Refused {
        let is_superseded = session.is_superseded();
        if is_superseded || session.is_over() {
            self.registry.remove(&token.id);
        }
        if is_superseded { Refused::Superseded } else { Refused::Unknown }
    }

    /// The node that tokens name, if there may be others.
    fn node(&self) -> Option<NodeId> {
        self.acceptor.peers().map(|peers| peers.node())
    }

    /// Refuses a token, an unknown one after a pause.
    async fn refuse(self: Arc<Self>, refused: Refused) -> Answer {
        let answer = refused.answer();
        if refused == Refused::Unknown {
            self.pauses.pause().await;
        }
        answer
    }

    /// Connects. The first token of a session comes with status 410, as Phoenix clients expect.
    async fn connect(self: Arc<Self>, info: ConnectInfo) -> Answer {
        let reads_binary = info.param("binary") == Some("base64");
        let delay = matches!(info.session(), Ok(Some(_))).then_some(FIRST_RESPONSE_DELAY);
        let accepted = self.acceptor.accept(info).await;
        let admit = |accepted| self.acceptor.admit(accepted, Transport::LongPoll);
        let connected = match accepted.and_then(admit) {
            Ok(connected) => connected,
            Err(error) => return answer::refused(&error),
        };
        if let Some(delay) = delay {
            tokio::time::sleep(delay).await;
        }
        let id = match token::draw_id() {
            Ok(id) => id,
            Err(error) => {
                limited!(ERROR, ?error, "no random bytes for a session token");
                return answer::status(StatusCode::INTERNAL_SERVER_ERROR);
            }
        };
        self.registry.insert(id, connected, reads_binary);
        answer::empty(StatusCode::GONE, Token { id, node: self.node(), cursor: 0 })
    }
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// A newer connection has its session.
    Superseded,
    /// Its session is gone, or was never here.
    Unknown,
}

impl Refused {
    /// Counts the refusal, and returns the answer: 500, on which every client connects anew and rejoins. The 410 of
    /// a new session would leave older ones believing that they are joined.
    fn answer(self) -> Answer {
        let reason = match self {
            Self::Superseded => "superseded",
            Self::Unknown => "unknown",
        };
        LONGPOLL_TOKENS_REFUSED.increment([reason], 1);
        limited!(DEBUG, reason, "long-poll token refused");
        answer::status(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// The delay before the response with the first token of a resumable session: phoenix.js 1.8.12 sets its
/// close handler a moment after it connects, and loses it if the response comes earlier.
const FIRST_RESPONSE_DELAY: Duration = Duration::from_millis(15);

impl<H: Handler> Clone for LongPoll<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H: Handler> fmt::Debug for LongPoll<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LongPoll").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl<H: Handler> fmt::Debug for WeakLongPoll<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakLongPoll")
    }
}
