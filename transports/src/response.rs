//! Responses shared by the transports. A failed request is a response, never a service error.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPECT, RETRY_AFTER, VARY};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode, Version};
use http_body_util::Full;

use crate::error::ConnectError;
use crate::limited;
use crate::telemetry::refuse;

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

/// Creates the response to a WebSocket client that does not get a connection.
pub(crate) fn refused(error: &ConnectError) -> Answer {
    retrying(empty(error.status()), error.retry_after())
}

/// Adds the header that says when to try again (RFC 9110 section 10.2.3).
pub(crate) fn retrying(mut answer: Answer, after: Option<Duration>) -> Answer {
    if let Some(after) = after {
        answer
            .headers_mut()
            .insert(RETRY_AFTER, (after.as_secs() + u64::from(after.subsec_nanos() > 0)).into());
    }
    answer
}

/// Creates a plain text response.
pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = empty(status);
    *answer.body_mut() = Full::new(body.into());
    answer
}

/// Creates the response to a query that cannot be read, which is counted: `{"errors":{"detail":…}}`, as
/// Phoenix renders an error raised before the socket was reached.
pub(crate) fn bad_query() -> Answer {
    refuse("query");
    limited!(INFO, "request refused: its query cannot be read, or is too long");
    let mut answer = text(StatusCode::BAD_REQUEST, &br#"{"errors":{"detail":"Bad Request"}}"#[..]);
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}

/// Returns whether the client of an HTTP/1.1 request waits to be asked for the body. If the request is
/// answered without reading it, whether the body will follow is open, and so where the next request
/// begins: the answer has to [close](closing) the connection.
pub(crate) fn expects_continue(parts: &Parts) -> bool {
    parts.version < Version::HTTP_2 && parts.headers.contains_key(EXPECT)
}

/// Adds the header with which HTTP/1.1 closes the connection after this response.
pub(crate) fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    answer
}
