//! The answer to a client's push.

use serde_json::json;

use crate::payload::Payload;

/// The answer to a client's push.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Reply {
    /// No answer, or a later one through [`Socket::reply_ref`](crate::Socket::reply_ref).
    #[default]
    None,
    /// `{"status":"ok","response":…}`.
    Ok(Payload),
    /// `{"status":"error","response":…}`.
    Error(Payload),
}

impl Reply {
    /// The push succeeded; this is what the client gets.
    pub fn ok(response: impl Into<Payload>) -> Self {
        Self::Ok(response.into())
    }

    /// The push succeeded, and there is nothing to add: an empty response.
    pub fn ack() -> Self {
        Self::Ok(Payload::EMPTY)
    }

    /// The push failed; this is what the client gets.
    pub fn error(response: impl Into<Payload>) -> Self {
        Self::Error(response.into())
    }

    /// The push failed for the reason given: `{"reason":reason}`.
    pub fn reason(reason: &str) -> Self {
        Self::error(json!({ "reason": reason }))
    }
}
