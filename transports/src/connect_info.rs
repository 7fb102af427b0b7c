//! [`ConnectInfo`]: the request with which a client connects.

use std::fmt;
use std::net::SocketAddr;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Uri};
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
    /// No network: a client in the same process, such as that of a test.
    InMemory,
    /// A transport of another crate, by its name in metrics.
    Other(&'static str),
}

impl Transport {
    /// Returns the name of the transport in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::LongPoll => "longpoll",
            Self::InMemory => "memory",
            Self::Other(name) => name,
        }
    }
}

/// The parameters of a connecting client and the request that carried them.
///
/// Parameters and tokens may be secrets: `Debug` prints neither them nor any header.
#[derive(Clone)]
pub struct ConnectInfo {
    transport: Transport,
    params: Map<String, Value>,
    uri: Uri,
    /// Only the headers that an accessor returns; cookies are not among them.
    headers: HeaderMap,
    extensions: Extensions,
    auth_token: Option<String>,
}

impl ConnectInfo {
    /// Reads the head of a request that arrived over `transport`: the query string, the headers and
    /// the extensions.
    ///
    /// # Errors
    /// If the query string cannot be read.
    pub fn from_request_parts(parts: &Parts, transport: Transport) -> Result<Self, BadQuery> {
        let params = params::parse(parts.uri.query().unwrap_or_default())?;
        Ok(Self::new(transport, params, parts))
    }

    /// Creates the info of a client in the same process, which has only parameters.
    pub fn in_memory(params: Map<String, Value>) -> Self {
        let (parts, ()) = Request::new(()).into_parts();
        Self::in_memory_with(params, &parts)
    }

    /// Creates the info of a client in the same process, with the headers and the extensions of
    /// `parts`. The query string of `parts` is ignored.
    pub fn in_memory_with(params: Map<String, Value>, parts: &Parts) -> Self {
        Self::new(Transport::InMemory, params, parts)
    }

    fn new(transport: Transport, params: Map<String, Value>, parts: &Parts) -> Self {
        let exposed = parts.headers.iter().filter(|(name, _)| is_exposed(name));
        let mut extensions = parts.extensions.clone();
        // It belongs to the transport, and would keep hyper's buffers alive.
        extensions.remove::<OnUpgrade>();
        Self {
            transport,
            params,
            uri: parts.uri.to_string().try_into().unwrap_or_default(),
            headers: exposed.map(|(name, value)| (name.clone(), copy(value))).collect(),
            extensions,
            auth_token: match transport {
                Transport::WebSocket => subprotocol_token(&parts.headers),
                Transport::LongPoll | Transport::InMemory | Transport::Other(_) => {
                    text(&parts.headers, AUTH_TOKEN).map(str::to_owned)
                }
            },
        }
    }

    /// Returns the id of the resumable session that the client asks for with the parameter
    /// `session`. `None` unless it is 22 to 64 characters of `A-Za-z0-9_-`.
    pub(crate) fn session(&self) -> Option<&str> {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        self.param("session").filter(|id| (22..=64).contains(&id.len()) && id.bytes().all(is_legal))
    }

    /// Returns the last sequence number that the client has received: the parameter `received`.
    /// `None` if the client does not track sequence numbers.
    pub(crate) fn received(&self) -> Option<u64> {
        self.param("received")?.parse().ok().filter(|number| *number <= MAX_NUMBER)
    }

    /// Returns the parameter `name`, if it is a text.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name)?.as_str()
    }

    /// Returns all parameters, nested as Plug nests `a[b]=c` and `a[]=1`.
    pub fn params(&self) -> &Map<String, Value> {
        &self.params
    }

    /// Returns the transport in use.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Returns the URI of the request: with HTTP/1 usually a path and a query.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns the address of the client, if the server put a [`SocketAddr`] into the request's
    /// extensions. Behind a proxy it is the proxy's address; see [`x_headers`](Self::x_headers).
    /// (axum wraps it: `info.extensions().get::<axum::extract::ConnectInfo<SocketAddr>>()`.)
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.extensions.get().copied()
    }

    /// Returns the `user-agent` header.
    pub fn user_agent(&self) -> Option<&str> {
        text(&self.headers, USER_AGENT.as_str())
    }

    /// Returns all headers whose name begins with `x-`, except the one that carries the auth token.
    pub fn x_headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().filter(|(name, _)| is_x_header(name))
    }

    /// Returns the headers `traceparent` and `tracestate` (W3C Trace Context).
    pub fn trace_context_headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.headers.iter().filter(|(name, _)| is_trace_context(name))
    }

    /// Returns the `authToken` of a Phoenix client, unverified. It is not part of the URI, so
    /// proxies do not log it: a WebSocket carries it as the subprotocol `base64url.bearer.phx.…`,
    /// other transports in the header `x-phoenix-authtoken`.
    pub fn auth_token(&self) -> Option<&str> {
        self.auth_token.as_deref()
    }

    /// Returns the extensions of the request, as set by the server and outer layers.
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

