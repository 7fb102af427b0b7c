//! [`SocketLayer`]: both transports in front of another service.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use crate::error::ConfigError;
use crate::longpoll::LongPoll;
use crate::path::is_path;
use crate::service::{SocketService, Transports};
use crate::session::Handler;
use crate::websocket::WebSocket;

/// Layer that puts both transports in front of another service: with axum's `Router::layer`, with
/// `tower::ServiceBuilder`, or around any service of HTTP requests.
///
/// In axum, apply it to the outermost router, after all merges: a router that is merged into
/// another applies its layers to its own routes only.
///
/// Clones and the services they produce share their sessions, as do layers built from clones of the
/// same [`LongPoll`].
pub struct SocketLayer<H: Handler>(Arc<Transports<H>>);

impl<H: Handler> SocketLayer<H> {
    /// Mounts the transports below `prefix`: with `/socket` and the default paths, at
    /// `/socket/websocket` and `/socket/longpoll`. Requests may have one trailing slash. A transport
    /// that is configured as off is left out.
    ///
    /// # Errors
    /// If `prefix` is neither empty nor a path without a trailing slash, if both transports are off
    /// or have the same path, or if their configurations or limits are invalid.
    pub fn new(
        prefix: &str,
        websocket: WebSocket<H>,
        longpoll: LongPoll<H>,
    ) -> Result<Self, ConfigError> {
        validate_prefix(prefix)?;
        websocket.acceptor().limits().validate()?;
        longpoll.acceptor().limits().validate()?;
        let (ws, lp) = (websocket.config(), longpoll.config());
        ws.validate()?;
        lp.validate()?;
        match (ws.enabled, lp.enabled) {
            (false, false) => {
                return Err(ConfigError::new("at least one transport must be enabled"));
            }
            (true, true) if ws.path == lp.path => {
                return Err(ConfigError::new(format!(
                    "the transports must have different paths, but both have {:?}",
                    ws.path
                )));
            }
            _ => {}
        }
        let mount = |enabled: bool, path: &str| enabled.then(|| format!("{prefix}{path}"));
        Ok(Self(Arc::new(Transports {
            websocket: mount(ws.enabled, &ws.path).map(|path| (path, websocket)),
            longpoll: mount(lp.enabled, &lp.path).map(|path| (path, longpoll)),
        })))
    }
}

impl<H: Handler, S> Layer<S> for SocketLayer<H> {
    type Service = SocketService<H, S>;

    fn layer(&self, inner: S) -> Self::Service {
        SocketService::new(Arc::clone(&self.0), inner)
    }
}

impl<H: Handler> Clone for SocketLayer<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H: Handler> fmt::Debug for SocketLayer<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SocketLayer").field(&self.0).finish()
    }
}

fn validate_prefix(prefix: &str) -> Result<(), ConfigError> {
    if prefix.is_empty() || is_path(prefix) {
        return Ok(());
    }
    Err(ConfigError::new(format!(
        "prefix {prefix:?} must be empty, or one or more segments, each after a slash, \
         such as \"/socket\""
    )))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::acceptor::Acceptor;
    use crate::connect_info::ConnectInfo;
    use crate::limits::Limits;
    use crate::longpoll::LongPollConfig;
    use crate::origin::CheckOrigin;
    use crate::outbox;
    use crate::rejected::Rejected;
    use crate::session::Session;
    use crate::websocket::WebSocketConfig;
    use crate::{Close, Inbound};

    struct Silent;

    impl Handler for Silent {
        type Session = Self;

        async fn connect(&self, _: ConnectInfo, _: outbox::Sender) -> Result<Self, Rejected> {
            Ok(Self)
        }
    }

    impl Session for Silent {
        fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
            Ok(())
        }
    }

    fn error(
        prefix: &str,
        limits: Limits,
        websocket: WebSocketConfig,
        longpoll: LongPollConfig,
    ) -> Option<String> {
        let acceptor = Acceptor::new(Silent, CheckOrigin::default(), limits);
        let websocket = WebSocket::new(acceptor.clone(), websocket);
        let layer = SocketLayer::new(prefix, websocket, LongPoll::new(acceptor, longpoll));
        layer.err().map(|error| error.to_string())
    }

    #[test]
    fn an_invalid_prefix_is_quoted_in_the_error() {
        let error =
            |prefix| error(prefix, Limits::new(), WebSocketConfig::new(), LongPollConfig::new());
        for prefix in ["/", "socket", "/socket/", "//", "/a b", "/a?b", "/a#b", "/{id}"] {
            assert!(error(prefix).is_some_and(|text| text.contains(prefix)), "{prefix}");
        }
        for prefix in ["", "/socket", "/api/v1/socket"] {
            assert_eq!(error(prefix), None);
        }
    }

    #[test]
    fn transports_must_have_different_paths_and_not_all_be_off() {
        let error = |websocket, longpoll| error("", Limits::new(), websocket, longpoll);
        let (websocket, longpoll) = (WebSocketConfig::new, LongPollConfig::new);
        assert!(error(websocket(), longpoll().path("/websocket")).is_some());
        assert!(error(WebSocketConfig::off(), LongPollConfig::off()).is_some());
        assert_eq!(error(WebSocketConfig::off(), longpoll().path("/websocket")), None);
        assert_eq!(error(websocket(), LongPollConfig::off()), None);
    }

    #[test]
    fn the_configurations_and_the_limits_are_validated() {
        let (websocket, longpoll) = (WebSocketConfig::new, LongPollConfig::new);
        let zero = Duration::ZERO;
        assert!(error("", Limits::new(), websocket().idle_timeout(zero), longpoll()).is_some());
        assert!(error("", Limits::new(), websocket(), longpoll().poll_timeout(zero)).is_some());
        assert!(error("", Limits::new().max_message(0), websocket(), longpoll()).is_some());
    }
}
