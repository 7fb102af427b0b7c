//! [`SocketService`]: both transports, and an inner service for all other requests.

use std::convert::Infallible;
use std::fmt;
use std::future::{self, Future};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{Either, Full};
use pin_project::pin_project;
use tower_service::Service;

use crate::longpoll::{self, LongPoll};
use crate::response::{self, Answer};
use crate::session::Handler;
use crate::websocket::{self, WebSocket};

/// Service that answers the requests of both transports and passes all others to `S`. Made by
/// [`SocketLayer`](crate::SocketLayer).
pub struct SocketService<H: Handler, S = NotFound> {
    transports: Arc<Transports<H>>,
    inner: S,
}

/// The path and the service of each transport; `None` if it is off.
pub(crate) struct Transports<H: Handler> {
    pub(crate) websocket: Option<(String, WebSocket<H>)>,
    pub(crate) longpoll: Option<(String, LongPoll<H>)>,
}

impl<H: Handler, S> SocketService<H, S> {
    pub(crate) fn new(transports: Arc<Transports<H>>, inner: S) -> Self {
        Self { transports, inner }
    }
}

impl<H, S, B, C> Service<Request<B>> for SocketService<H, S>
where
    H: Handler,
    S: Service<Request<B>, Response = Response<C>>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    type Response = Response<Either<Full<Bytes>, C>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let path = path.strip_suffix('/').unwrap_or(path);
        ResponseFuture(match &*self.transports {
            Transports { websocket: Some((mounted, websocket)), .. } if mounted == path => {
                Answering::WebSocket(websocket.clone().call(request))
            }
            Transports { longpoll: Some((mounted, longpoll)), .. } if mounted == path => {
                Answering::LongPoll(longpoll.clone().call(request))
            }
            _ => Answering::Inner(self.inner.call(request)),
        })
    }
}

/// Response future of [`SocketService`](crate::SocketService).
#[pin_project]
pub struct ResponseFuture<F>(#[pin] Answering<F>);

#[pin_project(project = AnsweringProjection)]
enum Answering<F> {
    WebSocket(#[pin] websocket::ResponseFuture),
    LongPoll(#[pin] longpoll::ResponseFuture),
    Inner(#[pin] F),
}

impl<F, C, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<C>, E>>,
{
    type Output = Result<Response<Either<Full<Bytes>, C>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(answer) = match self.project().0.project() {
            AnsweringProjection::WebSocket(future) => ready!(future.poll(cx)),
            AnsweringProjection::LongPoll(future) => ready!(future.poll(cx)),
            AnsweringProjection::Inner(future) => {
                return future.poll(cx).map_ok(|response| response.map(Either::Right));
            }
        };
        Poll::Ready(Ok(answer.map(Either::Left)))
    }
}

/// Service that answers every request with 404: the inner service of a standalone
/// [`SocketService`](crate::SocketService).
#[derive(Clone, Copy, Debug, Default)]
pub struct NotFound;

impl<B> Service<Request<B>> for NotFound {
    type Response = Answer;
    type Error = Infallible;
    type Future = future::Ready<Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        future::ready(Ok(response::empty(StatusCode::NOT_FOUND)))
    }
}

impl<H: Handler, S: Clone> Clone for SocketService<H, S> {
    fn clone(&self) -> Self {
        Self { transports: Arc::clone(&self.transports), inner: self.inner.clone() }
    }
}

impl<H: Handler, S: fmt::Debug> fmt::Debug for SocketService<H, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketService")
            .field("transports", &self.transports)
            .field("inner", &self.inner)
            .finish()
    }
}

