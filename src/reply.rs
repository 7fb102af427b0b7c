//! [`Reply`]: the reply to a push.

use serde_json::json;

use crate::payload::Payload;

/// The reply to a push from the client.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// No reply, or a later one through [`Socket::reply_ref`](crate::Socket::reply_ref).
    #[default]
    None,
    /// `{"status":"ok","response":…}`.
    Ok(Payload),
    /// `{"status":"error","response":…}`.
    Error(Payload),
}

impl Reply {
    /// Replies `ok` with a response.
    pub fn ok(response: impl Into<Payload>) -> Self {
        Self::Ok(response.into())
    }

    /// Replies `ok` with an empty response.
    pub fn ack() -> Self {
        Self::Ok(Payload::EMPTY)
    }

    /// Replies `error` with a response.
    pub fn error(response: impl Into<Payload>) -> Self {
        Self::Error(response.into())
    }

    /// Replies `error` with `{"reason":reason}`.
    pub fn reason(reason: &str) -> Self {
        Self::error(json!({ "reason": reason }))
    }
}
