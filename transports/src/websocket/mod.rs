//! WebSocket (RFC 6455, and RFC 8441 on HTTP/2) as a Tower service.
//!
//! The service answers the upgrade request and spawns one task per connection, which alone reads and
//! writes it:
//!
//! ```text
//! request -> handshake -> 101, and a task: bytes -> decoder -> Session
//!                                          bytes <- writer  <- outbox::Receiver
//! ```

mod buffers;
mod config;
mod connection;
mod deadline;
mod decoder;
mod frame_head;
mod framed_io;
mod handshake;
mod meter;
mod pings;
mod throttled;
mod turn;
mod utf8;
mod writer;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::request::Parts;
use http::{StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;
use tower_service::Service;

pub use self::config::WebSocketConfig;
#[doc(hidden)]
pub use self::connection::Connection;
#[doc(hidden)]
#[cfg(feature = "unstable-internals")]
pub use self::decoder::{Decoder, Event};
use self::handshake::Handshake;
use crate::acceptor::Acceptor;
use crate::connect_info::{ConnectInfo, Transport};
use crate::limited;
use crate::log_limit::excerpt;
use crate::response::{self, Answer};
use crate::resume::Connected;
use crate::session::Handler;
use crate::telemetry::{UPGRADES_UNFINISHED, refuse};

/// A Tower service that answers upgrade requests, at any path. Cloning is cheap.
///
/// The HTTP server must support upgrades: hyper's `with_upgrades`, hyper-util's
/// `serve_connection_with_upgrades`, or `axum::serve`. For HTTP/2 it must also enable extended
/// CONNECT with `enable_connect_protocol`, as `axum::serve` with axum's feature `http2` does. An upgrade
/// that the server does not finish within 10 s is given up, with a warning in the log.
pub struct WebSocket<H: Handler> {
    acceptor: Acceptor<H>,
    config: Arc<WebSocketConfig>,
    /// Whether the log has a warning of the HTTP server.
    has_warned: Arc<AtomicBool>,
}

impl<H: Handler> WebSocket<H> {
    /// Creates a service for the handler of `acceptor`.
    pub fn new(acceptor: Acceptor<H>, config: WebSocketConfig) -> Self {
        Self { acceptor, config: Arc::new(config), has_warned: Arc::default() }
    }

    pub(crate) fn acceptor(&self) -> &Acceptor<H> {
        &self.acceptor
    }

    pub(crate) fn config(&self) -> &WebSocketConfig {
        &self.config
    }

    /// Checks in Phoenix's order: a refusal by `connect` takes precedence over bad upgrade headers.
    async fn answer(self, mut parts: Parts) -> Answer {
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        if !handshake::is_method_allowed(&parts) {
            refuse("upgrade");
            limited!(INFO, method = ?excerpt(parts.method.as_str()), "WebSocket refused: the method is not GET");
            return response::empty(StatusCode::BAD_REQUEST);
        }
        if parts.version < Version::HTTP_11 {
            let error = format!("HTTP version {:?} unsupported", parts.version);
            refuse("upgrade");
            limited!(INFO, version = ?parts.version, "WebSocket refused: HTTP/1.1 or later is needed");
            return response::closing(response::text(StatusCode::BAD_REQUEST, error));
        }
        if let Err(error) = self.acceptor.check_origin(&parts) {
            return response::refused(&error);
        }
        let Ok(info) = ConnectInfo::from_request_parts(&parts, Transport::WebSocket) else {
            return response::bad_query();
        };
        let handshake = Handshake::check(&parts);
        drop(parts);
        let accepted = match self.acceptor.accept(info).await {
            Ok(accepted) => accepted,
            Err(error) => return response::refused(&error),
        };
        let handshake = match handshake {
            Ok(handshake) => handshake,
            Err(error) => {
                refuse("upgrade");
                let reason = &error.requirement;
                limited!(INFO, ?reason, "WebSocket refused: the request is not an upgrade");
                return response::text(
                    StatusCode::BAD_REQUEST,
                    excerpt(&error.to_string()).to_owned(),
                );
            }
        };
        let Some(upgrade) = upgrade else {
            refuse("upgrade");
            self.warn_of_server("no upgrade came with the request");
            let error = "the HTTP server does not support WebSocket upgrades";
            return response::text(StatusCode::INTERNAL_SERVER_ERROR, error);
        };
        let connected = match self.acceptor.admit(accepted, Transport::WebSocket) {
            Ok(connected) => connected,
            Err(error) => return response::refused(&error),
        };
        self.spawn(upgrade, connected);
        handshake.answer()
    }

    /// Waits for the upgrade in a task of its own, so that its memory is freed before the connection
    /// starts its long life in another.
    fn spawn(self, upgrade: OnUpgrade, connected: Connected<H::Session>) {
        tokio::spawn(async move {
            match timeout(UPGRADE_TIMEOUT, upgrade).await {
                Ok(Ok(io)) => {
                    let Self { acceptor, config, .. } = self;
                    let limits = acceptor.limits();
                    // Only now does the client have the connection. It may use another until then.
                    let attached = if connected.may_be_elsewhere() {
                        Box::pin(connected.claim(Transport::WebSocket)).await
                    } else {
                        connected.attach(Transport::WebSocket)
                    };
                    let Some((session, receiver)) = attached else { return };
                    let connection = Connection::new(io, session, receiver, &config, limits);
                    tokio::spawn(connection.metered(acceptor.handles()));
                }
                // hyper says so if the server has no upgrades, or something else took the connection.
                Ok(Err(error)) if error.is_user() => {
                    self.warn_of_server("hyper was not to upgrade")
                }
                Ok(Err(error)) => {
                    limited!(DEBUG, ?error, "a client disconnected before its upgrade");
                }
                Err(_) => self.warn_of_server("an accepted upgrade was not finished in time"),
            }
        });
    }

    /// Warns, once, of a server that cannot upgrade its connections, or of a service in between that does
    /// not pass on the request or the response as it is.
    fn warn_of_server(&self, reason: &'static str) {
        UPGRADES_UNFINISHED.add(1);
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            limited!(
                WARN,
                reason,
                "WebSockets do not work behind this HTTP server: it must serve connections with upgrades, \
                 as `axum::serve`, hyper's `with_upgrades` and hyper-util's \
                 `serve_connection_with_upgrades` do, and tonic's own server does not"
            );
        }
    }
}

/// How long the HTTP server may take from the answer to an upgrade to the upgraded connection.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

impl<H: Handler, B> Service<http::Request<B>> for WebSocket<H> {
    type Response = Answer;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> ResponseFuture {
        let (parts, _body) = request.into_parts();
        let closes = response::expects_continue(&parts);
        let answer = self.clone().answer(parts);
        ResponseFuture(Box::pin(async move {
            match answer.await {
                answer if closes && answer.status() != StatusCode::SWITCHING_PROTOCOLS => {
                    response::closing(answer)
                }
                answer => answer,
            }
        }))
    }
}

impl<H: Handler> Clone for WebSocket<H> {
    fn clone(&self) -> Self {
        Self {
            acceptor: self.acceptor.clone(),
            config: Arc::clone(&self.config),
            has_warned: Arc::clone(&self.has_warned),
        }
    }
}

impl<H: Handler> fmt::Debug for WebSocket<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The future of a response to an upgrade request.
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Answer> + Send>>);

impl Future for ResponseFuture {
    type Output = Result<Answer, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
