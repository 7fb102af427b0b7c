//! The Tower service: the decision about a visitor, then the page or its connection.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{Either, Full};
use tower_service::Service;

use crate::access::Access;
use crate::{Dashboard, Viewer, files};

/// The endpoint of the page, as a service.
pub(crate) type Socket = tower_channels::Service<Viewer>;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Decides what a visitor may do.
pub(crate) type AuthorizeFn = Arc<dyn Fn(Parts) -> BoxFuture<Access> + Send + Sync>;

/// The body of a response of a [`Dashboard`].
pub type Body = Full<Bytes>;

/// Response future of a [`Dashboard`].
pub struct ResponseFuture(BoxFuture<Result<Response<Body>, Infallible>>);

impl<B> Service<Request<B>> for Dashboard
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let Self { authorize, socket, .. } = self.clone();
        ResponseFuture(Box::pin(answer(authorize, socket, request)))
    }
}

async fn answer<B>(
    authorize: Option<AuthorizeFn>,
    mut socket: Socket,
    request: Request<B>,
) -> Result<Response<Body>, Infallible>
where
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Send,
{
    let (mut parts, body) = request.into_parts();
    // Only the closure decides, not who was in front.
    parts.extensions.remove::<Access>();
    let access = match &authorize {
        Some(authorize) => authorize(parts.clone()).await,
        None => Access::NONE,
    };
    if !access.views() {
        return Ok(files::refuse(access.asks(), authorize.is_some()));
    }
    parts.extensions.insert(access);
    let request = Request::from_parts(parts, body);
    if !is_of_connection(request.uri().path()) {
        return Ok(files::answer(&request));
    }
    let response = socket.call(request).await?;
    Ok(response.map(|body| match body {
        Either::Left(body) => body,
        // Nothing but a transport was asked for.
        Either::Right(_) => Full::default(),
    }))
}

/// Returns whether a path is that of one of the transports.
fn is_of_connection(path: &str) -> bool {
    let path = path.strip_suffix('/').unwrap_or(path);
    path.ends_with("/websocket") || path.ends_with("/longpoll")
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseFuture")
    }
}
