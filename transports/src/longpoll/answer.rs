//! Responses to a long-poll client: HTTP 200 with a status in the body, unless noted otherwise.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, CACHE_CONTROL, CONTENT_TYPE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::Full;

use super::token::Token;
use crate::error::ConnectError;
use crate::frame::Message;
use crate::response::{self, Answer};

/// Responds with a status alone, such as `{"status":403}`.
pub(super) fn status(status: StatusCode) -> Answer {
    json(match status {
        StatusCode::OK => Bytes::from_static(br#"{"status":200}"#),
        status => [r#"{"status":"#, status.as_str(), "}"].concat().into(),
    })
}

/// Responds that the request is too large, with the HTTP status as well, so that proxies and logs see
/// it.
pub(super) fn too_large() -> Answer {
    let mut answer = status(StatusCode::PAYLOAD_TOO_LARGE);
    *answer.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    answer
}

/// Responds to a client that does not get a connection, or whose body finds no room.
///
/// The status in the body is one that phoenix.js knows: 403 for what is the client's fault, or 500, after
/// which it tries again. That the server is unavailable is the HTTP status as well, so that proxies and
/// logs see it.
pub(super) fn refused(error: &ConnectError) -> Answer {
    let is_unavailable = error.status() == StatusCode::SERVICE_UNAVAILABLE;
    let is_permanent =
        error.status().is_client_error() && error.status() != StatusCode::TOO_MANY_REQUESTS;
    let known =
        if is_permanent { StatusCode::FORBIDDEN } else { StatusCode::INTERNAL_SERVER_ERROR };
    let mut answer = status(known);
    if is_unavailable {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response::retrying(answer, error.retry_after())
}

/// Renders the response to a poll.
pub(super) fn render(status: StatusCode, messages: &[Message], token: Token) -> Vec<u8> {
    // Some room for escapes, and for what surrounds the messages.
    let size = |message: &Message| message.size() + message.size() / 4 + 3;
    let mut body = Vec::with_capacity(messages.iter().map(size).sum::<usize>() + 128);
    body.extend_from_slice(br#"{"messages":["#);
    for (index, message) in messages.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write_string(&mut body, message);
    }
    body.extend_from_slice(br#"],"status":"#);
    body.extend_from_slice(status.as_str().as_bytes());
    body.extend_from_slice(br#","token":""#);
    token.write(&mut body);
    body.extend_from_slice(br#""}"#);
    body
}

/// Responds to a poll without messages.
pub(super) fn empty(status: StatusCode, token: Token) -> Answer {
    json(render(status, &[], token).into())
}

/// Responds to the CORS preflight of a page from another site, whose origin has been checked. With
/// `private_network` also to that of Private Network Access, whose headers are those of the draft.
pub(super) fn preflight(request: &HeaderMap, private_network: bool) -> Answer {
    let requested = request.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let requested: Vec<_> = requested.map(HeaderValue::as_bytes).collect();
    let allowed = HeaderValue::from_bytes(&requested.join(&b", "[..]));
    let mut answer = with_cors(response::empty(StatusCode::OK));
    let headers = answer.headers_mut();
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        allowed.unwrap_or_else(|_| HeaderValue::from_static("")),
    );
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("get, post, options"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    if private_network && request.get(REQUEST_PRIVATE_NETWORK).is_some_and(|it| it == "true") {
        headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
    }
    answer
}

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// Responds to an unsupported method.
pub(super) fn bad_method() -> Answer {
    with_cors(response::empty(StatusCode::BAD_REQUEST))
}

/// Responds with a body of JSON.
pub(super) fn json(body: Bytes) -> Answer {
    let mut answer = Answer::new(Full::new(body));
    // Cloning the map is much cheaper than inserting the headers one by one.
    answer.headers_mut().clone_from(&JSON);
    answer
}

/// The headers of every JSON response.
static JSON: LazyLock<HeaderMap> = LazyLock::new(|| {
    let headers = [
        (CONTENT_TYPE, "application/json; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (VARY, "accept-encoding"),
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    headers.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect()
});

/// Removes what lets other sites read the response, where somebody else decides that.
pub(super) fn without_cors(mut answer: Answer) -> Answer {
    answer.headers_mut().remove(ACCESS_CONTROL_ALLOW_ORIGIN);
    answer
}

/// Any site may read a response: the origin check decides who may send a request.
fn with_cors(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer
}

/// Writes a message as a JSON string, a binary one in base64.
fn write_string(body: &mut Vec<u8>, message: &Message) {
    let bytes = message.to_bytes();
    if message.is_binary() {
        body.push(b'"');
        body.extend_from_slice(STANDARD.encode(bytes).as_bytes());
        body.push(b'"');
    } else {
        // Writing into memory cannot fail.
        let _ = serde_json::to_writer(body, &String::from_utf8_lossy(&bytes));
    }
}

#[cfg(test)]
mod tests {
    use http::header::RETRY_AFTER;
    use http_body_util::BodyExt;

    use super::*;
    use crate::rejected::Rejected;

    fn body(answer: Answer) -> String {
        let body = futures_body(answer);
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn futures_body(answer: Answer) -> Bytes {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(answer.into_body().collect()).unwrap().to_bytes()
    }

    const TOKEN: Token = Token { id: *b"0123456789abcdefghijkl", node: None, cursor: 7 };

    #[test]
    fn the_response_to_a_poll_has_messages_status_and_token_in_this_order() {
        let messages = [Message::text(r#"["1",null,"é\n",{}]"#), Message::binary(vec![0, 255])];
        assert_eq!(
            body(json(render(StatusCode::OK, &messages, TOKEN).into())),
            r#"{"messages":["[\"1\",null,\"é\\n\",{}]","AP8="],"status":200,"token":"phx-lp.0123456789abcdefghijkl7"}"#
        );
        assert_eq!(
            body(empty(StatusCode::NO_CONTENT, TOKEN)),
            r#"{"messages":[],"status":204,"token":"phx-lp.0123456789abcdefghijkl7"}"#
        );
    }

    #[test]
    fn a_text_survives_the_json_string() {
        let text: String = ('\0'..='\u{ff}').chain("\u{2028}😀".chars()).collect();
        let mut string = Vec::new();
        write_string(&mut string, &Message::text(text.clone()));
        assert_eq!(serde_json::from_slice::<String>(&string).unwrap(), text);
        let mut numbered = Message::with_placeholder("[null,\"a\"]", 1);
        numbered.set_number(7);
        let mut string = Vec::new();
        write_string(&mut string, &numbered);
        assert_eq!(serde_json::from_slice::<String>(&string).unwrap(), r#"["s:7","a"]"#);
    }

    #[test]
    fn a_response_is_json_for_any_site_and_is_not_cached() {
        let answer = status(StatusCode::FORBIDDEN);
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json; charset=utf-8");
        assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(body(answer), r#"{"status":403}"#);
    }

    #[test]
    fn a_refusal_has_a_status_that_phoenix_js_knows() {
        for (status, http, known) in [
            (400, 200, 403),
            (401, 200, 403),
            (403, 200, 403),
            (404, 200, 403),
            (429, 200, 500),
            (500, 200, 500),
            (502, 200, 500),
            (503, 503, 500),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = refused(&Rejected::status(status).into());
            assert_eq!(answer.status(), http, "{status}");
            assert_eq!(body(answer), format!(r#"{{"status":{known}}}"#), "{status}");
        }
        let after = |error: &ConnectError| refused(error).headers().get(RETRY_AFTER).cloned();
        assert_eq!(after(&ConnectError::Busy), Some(HeaderValue::from_static("5")));
        assert_eq!(after(&ConnectError::TimedOut), Some(HeaderValue::from_static("5")));
        assert_eq!(after(&ConnectError::Panicked), None);
    }

    #[test]
    fn a_preflight_allows_the_headers_it_asks_for() {
        let mut request = HeaderMap::new();
        request.append(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-a,x-b"));
        request.append(ACCESS_CONTROL_REQUEST_HEADERS, HeaderValue::from_static("x-c"));
        let allowed =
            |request| preflight(request, false).headers()[ACCESS_CONTROL_ALLOW_HEADERS].clone();
        assert_eq!(allowed(&request), "x-a,x-b, x-c");
        assert_eq!(allowed(&HeaderMap::new()), "");
    }
}
