//! The Tower face of an endpoint: its layer, its services and their futures.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{Either, Full};
use pin_project::pin_project;
use tower_channels_transports::{
    ConfigError, LongPoll, NotFound, SocketLayer, SocketService, WebSocket, future,
};

use super::connect::ConnectHandler;

/// Layer that mounts an endpoint in front of another service. Returned by
/// [`Endpoint::layer`](crate::Endpoint::layer).
pub struct Layer<A: Send + Sync + 'static>(SocketLayer<ConnectHandler<A>>);

/// Service that answers the requests of an endpoint's clients. Returned by
/// [`Endpoint::service`](crate::Endpoint::service), and made by a [`Layer`], when it passes all other
/// requests to `S`.
pub struct Service<A: Send + Sync + 'static, S = NotFound>(SocketService<ConnectHandler<A>, S>);

/// Service of the WebSocket transport alone. Returned by
/// [`Endpoint::websocket`](crate::Endpoint::websocket).
pub struct WebSocketService<A: Send + Sync + 'static>(pub(super) WebSocket<ConnectHandler<A>>);

/// Service of the long-poll transport alone. Returned by
/// [`Endpoint::long_poll`](crate::Endpoint::long_poll).
pub struct LongPollService<A: Send + Sync + 'static>(pub(super) LongPoll<ConnectHandler<A>>);

/// Response future of a [`Service`].
#[pin_project]
pub struct ResponseFuture<F>(#[pin] future::ResponseFuture<F>);

/// Response future of a [`WebSocketService`] or a [`LongPollService`].
#[pin_project]
pub struct TransportFuture(#[pin] Transport);

#[pin_project(project = TransportProjection)]
enum Transport {
    WebSocket(#[pin] future::WebSocketFuture),
    LongPoll(#[pin] future::LongPollFuture),
}

impl<A: Send + Sync + 'static> Layer<A> {
    pub(super) fn new(
        prefix: &str,
        websocket: WebSocket<ConnectHandler<A>>,
        long_poll: LongPoll<ConnectHandler<A>>,
    ) -> Result<Self, ConfigError> {
        SocketLayer::new(prefix, websocket, long_poll).map(Self)
    }
}

impl<A: Send + Sync + 'static> Service<A> {
    pub(super) fn standalone(
        websocket: WebSocket<ConnectHandler<A>>,
        long_poll: LongPoll<ConnectHandler<A>>,
    ) -> Result<Self, ConfigError> {
        SocketService::standalone(websocket, long_poll).map(Self)
    }
}

impl<A: Send + Sync + 'static, S> tower_layer::Layer<S> for Layer<A> {
    type Service = Service<A, S>;

    fn layer(&self, inner: S) -> Service<A, S> {
        Service(self.0.layer(inner))
    }
}

impl<A, S, B, C> tower_service::Service<Request<B>> for Service<A, S>
where
    A: Send + Sync + 'static,
    S: tower_service::Service<Request<B>, Response = Response<C>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    type Response = Response<Either<Full<Bytes>, C>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ResponseFuture(self.0.call(request))
    }
}

impl<A, B> tower_service::Service<Request<B>> for WebSocketService<A>
where
    A: Send + Sync + 'static,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = TransportFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> TransportFuture {
        TransportFuture(Transport::WebSocket(self.0.call(request)))
    }
}

impl<A, B> tower_service::Service<Request<B>> for LongPollService<A>
where
    A: Send + Sync + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = TransportFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> TransportFuture {
        TransportFuture(Transport::LongPoll(self.0.call(request)))
    }
}

impl<F, C, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<C>, E>>,
{
    type Output = Result<Response<Either<Full<Bytes>, C>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().0.poll(cx)
    }
}

impl Future for TransportFuture {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().0.project() {
            TransportProjection::WebSocket(future) => future.poll(cx),
            TransportProjection::LongPoll(future) => future.poll(cx),
        }
    }
}

impl<A: Send + Sync + 'static> Clone for Layer<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Send + Sync + 'static, S: Clone> Clone for Service<A, S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Send + Sync + 'static> Clone for WebSocketService<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Send + Sync + 'static> Clone for LongPollService<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Send + Sync + 'static> fmt::Debug for Layer<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").finish_non_exhaustive()
    }
}

impl<A: Send + Sync + 'static, S> fmt::Debug for Service<A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl<A: Send + Sync + 'static> fmt::Debug for WebSocketService<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketService").finish_non_exhaustive()
    }
}

impl<A: Send + Sync + 'static> fmt::Debug for LongPollService<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LongPollService").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl fmt::Debug for TransportFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportFuture").finish_non_exhaustive()
    }
}
