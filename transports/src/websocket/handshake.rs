//! The opening handshake (RFC 6455 section 4.2; RFC 8441 on HTTP/2). Checks come in Phoenix's order
//! and fail with Phoenix's messages.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
#[cfg(feature = "http2")]
use hyper::ext::Protocol;
use sha1::{Digest, Sha1};

use crate::response::{self, Answer};

/// A valid upgrade request: what its response depends on.
#[derive(Clone, Debug)]
pub(super) struct Handshake {
    /// The value of `Sec-WebSocket-Accept`, which HTTP/2 does not use.
    accept: Option<HeaderValue>,
    /// Whether the client sent an auth token as a subprotocol.
    has_token: bool,
}

/// Returns whether the method can open a WebSocket: GET, or on HTTP/2 CONNECT for the protocol
/// `websocket` (RFC 8441).
pub(super) fn is_method_allowed(parts: &Parts) -> bool {
    match parts.method {
        Method::GET => true,
        #[cfg(feature = "http2")]
        Method::CONNECT => {
            let protocol = parts.extensions.get::<Protocol>();
            protocol.is_some_and(|name| name.as_str().eq_ignore_ascii_case("websocket"))
        }
        _ => false,
    }
}

/// A header that makes no handshake. It is displayed as the response body, word for word that of Phoenix.
#[derive(Debug)]
pub(super) struct BadHeader {
    /// What the header must contain, without what the client has sent.
    pub(super) requirement: String,
    got: Option<Vec<String>>,
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.requirement)?;
        self.got.as_ref().map_or(Ok(()), |got| write!(f, ", got {got:?}"))
    }
}

impl Handshake {
    /// Checks the headers of a request whose method is allowed.
    pub(super) fn check(parts: &Parts) -> Result<Self, BadHeader> {
        let headers = &parts.headers;
        let accept = if parts.method == Method::CONNECT {
            None
        } else {
            require(headers, &HOST)?;
            require_token(headers, &CONNECTION, "upgrade")?;
            require_token(headers, &UPGRADE, "websocket")?;
            let key = require(headers, &SEC_WEBSOCKET_KEY)?;
            Some(accept(key.as_bytes()))
        };
        let versions = values(headers, &SEC_WEBSOCKET_VERSION);
        if versions != ["13"] {
            return Err(bad_value(
                "'sec-websocket-version' header must equal '13'".into(),
                versions,
            ));
        }
        Ok(Self { accept, has_token: offers_token(headers) })
    }

    /// Returns the response that completes the handshake. Extensions are never negotiated.
    pub(super) fn answer(self) -> Answer {
        let mut answer = Response::new(Full::default());
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, response::NO_CACHE);
        if self.has_token {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("phoenix"));
        }
        if let Some(accept) = self.accept {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        answer
    }
}

/// Computes `Sec-WebSocket-Accept` from the key (4.2.2). Keys of any length pass, as in Phoenix.
fn accept(key: &[u8]) -> HeaderValue {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    HeaderValue::try_from(STANDARD.encode(digest)).expect("base64 is visible ASCII")
}

