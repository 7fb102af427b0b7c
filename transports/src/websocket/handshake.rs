//! Whether a request may become a WebSocket (RFC 6455 section 4.2; RFC 8441 on HTTP/2), in Phoenix's
//! order and words.

use std::borrow::Cow;

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

/// A request that may be upgraded, and what its answer needs of it.
#[derive(Clone, Debug)]
pub(super) struct Handshake {
    /// The answer to the key. HTTP/2 has none.
    accept: Option<HeaderValue>,
    token: bool,
}

/// Whether the method is one that can begin a WebSocket: GET, or CONNECT for the protocol
/// `websocket` on HTTP/2 (RFC 8441).
pub(super) fn has_method(parts: &Parts) -> bool {
    match parts.method {
        Method::GET => true,
        #[cfg(feature = "http2")]
        Method::CONNECT => {
            parts.extensions.get::<Protocol>().is_some_and(|name| name.as_str() == "websocket")
        }
        _ => false,
    }
}

impl Handshake {
    /// Looks at the head of a request whose method is right. The problem is for the client, word for
    /// word Phoenix's.
    pub(super) fn check(parts: &Parts) -> Result<Self, String> {
        let headers = &parts.headers;
        let accept = if parts.method == Method::CONNECT {
            None
        } else {
            present(headers, &HOST)?;
            contains(headers, &CONNECTION, "upgrade")?;
            contains(headers, &UPGRADE, "websocket")?;
            let key = present(headers, &SEC_WEBSOCKET_KEY)?;
            Some(accept(key.as_bytes()))
        };
        let versions = values(headers, &SEC_WEBSOCKET_VERSION);
        if versions != ["13"] {
            return Err(format!(
                "'sec-websocket-version' header must equal '13', got {versions:?}"
            ));
        }
        Ok(Self { accept, token: offers_token(headers) })
    }

    /// The answer after which the connection is a WebSocket. No extension is ever agreed on.
    pub(super) fn answer(self) -> Answer {
        let mut answer = Response::new(Full::default());
        let headers = answer.headers_mut();
        headers.insert(CACHE_CONTROL, response::NO_CACHE);
        if self.token {
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

/// The proof that the key was understood (4.2.2). Whatever its length, as Phoenix.
fn accept(key: &[u8]) -> HeaderValue {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    HeaderValue::try_from(STANDARD.encode(digest)).expect("base64 is visible ASCII")
}

/// Whether an auth token is among the subprotocols. A browser that offers some accepts no answer
/// without one of them, so the one that phoenix.js offers beside its token is agreed on.
fn offers_token(headers: &HeaderMap) -> bool {
    values(headers, &SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .any(|value| list(value).any(|protocol| protocol.starts_with(TOKEN_PREFIX)))
}

fn present<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a HeaderValue, String> {
    headers.get(name).ok_or_else(|| format!("'{name}' header is absent"))
}

fn contains(headers: &HeaderMap, name: &HeaderName, token: &str) -> Result<(), String> {
    let values = values(headers, name);
    if values.iter().any(|value| list(value).any(|item| item.eq_ignore_ascii_case(token))) {
        return Ok(());
    }
    Err(format!("'{name}' header must contain '{token}', got {values:?}"))
}

fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<Cow<'a, str>> {
    headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect()
}

fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

/// What RFC 6455 section 1.3 has a server add to a key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How phoenix.js marks the subprotocol that carries its auth token.
const TOKEN_PREFIX: &str = "base64url.bearer.phx.";

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: [(&str, &str); 5] = [
        ("host", "example.com"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];

    /// The usual request with one header replaced by these values.
    fn check(name: &str, values: &[&str]) -> Result<Handshake, String> {
        let mut request = http::Request::builder();
        for (header, value) in USUAL.into_iter().filter(|(header, _)| *header != name) {
            request = request.header(header, value);
        }
        for value in values {
            request = request.header(name, *value);
        }
        Handshake::check(&request.body(()).expect("a request").into_parts().0)
    }

    fn problem(name: &str, values: &[&str]) -> String {
        check(name, values).expect_err("refused")
    }

    #[test]
    fn the_answer_is_what_the_rfc_and_phoenix_say() {
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
    fn a_problem_is_told_in_phoenixs_words() {
        assert_eq!(problem("host", &[]), "'host' header is absent");
        assert_eq!(
            problem("connection", &[]),
            "'connection' header must contain 'upgrade', got []"
        );
        assert_eq!(
            problem("connection", &["keep-alive", "close"]),
            r#"'connection' header must contain 'upgrade', got ["keep-alive", "close"]"#
        );
        assert_eq!(
            problem("upgrade", &["h2c"]),
            r#"'upgrade' header must contain 'websocket', got ["h2c"]"#
        );
        assert_eq!(problem("sec-websocket-key", &[]), "'sec-websocket-key' header is absent");
        assert_eq!(
            problem("sec-websocket-version", &["12"]),
            r#"'sec-websocket-version' header must equal '13', got ["12"]"#
        );
        assert_eq!(
            problem("sec-websocket-version", &["13", "13"]),
            r#"'sec-websocket-version' header must equal '13', got ["13", "13"]"#
        );
    }

    #[test]
    fn tokens_are_found_in_any_list_and_any_case() {
        for values in [&["keep-alive, Upgrade"][..], &["keep-alive", "UPGRADE"], &["a,upgrade ,b"]]
        {
            assert!(check("connection", values).is_ok(), "{values:?}");
        }
        assert!(check("upgrade", &["h2c, WebSocket"]).is_ok());
    }

    #[test]
    #[cfg(feature = "http2")]
    fn a_connect_on_http_2_needs_a_version_and_no_key() {
        let connect = |protocol: &'static str, version: &str| {
            let mut request = http::Request::connect("http://example.com/socket/websocket")
                .version(http::Version::HTTP_2)
                .header("sec-websocket-version", version)
                .body(())
                .expect("a request");
            request.extensions_mut().insert(Protocol::from_static(protocol));
            request.into_parts().0
        };
        assert!(!has_method(&connect("connect-udp", "13")));
        assert!(Handshake::check(&connect("websocket", "12")).is_err());
        let parts = connect("websocket", "13");
        assert!(has_method(&parts));
        let answer = Handshake::check(&parts).expect("accepted").answer();
        assert_eq!((answer.status(), answer.headers().len()), (StatusCode::OK, 1));
    }

    #[test]
    fn an_empty_host_and_a_key_of_any_length_will_do() {
        assert!(check("host", &[""]).is_ok());
        for key in ["", "abc", "a much longer key than sixteen bytes can ever be"] {
            assert!(check("sec-websocket-key", &[key]).is_ok(), "{key}");
        }
    }

    #[test]
    fn only_an_auth_token_among_the_subprotocols_is_answered() {
        let answered = |values: &[&str]| {
            let answer = check("sec-websocket-protocol", values).expect("accepted").answer();
            answer.headers().get(SEC_WEBSOCKET_PROTOCOL).cloned()
        };
        assert_eq!(answered(&["chat", "phoenix"]), None);
        let phoenix = Some(HeaderValue::from_static("phoenix"));
        assert_eq!(answered(&["phoenix, base64url.bearer.phx.dG9r"]), phoenix);
        assert_eq!(answered(&["phoenix", "base64url.bearer.phx.dG9r"]), phoenix);
    }
}
