//! What is known of a client when it connects.

use std::fmt;
use std::net::SocketAddr;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Uri};
use hyper::upgrade::OnUpgrade;
use serde_json::{Map, Value};

use crate::params::{self, BadQuery};

/// The transport of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// A WebSocket.
    WebSocket,
    /// Long polling.
    LongPoll,
    /// No network at all: a test's client.
    InMemory,
}

impl Transport {
    /// Its name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::LongPoll => "longpoll",
            Self::InMemory => "memory",
        }
    }
}

/// What is known of a client when it connects: its parameters and the request that carried them.
///
/// Parameters and tokens are secrets: `Debug` shows none of them, nor any header.
#[derive(Clone)]
pub struct ConnectInfo {
    transport: Transport,
    params: Map<String, Value>,
    uri: Uri,
    /// Those that an accessor below shows, and no others: cookies stay out.
    headers: HeaderMap,
    extensions: Extensions,
    auth_token: Option<String>,
    unknown_token: bool,
    resuming: bool,
}

impl ConnectInfo {
    /// Reads a request's head.
    pub(crate) fn from_parts(parts: &Parts, transport: Transport) -> Result<Self, BadQuery> {
        let params = params::parse(parts.uri.query().unwrap_or_default())?;
        let shown = parts.headers.iter().filter(|(name, _)| is_shown(name));
        let mut extensions = parts.extensions.clone();
        // The connection itself is the transport's: resumable here it would hold hyper's buffers.
        extensions.remove::<OnUpgrade>();
        Ok(Self {
            transport,
            params,
            uri: parts.uri.to_string().try_into().unwrap_or_default(),
            headers: shown.map(|(name, value)| (name.clone(), copy(value))).collect(),
            extensions,
            auth_token: match transport {
                Transport::WebSocket => subprotocol_token(&parts.headers),
                Transport::LongPoll => text(&parts.headers, AUTH_TOKEN).map(str::to_owned),
                Transport::InMemory => None,
            },
            unknown_token: false,
            resuming: false,
        })
    }

    /// A client that is no request: it has parameters alone.
    pub fn in_memory(params: Map<String, Value>) -> Self {
        Self {
            transport: Transport::InMemory,
            params,
            uri: Uri::default(),
            headers: HeaderMap::new(),
            extensions: Extensions::new(),
            auth_token: None,
            unknown_token: false,
            resuming: false,
        }
    }

    /// The session that the client asks for with the parameter `session`: 22 to 64 characters of
    /// `A-Za-z0-9_-`. Any other text is ignored.
    pub(crate) fn session(&self) -> Option<&str> {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        self.param("session").filter(|id| (22..=64).contains(&id.len()) && id.bytes().all(is_legal))
    }

    /// The last number that the client has seen, if it reads numbers: the parameter `received`.
    pub(crate) fn received(&self) -> Option<u64> {
        self.param("received")?.parse().ok().filter(|number| *number <= MAX_NUMBER)
    }

    /// Whether the client believes to have a session already, which this server does not know.
    pub fn presented_unknown_token(&self) -> bool {
        self.unknown_token
    }

    /// Whether the client asks for a session that is resumable here, and so is likely to need no place of
    /// its own.
    pub fn is_resuming(&self) -> bool {
        self.resuming
    }

    pub(crate) fn set_resuming(&mut self, resuming: bool) {
        self.resuming = resuming;
    }

    pub(crate) fn set_presented_unknown_token(&mut self, unknown_token: bool) {
        self.unknown_token = unknown_token;
    }

    /// The parameter `name`, if it is a text.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name)?.as_str()
    }

    /// All parameters, nested as Plug nests `a[b]=c` and `a[]=1`.
    pub fn params(&self) -> &Map<String, Value> {
        &self.params
    }

    /// The transport in use.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The URI as it was requested: with HTTP/1 usually a path and a query.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The client's address, if whoever accepted the connection put a [`SocketAddr`] into the
    /// request's extensions. Behind a proxy it is the proxy's, and [`x_headers`](Self::x_headers)
    /// know more. (axum wraps it: `info.extensions().get::<axum::extract::ConnectInfo<SocketAddr>>()`.)
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.extensions.get().copied()
    }

    /// The `user-agent` header.
    pub fn user_agent(&self) -> Option<&str> {
        text(&self.headers, USER_AGENT.as_str())
    }

    /// All headers whose name begins with `x-`, but for the one that carries the auth token.
    pub fn x_headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().filter(|(name, _)| is_x_header(name))
    }

    /// The headers `traceparent` and `tracestate` (W3C Trace Context).
    pub fn trace_context_headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().filter(|(name, _)| is_trace_context(name))
    }

    /// The `authToken` of a Phoenix client. It travels outside the URI, so no proxy logs it: over a
    /// WebSocket as the subprotocol `base64url.bearer.phx.…`, over long poll in the header
    /// `x-phoenix-authtoken`. Nothing has verified it.
    pub fn auth_token(&self) -> Option<&str> {
        self.auth_token.as_deref()
    }

    /// What outer layers and the server put into the request's extensions.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }
}

impl fmt::Debug for ConnectInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectInfo")
            .field("transport", &self.transport)
            .field("path", &self.uri.path())
            .field("peer_addr", &self.peer_addr())
            .finish_non_exhaustive()
    }
}

const AUTH_TOKEN: &str = "x-phoenix-authtoken";
const AUTH_TOKEN_SUBPROTOCOL: &str = "base64url.bearer.phx.";

