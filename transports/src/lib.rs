//! WebSocket and long poll as Tower services over one session contract.

mod acceptor;
mod connect_info;
mod frame;
mod layer;
mod limits;
pub mod longpoll;
mod origin;
pub mod outbox;
mod params;
mod path;
#[cfg(test)]
mod reentrant;
mod response;
mod resume;
pub mod service;
mod session;
pub mod websocket;

pub use self::acceptor::Acceptor;
pub use self::connect_info::{ConnectInfo, Transport};
pub use self::frame::{Close, Inbound, Message};
pub use self::layer::SocketLayer;
pub use self::limits::Limits;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
#[doc(hidden)]
pub use self::longpoll::fuzzing;
pub use self::longpoll::{LongPoll, LongPollConfig};
pub use self::origin::CheckOrigin;
pub use self::outbox::ByteBudget;
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
#[doc(hidden)]
pub use self::outbox::model;
pub use self::params::BadQuery;
pub use self::resume::ResumeConfig;
pub use self::service::{NotFound, SocketService};
pub use self::session::{Handler, Rejected, Session};
pub use self::websocket::{WebSocket, WebSocketConfig};
