//! What is known of a client when it connects.

use http::request::Parts;
use http::{Extensions, HeaderMap, Uri};
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

/// What is known of a client when it connects: its parameters and the request that carried them.
#[derive(Clone, Debug)]
pub struct ConnectInfo {
    transport: Transport,
    params: Map<String, Value>,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
    auth_token: Option<String>,
}

impl ConnectInfo {
    /// Reads a request's head.
    pub(crate) fn from_parts(parts: &Parts, transport: Transport) -> Result<Self, BadQuery> {
        Ok(Self {
            transport,
            params: params::parse(parts.uri.query().unwrap_or_default())?,
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
            extensions: parts.extensions.clone(),
            auth_token: None,
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
        }
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
}