/// Returns whether an auth token is among the subprotocols. A browser that offers subprotocols fails
/// the connection unless the response selects one, so `phoenix`, which phoenix.js offers beside its
/// token, is selected.
fn offers_token(headers: &HeaderMap) -> bool {
    values(headers, &SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .any(|value| split_list(value).any(|protocol| protocol.starts_with(TOKEN_PREFIX)))
}

fn require<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a HeaderValue, BadHeader> {
    let requirement = || format!("'{name}' header is absent");
    headers.get(name).ok_or_else(|| BadHeader { requirement: requirement(), got: None })
}

fn require_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> Result<(), BadHeader> {
    let values = values(headers, name);
    if values.iter().any(|value| split_list(value).any(|item| item.eq_ignore_ascii_case(token))) {
        return Ok(());
    }
    Err(bad_value(format!("'{name}' header must contain '{token}'"), values))
}

fn bad_value(requirement: String, values: Vec<Cow<'_, str>>) -> BadHeader {
    BadHeader { requirement, got: Some(values.into_iter().map(Cow::into_owned).collect()) }
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<Cow<'a, str>> {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect()
}

fn split_list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

/// The GUID that a server appends to the key (RFC 6455 section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The prefix of the subprotocol in which phoenix.js sends its auth token.
const TOKEN_PREFIX: &str = "base64url.bearer.phx.";

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [(&str, &str); 5] = [
        ("host", "example.com"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];

    /// Checks a valid request in which one header is replaced by these values.
    fn check(name: &str, values: &[&str]) -> Result<Handshake, BadHeader> {
        let mut request = http::Request::builder();
        for (header, value) in HEADERS.into_iter().filter(|(header, _)| *header != name) {
            request = request.header(header, value);
        }
        for value in values {
            request = request.header(name, *value);
        }
        Handshake::check(&request.body(()).expect("a request").into_parts().0)
    }

    fn error(name: &str, values: &[&str]) -> String {
        check(name, values).expect_err("refused").to_string()
    }

    #[test]
    fn the_response_has_the_headers_of_the_rfc_and_of_phoenix() {
        let answer = check("x-none", &[]).expect("accepted").answer();
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        let mut headers: Vec<_> = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("text")))
            .collect();
        headers.sort_unstable();
        assert_eq!(
            headers,
            [
                ("cache-control", "max-age=0, private, must-revalidate"),
                ("connection", "Upgrade"),
                ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
                ("upgrade", "websocket"),
            ]
        );
    }

    #[test]
    fn errors_have_the_messages_of_phoenix() {
        assert_eq!(error("host", &[]), "'host' header is absent");
        assert_eq!(error("connection", &[]), "'connection' header must contain 'upgrade', got []");
        assert_eq!(
            error("connection", &["keep-alive", "close"]),
            r#"'connection' header must contain 'upgrade', got ["keep-alive", "close"]"#
        );
        assert_eq!(
            error("upgrade", &["h2c"]),
            r#"'upgrade' header must contain 'websocket', got ["h2c"]"#
        );
        assert_eq!(error("sec-websocket-key", &[]), "'sec-websocket-key' header is absent");
        assert_eq!(
            error("sec-websocket-version", &["12"]),
            r#"'sec-websocket-version' header must equal '13', got ["12"]"#
        );
        assert_eq!(
            error("sec-websocket-version", &["13", "13"]),
            r#"'sec-websocket-version' header must equal '13', got ["13", "13"]"#
        );
    }

    #[test]
    fn header_tokens_are_found_in_any_list_and_any_case() {
        for values in [&["keep-alive, Upgrade"][..], &["keep-alive", "UPGRADE"], &["a,upgrade ,b"]]
        {
            assert!(check("connection", values).is_ok(), "{values:?}");
        }
        assert!(check("upgrade", &["h2c, WebSocket"]).is_ok());
    }

    #[test]
    #[cfg(feature = "http2")]
    fn connect_on_http_2_needs_a_version_but_no_key() {
        let connect = |protocol: &'static str, version: &str| {
            let mut request = http::Request::connect("http://example.com/socket/websocket")
                .version(http::Version::HTTP_2)
                .header("sec-websocket-version", version)
                .body(())
                .expect("a request");
            request.extensions_mut().insert(Protocol::from_static(protocol));
            request.into_parts().0
        };
        assert!(!is_method_allowed(&connect("connect-udp", "13")));
        assert!(Handshake::check(&connect("websocket", "12")).is_err());
        assert!(is_method_allowed(&connect("WebSocket", "13")));
        let parts = connect("websocket", "13");
        assert!(is_method_allowed(&parts));
        let answer = Handshake::check(&parts).expect("accepted").answer();
        assert_eq!((answer.status(), answer.headers().len()), (StatusCode::OK, 1));
    }

    #[test]
    fn an_empty_host_and_a_key_of_any_length_are_accepted() {
        assert!(check("host", &[""]).is_ok());
        for key in ["", "abc", "a much longer key than sixteen bytes can ever be"] {
            assert!(check("sec-websocket-key", &[key]).is_ok(), "{key}");
        }
    }

    #[test]
    fn a_subprotocol_is_selected_only_beside_an_auth_token() {
        let selected = |values: &[&str]| {
            let answer = check("sec-websocket-protocol", values).expect("accepted").answer();
            answer.headers().get(SEC_WEBSOCKET_PROTOCOL).cloned()
        };
        assert_eq!(selected(&["chat", "phoenix"]), None);
        let phoenix = Some(HeaderValue::from_static("phoenix"));
        assert_eq!(selected(&["phoenix, base64url.bearer.phx.dG9r"]), phoenix);
        assert_eq!(selected(&["phoenix", "base64url.bearer.phx.dG9r"]), phoenix);
    }
}