impl<H: Handler> fmt::Debug for Transports<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transports")
            .field("websocket", &self.websocket)
            .field("longpoll", &self.longpoll)
            .finish()
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use http_body_util::{BodyExt, Empty};
    use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

    use super::*;
    use crate::acceptor::Acceptor;
    use crate::connect_info::ConnectInfo;
    use crate::frame::{Close, Inbound};
    use crate::layer::SocketLayer;
    use crate::limits::Limits;
    use crate::longpoll::LongPollConfig;
    use crate::origin::CheckOrigin;
    use crate::outbox;
    use crate::session::{Rejected, Session};
    use crate::websocket::WebSocketConfig;

    struct Refusing;

    impl Handler for Refusing {
        type Session = Self;

        async fn connect(&self, _: ConnectInfo, _: outbox::Sender) -> Result<Self, Rejected> {
            Err(Rejected::default())
        }
    }

    impl Session for Refusing {
        fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
            Ok(())
        }
    }

    fn layer(prefix: &str) -> SocketLayer<Refusing> {
        with(prefix, WebSocketConfig::new(), LongPollConfig::new())
    }

    fn with(
        prefix: &str,
        websocket: WebSocketConfig,
        longpoll: LongPollConfig,
    ) -> SocketLayer<Refusing> {
        let acceptor = Acceptor::new(Refusing, CheckOrigin::default(), Limits::new());
        let websocket = WebSocket::new(acceptor.clone(), websocket);
        SocketLayer::new(prefix, websocket, LongPoll::new(acceptor, longpoll)).unwrap()
    }

    /// Sends a request for `path`. The inner service answers with the path it received.
    async fn get(layer: SocketLayer<Refusing>, path: &str) -> String {
        let inner = service_fn(async |request: Request<Empty<Bytes>>| {
            let body = Full::<Bytes>::from(format!("inner {}", request.uri().path()));
            Ok::<_, Infallible>(Response::new(body))
        });
        let service = ServiceBuilder::new().layer(layer).service(inner);
        let request = Request::builder().method(Method::GET).uri(path).body(Empty::new()).unwrap();
        let (head, body) = service.oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        format!("{} {}", head.status.as_u16(), String::from_utf8_lossy(&body))
    }

    const WEBSOCKET: &str = "403 ";
    const LONGPOLL: &str = r#"200 {"status":403}"#;

    #[tokio::test]
    async fn each_transport_answers_at_its_path() {
        assert_eq!(get(layer("/socket"), "/socket/websocket?vsn=2.0.0").await, WEBSOCKET);
        assert_eq!(get(layer("/socket"), "/socket/longpoll?vsn=2.0.0").await, LONGPOLL);
        assert_eq!(get(layer(""), "/longpoll").await, LONGPOLL);
    }

    #[tokio::test]
    async fn one_trailing_slash_is_allowed() {
        assert_eq!(get(layer("/socket"), "/socket/websocket/").await, WEBSOCKET);
        assert_eq!(get(layer("/socket"), "/socket/longpoll/").await, LONGPOLL);
    }

    #[tokio::test]
    async fn other_requests_go_to_the_inner_service() {
        for path in [
            "/",
            "/socket",
            "/socket/",
            "/websocket",
            "/longpoll",
            "/socket/websocket//",
            "/socket/longpoll/more",
            "/socket/longpollmore",
            "/Socket/longpoll",
        ] {
            assert_eq!(get(layer("/socket"), path).await, format!("200 inner {path}"));
        }
    }

    #[tokio::test]
    async fn the_path_of_a_disabled_transport_belongs_to_the_inner_service() {
        let layer = || with("", WebSocketConfig::off(), LongPollConfig::new().path("/lp"));
        assert_eq!(get(layer(), "/websocket").await, "200 inner /websocket");
        assert_eq!(get(layer(), "/lp").await, LONGPOLL);
    }

    #[tokio::test]
    async fn the_error_of_the_inner_service_is_passed_through() {
        let inner = service_fn(async |_: Request<Empty<Bytes>>| {
            Err::<Response<Empty<Bytes>>, _>("inner error")
        });
        let error = layer("").layer(inner).oneshot(Request::new(Empty::new())).await.unwrap_err();
        assert_eq!(error, "inner error");
    }

    #[tokio::test]
    async fn a_standalone_service_answers_other_requests_with_404() {
        let service = layer("/socket").layer(NotFound);
        let answer = service.oneshot(Request::new(Empty::<Bytes>::new())).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    }
}
