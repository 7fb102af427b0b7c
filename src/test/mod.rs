//! An in-memory client, for tests of an application's channels.
//!
//! It is a transport of its own: the session and the channel tasks are the real ones, only the
//! network is missing. It works with paused time. Requires the feature `test-util`.
//!
//! ```
//! use std::time::Duration;
//!
//! use serde_json::json;
//! use tower_channels::channel::Result;
//! use tower_channels::{Channel, Endpoint, Joined, Payload, Reply, Socket};
//!
//! struct Room;
//!
//! impl Channel for Room {
//!     type Assigns = ();
//!     type Info = ();
//!
//!     async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
//!         Ok(Room.into())
//!     }
//!
//!     async fn handle_in(&mut self, event: &str, msg: Payload, socket: &Socket<Self>) -> Result<Reply> {
//!         socket.broadcast(event, msg);
//!         Ok(Reply::ack())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*").build();
//! let mut ann = tower_channels::test::connect(&endpoint, &[("name", "ann")]).await.unwrap();
//! let mut bob = tower_channels::test::connect(&endpoint, &[("name", "bob")]).await.unwrap();
//! ann.join("room:1", json!({})).await;
//! bob.join("room:1", json!({})).await;
//! assert_eq!(ann.push("room:1", "new_msg", json!("hi")).await, Reply::ack());
//! assert_eq!(bob.expect("new_msg").await, json!("hi"));
//! bob.refute("new_msg", Duration::from_millis(10)).await;
//! # }
//! ```
//!
//! A client that connects with the parameter `session` can lose its connection and resume its
//! channels, see [`Channel::resume`](crate::Channel::resume):
//!
//! ```
//! # use serde_json::json;
//! # use tower_channels::channel::Result;
//! # use tower_channels::{Channel, Endpoint, Joined, Payload, Reply, Socket};
//! # struct Room;
//! # impl Channel for Room {
//! #     type Assigns = ();
//! #     type Info = ();
//! #     async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
//! #         Ok(Room.into())
//! #     }
//! #     async fn resume(&mut self, _: Payload, _: &Socket<Self>) -> Result<Option<Payload>> {
//! #         Ok(Some(json!("welcome back").into()))
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let endpoint = Endpoint::builder(|_| async { Ok(()) })
//!     .id(|()| Some("user:7".into()))
//!     .channel::<Room>("room:*")
//!     .build();
//! let session = [("session", "any-20-to-64-characters")];
//! let mut ann = tower_channels::test::connect(&endpoint, &session).await.unwrap();
//! ann.join("room:1", json!({})).await;
//!
//! ann.drop_connection();
//! endpoint.broadcast("room:1", "new_msg", json!("while you were away"));
//! ann.reconnect().await.unwrap();
//!
//! let reply = ann.join("room:1", json!({})).await;
//! assert_eq!(reply, Reply::ok(json!("welcome back")));
//! assert_eq!(ann.expect("new_msg").await, json!("while you were away"));
//! # }
//! ```

mod broadcasts;
mod bus;
mod client;
mod connection;
mod expected;
mod message;
#[cfg(feature = "unstable-internals")]
#[doc(hidden)]
pub mod simulation;
mod unread;

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request};
use serde_json::{Map, Value};
use tower_channels_transports::Rejected;

pub use self::bus::{Bus, BusAdapter};
#[doc(hidden)]
pub use self::bus::{HistoryPath, Path, Place, StorePath};
pub use self::client::Client;
pub use self::expected::{Expected, joins, leaves};
pub use self::message::Message;
use crate::endpoint::Endpoint;
use crate::endpoint::connect::GivenAssigns;
use crate::guarded::Guarded;

/// Connects a client with these connect parameters, which are all texts. [`client`] also gives it
/// headers, an auth token or extensions.
///
/// # Errors
/// If the endpoint rejects the client.
pub async fn connect<A: Send + Sync + 'static>(
    endpoint: &Endpoint<A>,
    params: &[(&str, &str)],
) -> Result<Client<A>, Rejected> {
    let client = client(endpoint);
    params.iter().fold(client, |client, &(name, value)| client.param(name, value)).connect().await
}

/// Connects a client with these assigns, without calling `connect`. Neither does
/// [`Client::reconnect`] call it, nor the function of [`Builder::refresh`](crate::Builder::refresh).
///
/// # Panics
/// If the endpoint has no place or no memory for another session, or the assigns have expired or have an
/// id of more than 255 bytes.
pub async fn connect_as<A: Send + Sync + 'static>(endpoint: &Endpoint<A>, assigns: A) -> Client<A> {
    let client = client(endpoint).extension(GivenAssigns(Arc::new(Guarded::new(assigns))));
    client.connect().await.unwrap_or_else(|rejected| panic!("rejected: {rejected}"))
}

/// Returns a client that is not connected yet.
pub fn client<A: Send + Sync + 'static>(endpoint: &Endpoint<A>) -> Connect<A> {
    let params = Map::from_iter([("vsn".to_owned(), Value::from("2.0.0"))]);
    Connect { endpoint: endpoint.clone(), params, request: Request::new(()) }
}

/// A client that is not connected yet: what its `connect` request carries.
#[derive(Debug)]
#[must_use = "it does nothing until `connect` is called"]
pub struct Connect<A: Send + Sync + 'static> {
    endpoint: Endpoint<A>,
    params: Map<String, Value>,
    request: Request<()>,
}

impl<A: Send + Sync + 'static> Connect<A> {
    /// Adds a connect parameter: a text, or nested JSON as Plug would have decoded it.
    ///
    /// With `session`, 20 to 64 characters of `A-Za-z0-9_-`, the session is resumable. With
    /// `received` as well, such as `"0"`, the client also tracks sequence numbers.
    pub fn param(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.params.insert(name.to_owned(), value.into());
        self
    }

    /// Sets the `authToken` of the client.
    pub fn auth_token(self, token: &str) -> Self {
        self.header("x-phoenix-authtoken", token)
    }

    /// Adds a header.
    ///
    /// # Panics
    /// If the name or the value is not that of a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = name.parse::<HeaderName>().expect("the name of a header");
        let value = value.parse::<HeaderValue>().expect("the value of a header");
        self.request.headers_mut().append(name, value);
        self
    }

    /// Adds an extension of the request, such as one that an outer layer would have set.
    pub fn extension<T: Any + Clone + Send + Sync>(mut self, extension: T) -> Self {
        self.request.extensions_mut().insert(extension);
        self
    }

    /// Sets the address of the client.
    pub fn peer(self, address: SocketAddr) -> Self {
        self.extension(address)
    }

    /// Connects the client.
    ///
    /// # Errors
    /// If the endpoint rejects it, with the [`Rejected`] that `connect` has returned.
    pub async fn connect(self) -> Result<Client<A>, Rejected> {
        let (parts, ()) = self.request.into_parts();
        let mut client = Client::new(self.endpoint, self.params, parts);
        client.reconnect().await?;
        Ok(client)
    }
}
