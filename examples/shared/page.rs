//! The files of a page, which are part of the program.

use axum::Router;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::routing::get;

/// What the pages of the examples share. The client of the protocol is that of the dashboard.
const SHARED: &[(&str, &str)] = &[
    ("/base.css", include_str!("base.css")),
    ("/network.js", include_str!("network.js")),
    ("/presence.js", include_str!("presence.js")),
    ("/client/socket.js", include_str!("../../dashboard/src/page/client/socket.js")),
    ("/client/channel.js", include_str!("../../dashboard/src/page/client/channel.js")),
    ("/client/transports.js", include_str!("../../dashboard/src/page/client/transports.js")),
    ("/client/serializer.js", include_str!("../../dashboard/src/page/client/serializer.js")),
    ("/client/faults.js", include_str!("../../dashboard/src/page/client/faults.js")),
];

/// Serves a page at `/`, and its files, by path. The content security policy is the second line of
/// defence against messages that contain scripts; the first is that the page never interprets
/// messages as HTML.
pub fn page(html: &'static str, files: &[(&'static str, &'static str)]) -> Router {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
        connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    [("/", html)].iter().chain(SHARED).chain(files).fold(Router::new(), |router, &(path, text)| {
        let content_type = match path.rsplit_once('.') {
            Some((_, "css")) => "text/css",
            Some((_, "js")) => "text/javascript",
            _ => "text/html; charset=utf-8",
        };
        let headers = [(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, POLICY)];
        router.route(path, get(async move || (headers, text)))
    })
}
