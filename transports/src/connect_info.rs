//! What is known of a client when it connects.

use std::net::SocketAddr;

use http::{Extensions, HeaderMap, Uri, request};
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
    params: Map<String, Value>,
    transport: Transport,
    uri: Uri,
    headers: HeaderMap,
    extensions: Extensions,
    auth_token: Option<String>,
}
