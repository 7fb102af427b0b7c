#![doc = include_str!("../README.md")]

mod channel;
mod client;
mod endpoint;
mod history;
mod mailbox;
mod message;
mod payload;
mod presence;
mod pubsub;
mod reply;
mod router;
pub mod serializer;
mod server;
mod sessions;
mod socket;
pub mod test;
mod topics;
mod track;

pub use self::channel::{Channel, Handle, ReplyRef, Socket};
pub use self::endpoint::{BuildError, Builder, Connect, Endpoint};
pub use self::mailbox::Undelivered;
pub use self::message::{Incoming, IncomingPayload, Name, Ref};
pub use self::payload::Payload;
#[doc(hidden)]
pub use self::presence::model;
pub use self::presence::{
    Fetched, Meta, MetaUpdate, Missed, Presence, PresenceChanges, PresenceConfig, PresenceDiff,
    PresenceError, Presences, Present, Tracked,
};
pub use self::reply::{Joined, Reason, Refused, Reply, Result, Stop};
pub use self::socket::SocketSession;
pub use tower_channels_transports as transports;
pub use tower_channels_transports::{
    CheckOrigin, Close, ConnectInfo, ContinuityConfig, LongPollConfig, Transport, WebSocketConfig,
};