fn is_exposed(name: &HeaderName) -> bool {
    let is_token = name == AUTH_TOKEN;
    !is_token && (*name == USER_AGENT || is_x_header(name) || is_trace_context(name))
}

/// Copies a header value. A clone would share the server's read buffer, and keep it alive for as
/// long as the `ConnectInfo`.
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

/// Decodes either alphabet: phoenix.js uses the standard one without padding, other clients the URL
/// alphabet that the name of the subprotocol suggests.
fn decode_token(encoded: &str) -> Option<String> {
    let standard = encoded.replace('-', "+").replace('_', "/");
    String::from_utf8(LENIENT.decode(standard).ok()?).ok()
}

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The largest integer that JavaScript represents exactly.
const MAX_NUMBER: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use http::request::Builder;

    use super::*;

    fn info(request: Builder, transport: Transport) -> ConnectInfo {
        let (parts, ()) = request.body(()).unwrap().into_parts();
        ConnectInfo::from_request_parts(&parts, transport).unwrap()
    }

    fn subprotocol(value: &str) -> Option<String> {
        let request = Request::builder().header(SEC_WEBSOCKET_PROTOCOL, value);
        info(request, Transport::WebSocket).auth_token().map(str::to_owned)
    }

    #[test]
    fn the_accessors_return_the_parts_of_the_request() {
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
    fn headers_without_an_accessor_are_not_stored() {
        let request = Request::builder().header("cookie", "secret").header("accept", "*/*");
        assert!(info(request, Transport::LongPoll).headers.is_empty());
    }

    #[test]
    fn debug_prints_no_secrets() {
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
    fn a_custom_transport_reads_the_request_as_long_poll_does() {
        let request = Request::builder().uri("/sse?name=ann").header("X-Phoenix-AuthToken", "t");
        let info = info(request, Transport::Other("sse"));
        assert_eq!((info.param("name"), info.auth_token()), (Some("ann"), Some("t")));
        assert_eq!(info.transport().name(), "sse");
    }

    #[test]
    fn a_session_id_has_22_to_64_characters_of_the_url_alphabet() {
        let session = |id: &str| {
            let info = info(Request::builder().uri(format!("/?session={id}")), Transport::LongPoll);
            info.session().map(str::to_owned)
        };
        for id in ["a".repeat(22), "Z9_-".repeat(16)] {
            assert_eq!(session(&id), Some(id));
        }
        for id in [String::new(), "a".repeat(21), "a".repeat(65), format!("{}.", "a".repeat(22))] {
            assert_eq!(session(&id), None, "{id}");
        }
    }

    #[test]
    fn a_websocket_carries_the_auth_token_as_a_subprotocol() {
        for encoded in ["MTIzNA", "MTIzNA=="] {
            let value = format!("phoenix, base64url.bearer.phx.{encoded}");
            assert_eq!(subprotocol(&value).as_deref(), Some("1234"));
        }
    }

    #[test]
    fn both_base64_alphabets_are_decoded() {
        for encoded in ["fn5+Pz8/", "fn5-Pz8_"] {
            let value = format!("base64url.bearer.phx.{encoded}");
            assert_eq!(subprotocol(&value).as_deref(), Some("~~~???"));
        }
    }

    #[test]
    fn a_token_that_is_not_base64_of_utf8_is_ignored() {
        for encoded in ["!", "_w", "MTIzN"] {
            assert_eq!(subprotocol(&format!("base64url.bearer.phx.{encoded}")), None, "{encoded}");
        }
        assert_eq!(subprotocol("phoenix"), None);
    }

    #[test]
    fn a_bad_query_is_an_error() {
        let (parts, ()) = Request::builder().uri("/?a=%ff").body(()).unwrap().into_parts();
        assert_eq!(
            ConnectInfo::from_request_parts(&parts, Transport::LongPoll).unwrap_err(),
            BadQuery
        );
    }
}
