//! WebSocket and long poll as Tower services over one session contract.

mod connect_info;
mod frame;
mod layer;
mod limits;
pub mod longpoll;
mod origin;
pub mod params;
mod response;
mod service;
mod session;
pub mod websocket;

pub use self::connect_info::{ConnectInfo, Transport};
pub use self::frame::{Close, Inbound, Message};
pub use self::layer::SocketLayer;
pub use self::limits::Limits;
pub use self::longpoll::{LongPoll, LongPollConfig};
pub use self::origin::CheckOrigin;
pub use self::params::BadQuery;
pub use self::service::SocketService;
pub use self::session::{Drain, Handler, Outbox, Refused, Session};
pub use self::websocket::{WebSocket, WebSocketConfig};
