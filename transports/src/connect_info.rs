//! [`ConnectInfo`]: the request with which a client connects.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{COOKIE, SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request, Uri};
use hyper::upgrade::OnUpgrade;
use percent_encoding::percent_decode_str;
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
/// Parameters and tokens may be secrets: `Debug` prints neither them nor any header. The token by which
/// long polling names its session is in none of its parts.
#[derive(Clone)]
pub struct ConnectInfo {
    transport: Transport,
    params: Map<String, Value>,
    uri: Uri,
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
        let mut extensions = parts.extensions.clone();
        // It belongs to the transport, and would keep hyper's buffers alive.
        extensions.remove::<OnUpgrade>();
        Self {
            transport,
            params,
            uri: parts.uri.to_string().try_into().unwrap_or_default(),
            headers: parts.headers.iter().map(|(name, it)| (name.clone(), copy(it))).collect(),
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
    /// `session`: 20 to 64 characters of `A-Za-z0-9_-`. `None` if it asks for none.
    ///
    /// # Errors
    /// If the id has another form: what it should be.
    pub(crate) fn session(&self) -> Result<Option<&str>, &'static str> {
        let Some(id) = self.params.get("session") else { return Ok(None) };
        let Some(id) = id.as_str() else { return Err("one text, not a list or a map") };
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !(20..=64).contains(&id.len()) {
            Err("20 to 64 characters")
        } else if !id.bytes().all(is_legal) {
            Err("only letters and digits of ASCII, `_` and `-`")
        } else {
            Ok(Some(id))
        }
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

    /// Returns the address of the client, if the server put it into the request's extensions. Behind a
    /// proxy it is the proxy's address; see [`x_headers`](Self::x_headers).
    ///
    /// It is the extension of type [`SocketAddr`] or, with the feature `axum`, the `ConnectInfo` of
    /// axum's `into_make_service_with_connect_info::<SocketAddr>()`, which `axum-server` sets as well.
    /// hyper and hyper-util set neither: the accept loop knows the address, and inserts it into each
    /// request.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        let address = self.extensions.get().copied();
        #[cfg(feature = "axum")]
        let address = address.or_else(|| {
            use axum::extract::connect_info::{ConnectInfo, MockConnectInfo};
            let set = self.extensions.get().map(|ConnectInfo(address)| *address);
            set.or_else(|| self.extensions.get().map(|MockConnectInfo(address)| *address))
        });
        address
    }

    /// Returns the first value of a header, if it is visible ASCII. The name is compared
    /// case-insensitively.
    pub fn header(&self, name: &str) -> Option<&str> {
        text(&self.headers, name)
    }

    /// Returns all headers of the request, cookies and credentials included.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the value of a cookie, percent-decoded as the crates `cookie` and `axum-extra` encode it;
    /// as it was sent if that is not UTF-8. The first of several cookies of that name, which
    /// is the one of the longest path (RFC 6265 section 5.4). `None` as well if the value is not UTF-8.
    ///
    /// Browsers send cookies along with requests of other sites' pages: before relying on them, leave
    /// the [origin check](crate::CheckOrigin) on.
    pub fn cookie(&self, name: &str) -> Option<Cow<'_, str>> {
        // HTTP/2 may split the list into several headers (RFC 9113 section 8.2.3).
        let lists = self.headers.get_all(COOKIE).iter();
        let mut cookies = lists.flat_map(|list| list.as_bytes().split(|byte| *byte == b';'));
        let value = cookies.find_map(|cookie| {
            let at = cookie.iter().position(|byte| *byte == b'=')?;
            let (known, value) = (cookie[..at].trim_ascii(), cookie[at + 1..].trim_ascii());
            (known == name.as_bytes()).then_some(value)
        });
        let value = std::str::from_utf8(value?).ok()?;
        Some(percent_decode_str(value).decode_utf8().unwrap_or(Cow::Borrowed(value)))
    }

    /// Returns the `user-agent` header.
    pub fn user_agent(&self) -> Option<&str> {
        text(&self.headers, USER_AGENT.as_str())
    }

    /// Returns all headers whose name begins with `x-`, except the one that carries the auth token.
    pub fn x_headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let is_shown = |name: &HeaderName| name.as_str().starts_with("x-") && name != AUTH_TOKEN;
        self.headers.iter().filter(move |(name, _)| is_shown(name))
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

/// Copies a header value. A clone would share the server's read buffer, and keep it alive for as
/// long as the application keeps the value.
fn copy(value: &HeaderValue) -> HeaderValue {
    let copied = HeaderValue::from_bytes(value.as_bytes());
    let mut copied = copied.unwrap_or_else(|_| value.clone());
    copied.set_sensitive(value.is_sensitive());
    copied
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
mod tests;
