//! The files of a page, which are part of the program.

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::routing::{MethodRouter, get};

/// Serves a static file of a page. The content security policy is the second line of defence
/// against messages that contain scripts; the first is that the page never interprets messages as
/// HTML.
pub fn file_of(content_type: &'static str, text: &'static str) -> MethodRouter {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
        connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    get(async move || ([(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, POLICY)], text))
}
