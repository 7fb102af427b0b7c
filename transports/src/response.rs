//! The answers that are ours. A problem is an answer, never a service's error.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

/// Every answer of a transport has a body that is already there.
pub(crate) type Answer = Response<Full<Bytes>>;

/// What Plug sends with everything that is not to be resumable by a cache.
pub(crate) const NO_CACHE: HeaderValue =
    HeaderValue::from_static("max-age=0, private, must-revalidate");

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CACHE_CONTROL, NO_CACHE);
    answer.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    answer
}

/// An answer of plain text.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = empty(status);
    *answer.body_mut() = Full::new(body.into());
    answer
}

/// `{"errors":{"detail":…}}`, as Phoenix words what never reached a socket.
pub(crate) fn bad_request() -> Answer {
    let mut answer = text(StatusCode::BAD_REQUEST, &br#"{"errors":{"detail":"Bad Request"}}"#[..]);
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}
