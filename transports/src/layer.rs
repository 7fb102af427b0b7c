//! [`SocketLayer`]: both transports in front of another service.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use crate::error::ConfigError;
use crate::longpoll::LongPoll;
use crate::mount::Mount;
use crate::service::SocketService;
use crate::session::Handler;
use crate::websocket::WebSocket;

/// Layer that puts both transports in front of another service: with axum's `Router::layer`, with
/// `tower::ServiceBuilder`, or around any service of HTTP requests.
///
/// In axum, apply it to the outermost router, after all merges and after `.fallback(..)`: axum applies a
/// layer to the routes and the fallback that the router has by then. In a nested or merged router it sees
/// the requests of that router's own routes only; there, nest a
/// [standalone service](SocketService::standalone).
///
/// Clones and the services they produce share their sessions, as do layers built from clones of the
/// same [`LongPoll`].
pub struct SocketLayer<H: Handler>(Arc<Mount<H>>);

impl<H: Handler> SocketLayer<H> {
    /// Mounts the transports below `prefix`: with `/socket` and the default paths, at
    /// `/socket/websocket` and `/socket/longpoll`. Requests may have one trailing slash. A transport
    /// that is configured as off is left out.
    ///
    /// A client whose URL contains the path of a transport, such as `/socket/websocket`, asks for
    /// `/socket/websocket/websocket`. It is answered with HTTP 404 and a text that says so.
    ///
    /// # Errors
    /// If `prefix` is neither empty nor a path without a trailing slash, or ends in the path of a
    /// transport; if both transports are off, or the path of one ends in that of the other; or if their
    /// configurations or limits are invalid.
    pub fn new(
        prefix: &str,
        websocket: WebSocket<H>,
        longpoll: LongPoll<H>,
    ) -> Result<Self, ConfigError> {
        Ok(Self(Arc::new(Mount::new(Some(prefix), websocket, longpoll)?)))
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
        for prefix in ["", "/socket", "/api/v1/socket", "/websocket/v1", "/mywebsocket"] {
            assert_eq!(error(prefix), None);
        }
    }

    #[test]
    fn a_prefix_does_not_end_in_the_path_of_a_transport() {
        let error =
            |prefix, websocket| error(prefix, Limits::new(), websocket, LongPollConfig::new());
        for prefix in ["/socket/websocket", "/websocket", "/socket/longpoll"] {
            let text = error(prefix, WebSocketConfig::new()).expect("an error");
            assert!(text.contains("must not end in") && text.contains(prefix), "{text}");
        }
        assert_eq!(error("/socket/websocket", WebSocketConfig::off()), None);
    }

    #[test]
    fn transports_must_have_different_paths_and_not_all_be_off() {
        let error = |websocket, longpoll| error("", Limits::new(), websocket, longpoll);
        let (websocket, longpoll) = (WebSocketConfig::new, LongPollConfig::new);
        for path in ["/websocket", "/lp/websocket"] {
            assert!(error(websocket(), longpoll().path(path)).is_some(), "{path}");
        }
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
