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

use crate::error::ConfigError;
use crate::longpoll::{self, LongPoll};
use crate::mount::{Mount, Route};
use crate::response::{self, Answer};
use crate::session::Handler;
use crate::websocket::{self, WebSocket};

/// Service that answers the requests of both transports and passes all others to `S`. Made by
/// [`SocketLayer`](crate::SocketLayer), or [standalone](Self::standalone).
pub struct SocketService<H: Handler, S = NotFound> {
    mount: Arc<Mount<H>>,
    inner: S,
}

impl<H: Handler> SocketService<H> {
    /// Creates a service that knows its transports by the end of a request's path, whatever stands before:
    /// by default `…/websocket` and `…/longpoll`, with or without one trailing slash. So it may be
    /// mounted anywhere, below a prefix that the router removes or leaves.
    ///
    /// Other paths get HTTP 404. A client of the Phoenix protocol that asks for one is misdirected: it is
    /// counted, and the first is a warning in the log.
    ///
    /// # Errors
    /// If both transports are off, the path of one ends in that of the other, or their configurations or
    /// limits are invalid.
    pub fn standalone(websocket: WebSocket<H>, longpoll: LongPoll<H>) -> Result<Self, ConfigError> {
        Ok(Self::new(Arc::new(Mount::new(None, websocket, longpoll)?), NotFound))
    }
}

impl<H: Handler, S> SocketService<H, S> {
    pub(crate) fn new(mount: Arc<Mount<H>>, inner: S) -> Self {
        Self { mount, inner }
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
        ResponseFuture(match self.mount.route(request.uri()) {
            Route::WebSocket(websocket) => Answering::WebSocket(websocket.clone().call(request)),
            Route::LongPoll(longpoll) => Answering::LongPoll(longpoll.clone().call(request)),
            Route::Misdirected => {
                Answering::Misdirected(future::ready(Ok(self.mount.misdirected(request.uri()))))
            }
            Route::Inner => Answering::Inner(self.inner.call(request)),
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
    Misdirected(#[pin] future::Ready<Result<Answer, Infallible>>),
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
            AnsweringProjection::Misdirected(future) => ready!(future.poll(cx)),
            AnsweringProjection::Inner(future) => {
                return future.poll(cx).map_ok(|response| response.map(Either::Right));
            }
        };
        Poll::Ready(Ok(answer.map(Either::Left)))
    }
}

/// Service that answers every request with 404: the inner service of a
/// [standalone](SocketService::standalone) one.
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
        Self { mount: Arc::clone(&self.mount), inner: self.inner.clone() }
    }
}

impl<H: Handler, S: fmt::Debug> fmt::Debug for SocketService<H, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketService")
            .field("mount", &self.mount)
            .field("inner", &self.inner)
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
    use crate::rejected::Rejected;
    use crate::session::Session;
    use crate::websocket::WebSocketConfig;

    struct Refusing;

    impl Handler for Refusing {
        type Session = Self;

        async fn connect(&self, _: ConnectInfo, _: outbox::Sender) -> Result<Self, Rejected> {
            Err(Rejected::reason("always"))
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
    async fn a_client_whose_url_contains_the_path_of_a_transport_is_told_so() {
        for path in ["/socket/websocket/websocket", "/socket/websocket/longpoll/"] {
            let answer = get(layer("/socket"), path).await;
            assert!(answer.starts_with("404 ") && answer.contains("appends the path"), "{answer}");
        }
    }

    async fn get_standalone(path: &str) -> (StatusCode, String) {
        let acceptor = Acceptor::new(Refusing, CheckOrigin::default(), Limits::new());
        let websocket = WebSocket::new(acceptor.clone(), WebSocketConfig::new());
        let longpoll = LongPoll::new(acceptor, LongPollConfig::new());
        let service = SocketService::standalone(websocket, longpoll).unwrap();
        let request = Request::get(path).body(Empty::<Bytes>::new()).unwrap();
        let answer = service.oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_standalone_service_knows_a_transport_by_the_end_of_the_path() {
        for prefix in ["", "/socket", "/api/v1/socket", "/socket/websocket", "/%20"] {
            for slash in ["", "/"] {
                let websocket = get_standalone(&format!("{prefix}/websocket{slash}")).await;
                assert_eq!(websocket, (StatusCode::FORBIDDEN, String::new()), "{prefix}");
                let longpoll = get_standalone(&format!("{prefix}/longpoll{slash}")).await;
                assert_eq!(longpoll, (StatusCode::OK, r#"{"status":403}"#.into()), "{prefix}");
            }
        }
    }

    #[tokio::test]
    async fn a_standalone_service_answers_other_requests_with_404() {
        for path in ["/", "/socket", "/socket/websocket//", "/mywebsocket", "/websocket/more"] {
            assert_eq!(
                get_standalone(path).await,
                (StatusCode::NOT_FOUND, String::new()),
                "{path}"
            );
        }
        let (status, body) = get_standalone("/?vsn=2.0.0").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body.starts_with("no transport at this path"), "{body}");
    }
}
