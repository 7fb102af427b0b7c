//! The files of the page.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page, which names its files by their query: wherever it is mounted, and whether its URL ends in a slash or not, that
/// is a relative URL. Scripts name one another by their paths.
const PAGE: (&str, &str) = (HTML, include_str!("page/index.html"));

macro_rules! files {
    ($($name:literal: $type:expr),+ $(,)?) => {
        const FILES: &[(&str, &str, &str)] =
            &[$(($name, $type, include_str!(concat!("page/", $name)))),+];
    };
}

files! {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": SCRIPT,
    "overview.js": SCRIPT,
    "lists.js": SCRIPT,
    "topic.js": SCRIPT,
    "plot.js": SCRIPT,
    "dom.js": SCRIPT,
    "client/socket.js": SCRIPT,
    "client/channel.js": SCRIPT,
    "client/transports.js": SCRIPT,
    "client/serializer.js": SCRIPT,
    "client/faults.js": SCRIPT,
    "icon.svg": "image/svg+xml",
}

/// The second line of defence; the first is that the page makes text of whatever it shows.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// Answers a request for the page or one of its files.
pub(crate) fn answer<B>(request: &Request<B>) -> Response<Full<Bytes>> {
    let is_head = request.method() == Method::HEAD;
    if request.method() != Method::GET && !is_head {
        return text(StatusCode::METHOD_NOT_ALLOWED, "the dashboard is read with GET\n");
    }
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let is_path_of = |name| path.strip_suffix(name).is_some_and(|before| before.ends_with('/'));
    let file = FILES.iter().find(|(name, ..)| *name == query || is_path_of(name));
    let (content_type, content) = file.map_or(PAGE, |(_, kind, content)| (*kind, *content));
    let mut response = respond(StatusCode::OK, content_type, content);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if is_head {
        *response.body_mut() = Full::default();
    }
    response
}

/// Refuses a visitor.
pub(crate) fn refuse(asks: bool, is_authorized: bool) -> Response<Full<Bytes>> {
    if asks {
        let mut response = text(StatusCode::UNAUTHORIZED, "the dashboard asks for its password\n");
        let challenge = HeaderValue::from_static("Basic realm=\"dashboard\", charset=\"UTF-8\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        return response;
    }
    let why = if is_authorized {
        "the dashboard is not allowed to you\n"
    } else {
        "the dashboard is not allowed to anybody: `Dashboard::authorize` decides who may see it\n"
    };
    text(StatusCode::FORBIDDEN, why)
}

fn text(status: StatusCode, content: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", content)
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    content: &'static str,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(content.as_bytes())));
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
