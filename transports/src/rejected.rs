//! [`Rejected`]: the refusal of a connect.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::limited;
use crate::log_limit::excerpt;

/// The refusal of a connect.
///
/// The client sees the HTTP status alone, over long poll `{"status":403}` or `{"status":500}`, which are
/// the refusals that phoenix.js knows; see [`status`](Self::status). The reason is for the log.
///
/// | made by | status | log |
/// | --- | --- | --- |
/// | [`Rejected::reason`] | 403 | `info`, with the reason |
/// | [`Rejected::status`] | as given | `info`, with the reason |
/// | `?` on any error | 500 | `error`, with its text |
///
/// An error that a client can cause, such as that of a token which does not verify, is better mapped to
/// a reason: `verify(token).map_err(|_| Rejected::reason("bad token"))?`.
///
/// Like `anyhow::Error`, it converts from every error type and so does not implement [`Error`] itself.
///
/// ```
/// use http::StatusCode;
/// use tower_channels_transports::Rejected;
///
/// assert_eq!(Rejected::reason("bad token").status_code(), StatusCode::FORBIDDEN);
/// let banned = Rejected::status(StatusCode::GONE).with_reason("banned");
/// assert_eq!(banned.to_string(), "banned");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    status: StatusCode,
    reason: String,
    retry_after: Option<Duration>,
    label: Option<&'static str>,
    /// Whether this was an error of the application.
    is_failure: bool,
}

impl Rejected {
    /// Rejects the client with HTTP status 403. The reason is not sent.
    pub fn reason(reason: impl Into<String>) -> Self {
        Self::status(StatusCode::FORBIDDEN).with_reason(reason)
    }

    /// Rejects the client with this HTTP status, or with 500 if it is not that of an error (400 to 599).
    ///
    /// Over long poll the body says 403 for a status below 500 other than 429, on which phoenix.js
    /// reports an error, and 500 for any other; the HTTP status of the response is 503 for 503, and
    /// else 200, as in Phoenix.
    pub fn status(status: StatusCode) -> Self {
        let is_error = status.is_client_error() || status.is_server_error();
        let status = if is_error { status } else { StatusCode::INTERNAL_SERVER_ERROR };
        Self { status, reason: String::new(), retry_after: None, label: None, is_failure: false }
    }

    /// Sets the reason, which is logged and not sent.
    #[must_use]
    pub fn with_reason(self, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..self }
    }

    /// Sets the header `Retry-After`, in whole seconds. Default 5 s for status 503, none for any other.
    #[must_use]
    pub fn with_retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// Sets the label `reason` in the metric of refused connects. Default `failed` for a status of 500 or
    /// above, and `rejected` for any other.
    #[must_use]
    pub fn with_label(self, label: &'static str) -> Self {
        Self { label: Some(label), ..self }
    }

    /// Returns the HTTP status.
    pub fn status_code(&self) -> StatusCode {
        self.status
    }

    /// Returns the value of the header `Retry-After`.
    pub fn retry_after(&self) -> Option<Duration> {
        let is_unavailable = self.status == StatusCode::SERVICE_UNAVAILABLE;
        self.retry_after.or(is_unavailable.then_some(RETRY_AFTER))
    }

    /// Logs the refusal, and returns its label in metrics.
    pub(crate) fn report(&self) -> &'static str {
        let (status, reason) = (self.status, excerpt(&self.reason));
        match self.label {
            _ if self.is_failure => limited!(ERROR, error = ?reason, "connect failed"),
            // What the application or its operator should change.
            Some("full" | "socket_id") => limited!(WARN, reason = ?reason, "connect rejected"),
            _ => limited!(INFO, reason = ?reason, status = ?status.as_u16(), "connect rejected"),
        }
        self.label.unwrap_or(if status.is_server_error() { "failed" } else { "rejected" })
    }
}

/// The text of an error is formatted at once, within the call of the application that returns it.
impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Rejected {
    fn from(error: E) -> Self {
        let reason = error.into().to_string();
        let failed = Self::status(StatusCode::INTERNAL_SERVER_ERROR).with_reason(reason);
        Self { is_failure: true, ..failed }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason.is_empty() { self.status.fmt(f) } else { f.write_str(&self.reason) }
    }
}

/// When a client that was refused for want of room, or during a shutdown, should try again.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_it_was_given() {
        let rejected = Rejected::reason("banned");
        assert_eq!(
            (rejected.status_code(), &*rejected.to_string()),
            (StatusCode::FORBIDDEN, "banned")
        );
        assert_eq!(rejected.retry_after(), None);
        assert_eq!(Rejected::status(StatusCode::GONE).to_string(), "410 Gone");
        assert_ne!(rejected, Rejected::reason("unknown"));
    }

    #[test]
    fn a_status_that_is_no_error_would_not_refuse() {
        for status in [100, 101, 200, 302, 600] {
            let rejected = Rejected::status(StatusCode::from_u16(status).expect("a status"));
            assert_eq!(rejected.status_code(), StatusCode::INTERNAL_SERVER_ERROR, "{status}");
        }
    }

    #[test]
    fn an_error_is_a_failure_of_the_server() {
        fn connect() -> Result<u8, Rejected> {
            Ok("x".parse::<u8>()?)
        }
        let rejected = connect().expect_err("not a number");
        assert_eq!(rejected.status_code(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(rejected.to_string(), "invalid digit found in string");
    }

    #[test]
    fn only_an_unavailable_server_asks_for_another_try_by_itself() {
        let unavailable = Rejected::status(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(unavailable.retry_after(), Some(RETRY_AFTER));
        let minute = Duration::from_secs(60);
        let limited = Rejected::status(StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(limited.retry_after(), None);
        assert_eq!(limited.with_retry_after(minute).retry_after(), Some(minute));
        assert_eq!(unavailable.with_retry_after(minute).retry_after(), Some(minute));
    }
}
