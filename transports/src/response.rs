//! Responses shared by the transports. A failed request is a response, never a service error.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// A response whose body is complete, as every response of a transport is.
pub(crate) type Answer = Response<Full<Bytes>>;

/// The `cache-control` that Plug sends by default.
pub(crate) const NO_CACHE: HeaderValue =
    HeaderValue::from_static("max-age=0, private, must-revalidate");

/// Creates a response without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, NO_CACHE);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    answer
}

/// Creates a plain text response.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = empty(status);
    *answer.body_mut() = Full::new(body.into());
    answer
}

/// Creates the response to a malformed request: `{"errors":{"detail":…}}`, as Phoenix renders an
/// error raised before the socket was reached.
pub(crate) fn bad_request() -> Answer {
    let mut answer = text(StatusCode::BAD_REQUEST, &br#"{"errors":{"detail":"Bad Request"}}"#[..]);
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}
