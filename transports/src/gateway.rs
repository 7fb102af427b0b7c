//! What both transports of an endpoint share: the handler, the origin check and the limits.

use std::fmt;
use std::sync::Arc;

use crate::connect_info::ConnectInfo;
use crate::limits::Limits;
use crate::origin::CheckOrigin;
use crate::session::{Drain, Handler, Outbox, Refused};

/// A [`Handler`] with what guards it. A cheap clone; every service of an endpoint holds one.
pub struct Gateway<H>(Arc<Shared<H>>);

struct Shared<H> {
    handler: H,
    check_origin: CheckOrigin,
    limits: Limits,
}

impl<H: Handler> Gateway<H> {
    /// Guards `handler`.
    pub fn new(handler: H, check_origin: CheckOrigin, limits: Limits) -> Self {
        Self(Arc::new(Shared { handler, check_origin, limits }))
    }

    /// The limits of every connection.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Who may connect from a browser.
    pub(crate) fn check_origin(&self) -> &CheckOrigin {
        &self.0.check_origin
    }

    /// Asks the handler, for as long as it may take, and hands out both ends of the new session.
    ///
    /// Cancel safety: dropping the future drops the handler's.
    pub async fn connect(&self, info: ConnectInfo) -> Result<(H::Session, Drain), Refused> {
        let (outbox, drain) = Outbox::new(self.0.limits.outbox);
        let connect = self.0.handler.connect(info, outbox);
        match tokio::time::timeout(self.0.limits.connect_timeout, connect).await {
            Ok(Ok(session)) => Ok((session, drain)),
            Ok(Err(refused)) => Err(refused),
            Err(_) => {
                tracing::warn!("connect took too long");
                Err(Refused)
            }
        }
    }
}

impl<H> Clone for Gateway<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H> fmt::Debug for Gateway<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}
