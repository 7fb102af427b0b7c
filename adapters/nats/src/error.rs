//! [`ConnectError`]: why a server cannot be used.

use std::fmt;

use async_nats::ConnectErrorKind;

/// Error returned by [`Nats::connect`](crate::Nats::connect): no server can be used, or not in this way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration is not valid.
    Config(String),
    /// The server does not answer: wrong address, not started, a firewall, a certificate that is not trusted.
    Unreachable(String),
    /// The server refuses the user, the password, the token or the credentials, or asks for them.
    Unauthorized(String),
    /// The user may not publish or subscribe to a subject that is needed.
    Forbidden {
        /// What must be permitted, such as `tc.chat.>`.
        subjects: String,
        /// What the server says.
        reason: String,
    },
    /// The server cannot do what is needed: it is older than NATS 2.2, or something else.
    Unsupported(String),
}

impl ConnectError {
    /// The error of a connection that could not be opened.
    pub(crate) fn opening(server: &str, error: &async_nats::ConnectError) -> Self {
        let reason = format!("{server}: {error}");
        let is_refusal = || {
            let reason = reason.to_ascii_lowercase();
            ["authentication", "authorization"].iter().any(|word| reason.contains(word))
        };
        match error.kind() {
            // TLS: the files. A certificate that is refused is an error of I/O.
            ConnectErrorKind::ServerParse | ConnectErrorKind::Tls => Self::Config(reason),
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                Self::Unauthorized(reason)
            }
            _ if is_refusal() => Self::Unauthorized(reason),
            _ => Self::Unreachable(reason),
        }
    }

    /// Whether another server is worth a try although this one is there.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(reason) => write!(f, "invalid configuration: {reason}"),
            Self::Unreachable(reason) => write!(f, "NATS cannot be reached: {reason}"),
            Self::Unauthorized(reason) => write!(f, "NATS refuses the credentials: {reason}"),
            Self::Forbidden { subjects, reason } => write!(
                f,
                "the NATS user must be permitted to publish and to subscribe to `{subjects}`: {reason}"
            ),
            Self::Unsupported(reason) => write!(f, "the NATS server cannot be used: {reason}"),
        }
    }
}

impl std::error::Error for ConnectError {}
