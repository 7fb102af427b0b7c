#![doc = include_str!("../README.md")]
// Without the feature nothing outside this crate can name the internals.
#![cfg_attr(not(feature = "unstable-internals"), allow(unreachable_pub))]

mod acceptor;
mod connect_info;
mod error;
mod figures;
mod frame;
mod layer;
mod limits;
mod log_limit;
mod longpoll;
mod memory;
mod mount;
mod origin;
pub mod outbox;
pub mod panics;
mod params;
mod path;
pub mod peers;
mod progress;
mod rate;
#[cfg(test)]
mod reentrant;
mod rejected;
mod response;
mod resume;
mod service;
mod session;
pub mod telemetry;
mod websocket;

pub use self::acceptor::{Acceptor, WeakAcceptor};
pub use self::connect_info::{ConnectInfo, Transport};
pub use self::error::{ConfigError, ConnectError};
pub use self::figures::{Figures, TransportFigures, Watch};
pub use self::frame::{Close, Inbound, Message};
pub use self::layer::SocketLayer;
pub use self::limits::Limits;
pub use self::log_limit::{Admitted, LogLimit, excerpt};
pub use self::longpoll::{LongPoll, LongPollConfig, WeakLongPoll};
pub use self::memory::{Account, Cost, FixedReservation, Memory, Reservation, is_counted};
pub use self::origin::CheckOrigin;
pub use self::outbox::ByteBudget;
pub use self::params::BadQuery;
pub use self::rate::Rate;
pub use self::rejected::Rejected;
pub use self::resume::ResumeConfig;
pub use self::service::{NotFound, SocketService};
pub use self::session::{DetachReason, Handler, Session};
pub use self::websocket::{WebSocket, WebSocketConfig};

/// Response futures of the services.
pub mod future {
    pub use crate::longpoll::ResponseFuture as LongPollFuture;
    pub use crate::service::ResponseFuture;
    pub use crate::websocket::ResponseFuture as WebSocketFuture;
}

/// Parts that the tests, benches and fuzz targets of this workspace use. Not covered by semantic
/// versioning.
#[cfg(feature = "unstable-internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::longpoll::fuzzing;
    pub use crate::outbox::model;
    pub use crate::resume::fuzzing as moving;
    pub use crate::websocket::{Connection, Decoder, Event};
}