fn is_shown(name: &HeaderName) -> bool {
    let is_token = name == AUTH_TOKEN;
    !is_token && (*name == USER_AGENT || is_x_header(name) || is_trace_context(name))
}

/// Not a clone: the server's headers and URI share its read buffer, which a resumable `ConnectInfo` would
/// keep with it.
fn copy(value: &HeaderValue) -> HeaderValue {
    HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone())
}

fn is_x_header(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-")
}

fn is_trace_context(name: &HeaderName) -> bool {
    name == "traceparent" || name == "tracestate"
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn subprotocol_token(headers: &HeaderMap) -> Option<String> {
    let lists =
        headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|list| list.to_str().ok());
    let mut subprotocols = lists.flat_map(|list| list.split(',')).map(str::trim);
    decode_token(subprotocols.find_map(|name| name.strip_prefix(AUTH_TOKEN_SUBPROTOCOL))?)
}

/// phoenix.js writes the standard alphabet without padding; other clients read the name of the
/// subprotocol and write the alphabet of URLs. Both are meant alike.
fn decode_token(encoded: &str) -> Option<String> {
    let standard = encoded.replace('-', "+").replace('_', "/");
    String::from_utf8(LENIENT.decode(standard).ok()?).ok()
}

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The largest number that every client can count with.
const MAX_NUMBER: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use http::Request;
    use http::request::Builder;

    use super::*;

    fn info(request: Builder, transport: Transport) -> ConnectInfo {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        ConnectInfo::from_parts(&parts, transport).unwrap()
    }

    fn subprotocol(value: &str) -> Option<String> {
        let request = Request::builder().header(SEC_WEBSOCKET_PROTOCOL, value);
        info(request, Transport::WebSocket).auth_token().map(str::to_owned)
    }

    #[test]
    fn it_shows_the_request() {
        let request = Request::builder()
            .uri("/socket/websocket?name=ann&tags[]=a")
            .header("user-agent", "test")
            .header("x-forwarded-for", "1.2.3.4")
            .header("x-forwarded-for", "5.6.7.8")
            .header("traceparent", "00-1-2-00")
            .header("cookie", "secret")
            .extension(SocketAddr::from(([127, 0, 0, 1], 9)))
            .extension("from an outer layer");
        let info = info(request, Transport::WebSocket);
        assert_eq!(info.param("name"), Some("ann"));
        assert_eq!(info.param("tags"), None);
        assert_eq!(info.params()["tags"][0], "a");
        assert_eq!(info.uri().path(), "/socket/websocket");
        assert_eq!(info.user_agent(), Some("test"));
        let x_headers: Vec<_> =
            info.x_headers().map(|(_, value)| value.to_str().unwrap()).collect();
        assert_eq!(x_headers, ["1.2.3.4", "5.6.7.8"]);
        assert_eq!(info.trace_context_headers().count(), 1);
        assert_eq!(info.peer_addr(), Some(SocketAddr::from(([127, 0, 0, 1], 9))));
        assert_eq!(info.extensions().get(), Some(&"from an outer layer"));
    }

    #[test]
    fn headers_that_are_not_shown_are_not_kept() {
        let request = Request::builder().header("cookie", "secret").header("accept", "*/*");
        assert!(info(request, Transport::LongPoll).headers.is_empty());
    }

    #[test]
    fn debug_shows_no_secret() {
        let request = Request::builder()
            .uri("/socket/longpoll?password=hunter2")
            .header(AUTH_TOKEN, "hunter3")
            .header("x-secret", "hunter4");
        let shown = format!("{:?}", info(request, Transport::LongPoll));
        assert!(shown.contains("/socket/longpoll") && !shown.contains("hunter"), "{shown}");
    }

    #[test]
    fn a_long_poll_carries_the_auth_token_in_a_header() {
        let request = || Request::builder().header("X-Phoenix-AuthToken", "s3cret");
        let long_poll = info(request(), Transport::LongPoll);
        assert_eq!(long_poll.auth_token(), Some("s3cret"));
        assert_eq!(long_poll.x_headers().count(), 0);
        assert_eq!(info(request(), Transport::WebSocket).auth_token(), None);
    }

    #[test]
    fn a_websocket_carries_the_auth_token_as_a_subprotocol() {
        for encoded in ["MTIzNA", "MTIzNA=="] {
            let value = format!("phoenix, base64url.bearer.phx.{encoded}");
            assert_eq!(subprotocol(&value).as_deref(), Some("1234"));
        }
    }

    #[test]
    fn both_alphabets_of_base64_are_read() {
        for encoded in ["fn5+Pz8/", "fn5-Pz8_"] {
            let value = format!("base64url.bearer.phx.{encoded}");
            assert_eq!(subprotocol(&value).as_deref(), Some("~~~???"));
        }
    }

    #[test]
    fn a_token_that_is_not_base64_of_utf8_is_none() {
        for encoded in ["!", "_w", "MTIzN"] {
            assert_eq!(subprotocol(&format!("base64url.bearer.phx.{encoded}")), None, "{encoded}");
        }
        assert_eq!(subprotocol("phoenix"), None);
    }

    #[test]
    fn a_bad_query_is_an_error() {
        let (parts, ()) = Request::builder().uri("/?a=%ff").body(()).unwrap().into_parts();
        assert_eq!(ConnectInfo::from_parts(&parts, Transport::LongPoll).unwrap_err(), BadQuery);
    }
}
