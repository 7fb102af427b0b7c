//! [`ConnectError`]: why a server cannot be used.

use std::fmt;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Error returned by [`Redis::connect`](crate::Redis::connect): the server cannot be used, or not in this way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration is not valid.
    Config(String),
    /// The server does not answer: wrong address, not started, a firewall.
    Unreachable(String),
    /// The server refuses the user or the password, or asks for one.
    Unauthorized(String),
    /// The user may not run a command that is needed.
    Forbidden {
        /// The command, with the channel where that matters, such as `PSUBSCRIBE tc:chat:t:*`.
        command: String,
        /// What the server says.
        reason: String,
    },
    /// The server cannot do what is needed: it is older than Redis 6, or a replica, or something else that
    /// speaks the protocol in part.
    Unsupported(String),
}

impl ConnectError {
    /// The error of a connection that could not be opened.
    pub(crate) fn opening(error: &RedisError) -> Self {
        let reason = error.to_string();
        match (error.kind(), error.code()) {
            (ErrorKind::RESP3NotSupported, _) | (_, Some("NOPROTO")) => Self::too_old(&reason),
            _ if reason.contains("unknown command") => Self::too_old(&reason),
            (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
                Self::Unauthorized(reason)
            }
            (ErrorKind::InvalidClientConfig, _) => Self::Config(reason),
            _ => Self::Unreachable(reason),
        }
    }

    /// Converts the error of a required command.
    pub(crate) fn running(command: impl Into<String>, error: &RedisError) -> Self {
        let command = command.into();
        match error.kind() {
            _ if is_forbidden(error) => Self::Forbidden { command, reason: error.to_string() },
            ErrorKind::Io => Self::Unreachable(format!("{command}: {error}")),
            _ => Self::Unsupported(format!("{command}: {error}")),
        }
    }

    fn too_old(reason: &str) -> Self {
        Self::Unsupported(format!("it needs RESP3, which Redis has since version 6: {reason}"))
    }
}

/// Whether the user may not do that, in a script or outside.
fn is_forbidden(error: &RedisError) -> bool {
    let reason = error.to_string();
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        || ["ACL failure", "can't run this command", "can't access"]
            .iter()
            .any(|it| reason.contains(it))
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(reason) => write!(f, "invalid configuration: {reason}"),
            Self::Unreachable(reason) => write!(f, "Redis cannot be reached: {reason}"),
            Self::Unauthorized(reason) => {
                write!(f, "Redis refuses the user or the password: {reason}")
            }
            Self::Forbidden { command, reason } => {
                write!(f, "the Redis user has no permission for `{command}`: {reason}")
            }
            Self::Unsupported(reason) => write!(f, "the Redis server cannot be used: {reason}"),
        }
    }
}

impl std::error::Error for ConnectError {}
