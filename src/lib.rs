//! Phoenix Channels for any hyper or axum stack.
//!
//! An [`Endpoint`] decides who may connect and serves topics with [`Channel`]s. It is mounted as a
//! Tower [`Service`], or in front of other services as a [`Layer`], and speaks the Phoenix protocol
//! over WebSocket and long polling to the clients that already exist, such as phoenix.js.
//!
//! ```no_run
//! use axum::Router;
//! use serde_json::json;
//! use tower_channels::channel::{Error, Result};
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
//!         match event {
//!             "new_msg" => {
//!                 socket.broadcast("new_msg", msg);
//!                 Ok(Reply::ack())
//!             }
//!             _ => Err(Error::unmatched(event)),
//!         }
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> std::io::Result<()> {
//! let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*").build();
//! let app = Router::new().nest_service("/socket", endpoint.service());
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:4000").await?;
//! axum::serve(listener, app).await
//! # }
//! ```
//!
//! - [`ConnectInfo`] is what `connect` learns of a client; [`Rejected`] refuses it.
//! - [`Socket`] sends to the client and to its topic, [`Handle`] reaches a channel from other tasks.
//! - [`channel::Error`] is what `?` returns in a channel: an error reply, a stop or a crash.
//! - [`Payload`] is the content of a message: [`parse`](Payload::parse) it as a type, or as one variant of
//!   an enum of [events](Payload::parse_event).
//! - [`PubSub`] reaches any topic and any socket from channels, tasks and other endpoints.
//! - [`Presence`] tracks who is online.
//! - [`History`] keeps the messages of a topic for clients that return, and for [reading](PubSub::history).
//! - [`Inspect`](inspect::Inspect) shows what an endpoint does, to dashboards of one's own.
//! - [`ResumeConfig`] lets sessions outlive their connections, on either transport.
//! - With the feature `test-util`, `test` is a client without a network.
//!
//! # Features
//!
//! - `http2` (default): WebSockets over HTTP/2 (RFC 8441).
//! - `axum`: [`ConnectInfo::peer_addr`] reads the address that axum's
//!   `into_make_service_with_connect_info` sets.
//! - `test-util`: the in-memory client, for tests of one's own channels.
//!
//! A panic in a channel ends that channel alone, one in `connect` that request alone. This needs the
//! default `panic = "unwind"`.

// Without the feature nothing outside this crate can name the internals.
#![cfg_attr(not(feature = "unstable-internals"), allow(unreachable_pub))]

pub mod adapter;
pub mod channel;
pub mod cluster;
mod effects;
mod endpoint;
mod guarded;
pub mod history;
pub mod inspect;
mod lagged;
mod message;
mod pattern;
mod payload;
mod presence;
pub mod pubsub;
mod reply;
mod responder;
mod router;
mod serializer;
mod socket;
mod socket_info;
mod telemetry;
#[cfg(feature = "test-util")]
pub mod test;
mod topics;

pub use self::channel::arrival::Arrival;
pub use self::channel::callbacks::{Channel, Socket};
pub use self::channel::handle::Handle;
pub use self::channel::mailbox::SendError;
pub use self::channel::reply_ref::ReplyRef;
pub use self::channel::result::{Joined, Reason};
pub use self::channel::subscriptions::SubscribeError;
pub use self::channel::timers::Timer;
pub use self::endpoint::builder::Builder;
pub use self::endpoint::layer::{
    Layer, LongPollService, ResponseFuture, Service, TransportFuture, WebSocketService,
};
pub use self::endpoint::{Endpoint, SessionCount};
pub use self::history::{History, Position};
pub use self::lagged::Lagged;
pub use self::payload::{EventError, InvalidPayload, Payload};
pub use self::presence::{
    Fetched, Meta, MetaUpdate, Presence, PresenceChanges, PresenceConfig, PresenceDiff,
    PresenceError, Presences, Present, TrackGuard,
};
pub use self::pubsub::{PubSub, PubSubConfig};
pub use self::reply::Reply;
pub use self::socket::shutdown::ShutdownConfig;
pub use self::telemetry::describe_metrics;
#[cfg(feature = "test-util")]
pub use tower_channels_transports::Close;
pub use tower_channels_transports::{
    CheckOrigin, ConfigError, ConnectInfo, LongPollConfig, NotFound, Rate, Rejected, ResumeConfig,
    Transport, WebSocketConfig,
};

/// Parts that the tests, benches and fuzz targets of this workspace use. Not covered by semantic
/// versioning.
#[cfg(feature = "unstable-internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::cluster::claims::model as claims;
    pub use crate::cluster::model as frames;
    pub use crate::history::following::model as following;
    pub use crate::history::memory::store::MemoryStore;
    pub use crate::message::{ClientMessage, ClientPayload, DecodeError, Event, Ref, Topic};
    pub use crate::presence::tracker::replication::model;
    pub use crate::serializer::{ServerMessage, Version};
    pub use crate::telemetry::all_metrics;
    pub use crate::test::simulation;
}

/// Compiles the code in README.md.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the code in docs/, which the published package does not contain.
#[cfg(all(doctest, feature = "unstable-internals"))]
mod pages {
    macro_rules! pages {
        ($($page:ident)*) => {
            $(#[doc = include_str!(concat!("../docs/", stringify!($page), ".md"))] mod $page {})*
        };
    }
    pages!(dashboard deployment from_phoenix history metrics mounting presence security);
}
