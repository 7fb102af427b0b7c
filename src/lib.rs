#![doc = include_str!("../README.md")]
// Without the feature nothing outside this crate can name the internals.
#![cfg_attr(not(feature = "unstable-internals"), allow(unreachable_pub))]

pub mod channel;
mod effects;
mod endpoint;
mod message;
mod payload;
mod presence;
mod pubsub;
mod reply;
mod responder;
mod router;
mod serializer;
mod socket;
#[cfg(feature = "test-util")]
pub mod test;

pub use self::channel::callbacks::{Channel, Handle, Socket};
pub use self::channel::mailbox::SendError;
pub use self::channel::reply_ref::ReplyRef;
pub use self::channel::result::{JoinError, Joined, Reason, Stop};
pub use self::endpoint::builder::Builder;
pub use self::endpoint::connect::Rejected;
pub use self::endpoint::layer::{
    Layer, LongPollService, ResponseFuture, Service, TransportFuture, WebSocketService,
};
pub use self::endpoint::{Endpoint, SessionCount};
pub use self::payload::Payload;
pub use self::presence::{
    Fetched, Lagged, Meta, MetaUpdate, Presence, PresenceChanges, PresenceConfig, PresenceDiff,
    PresenceError, Presences, Present, TrackGuard,
};
pub use self::reply::Reply;
#[cfg(feature = "test-util")]
pub use tower_channels_transports::Close;
pub use tower_channels_transports::{
    CheckOrigin, ConfigError, ConnectInfo, LongPollConfig, NotFound, ResumeConfig, Transport,
    WebSocketConfig,
};

/// Parts that the tests, benches and fuzz targets of this workspace use. Not covered by semantic
/// versioning.
#[cfg(feature = "unstable-internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::message::{ClientMessage, ClientPayload, DecodeError, Event, Ref, Topic};
    pub use crate::presence::tracker::replication::model;
    pub use crate::serializer::{ServerMessage, Version};
}
