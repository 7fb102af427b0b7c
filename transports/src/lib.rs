//! WebSocket and long poll as Tower services over one session contract.

mod backlog;
mod connect_info;
mod frame;
mod gateway;
mod layer;
mod limits;
pub mod longpoll;
mod origin;
mod params;
mod path;
mod response;
pub mod service;
mod session;
pub mod websocket;

pub use self::backlog::Backlog;
pub use self::connect_info::{ConnectInfo, Transport};
pub use self::frame::{Close, Inbound, Message};
pub use self::gateway::Gateway;
pub use self::layer::SocketLayer;
pub use self::limits::Limits;
#[doc(hidden)]
pub use self::longpoll::fuzzing;
pub use self::longpoll::{LongPoll, LongPollConfig};
pub use self::origin::CheckOrigin;
pub use self::params::BadQuery;
pub use self::service::{NotFound, SocketService};
#[doc(hidden)]
pub use self::session::model;
pub use self::session::{ContinuityConfig, Drain, Handler, Outbox, Refused, Session};
pub use self::websocket::{WebSocket, WebSocketConfig};
