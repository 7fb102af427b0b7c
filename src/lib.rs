#![doc = include_str!("../README.md")]

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
pub mod serializer;
mod socket;
pub mod test;

pub use self::channel::callbacks::{Channel, Handle, Socket};
pub use self::channel::mailbox::SendError;
pub use self::channel::reply_ref::ReplyRef;
pub use self::channel::result::{JoinError, Joined, Reason, Stop};
pub use self::endpoint::{Builder, ConfigError, Connect, Endpoint, Rejected};
pub use self::message::{ClientMessage, ClientPayload, Name, Ref};
pub use self::payload::Payload;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
#[doc(hidden)]
pub use self::presence::tracker::replication::model;
pub use self::presence::{
    Fetched, Lagged, Meta, MetaUpdate, Presence, PresenceChanges, PresenceConfig, PresenceDiff,
    PresenceError, Presences, Present, TrackGuard,
};
pub use self::reply::Reply;
pub use self::socket::SocketSession;
pub use tower_channels_transports as transports;
pub use tower_channels_transports::{
    CheckOrigin, Close, ConnectInfo, LongPollConfig, ResumeConfig, Transport, WebSocketConfig,
};
