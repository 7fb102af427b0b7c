//! Phoenix Channels for any hyper/axum stack.

mod message;
mod payload;
mod reply;
pub mod serializer;

pub use self::message::{Incoming, IncomingPayload, Name, Ref};
pub use self::payload::Payload;
pub use self::reply::{Joined, Reason, Refused, Reply, Result, Stop};
