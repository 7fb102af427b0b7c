//! Both transports in front of another service.

use std::fmt;
use std::sync::Arc;

use tower_layer::Layer;

use crate::limits::Limits;
use crate::longpoll::LongPoll;
use crate::path::is_path;
use crate::service::{SocketService, Transports};
use crate::session::Handler;
use crate::websocket::WebSocket;

/// Puts both transports in front of another service: with axum's `Router::layer`, with
/// `tower::ServiceBuilder`, or around any service of HTTP requests.
///
/// With axum it belongs on the outermost router, after all merges: a router that is merged into
/// another leaves the layer on its own routes only.
///
/// Clones, and the services made from them, share their sessions, and so do layers that are made of
/// clones of the same [`LongPoll`].
pub struct SocketLayer<H: Handler>(Arc<Transports<H>>);

impl<H: Handler> SocketLayer<H> {
    /// Mounts the transports at `prefix`: with the prefix `/socket` and the default paths, at
    /// `/socket/websocket` and `/socket/longpoll`. One slash more at the end is allowed to clients.
    /// One that is configured as off is left out.
    ///
    /// The prefix is `""`, or begins with a slash and does not end with one. The error says what
    /// is to be mended.
    pub fn new(
        prefix: &str,
        websocket: WebSocket<H>,
        longpoll: LongPoll<H>,
    ) -> Result<Self, String> {
        validate_prefix(prefix)?;
        validate_limits(websocket.acceptor().limits())?;
        validate_limits(longpoll.acceptor().limits())?;
        let (ws, lp) = (websocket.config(), longpoll.config());
        ws.validate()?;
        lp.validate()?;
        match (ws.enabled, lp.enabled) {
            (false, false) => return Err("both transports are off".to_owned()),
            (true, true) if ws.path == lp.path => {
                return Err(format!("both transports have the path {:?}", ws.path));
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

fn validate_prefix(prefix: &str) -> Result<(), String> {
    if prefix.is_empty() || is_path(prefix) {
        return Ok(());
    }
    Err(format!(
        "the prefix {prefix:?} must be empty, or one or more names after a slash each, such as \"/socket\""
    ))
}

fn validate_limits(limits: &Limits) -> Result<(), String> {
    if limits.message == 0 {
        return Err("the limit of a message must not be zero: no message would pass".to_owned());
    }
    if limits.outbox == 0 {
        return Err(
            "the limit of an outbox must not be zero: no two messages could wait".to_owned()
        );
    }
    if limits.connect_timeout.is_zero() {
        return Err("the connect_timeout must not be zero: no client could connect".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::acceptor::Acceptor;
    use crate::connect_info::ConnectInfo;
    use crate::longpoll::LongPollConfig;
    use crate::origin::CheckOrigin;
    use crate::outbox;
    use crate::session::{Rejected, Session};
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

    fn problem(
        prefix: &str,
        limits: Limits,
        websocket: WebSocketConfig,
        longpoll: LongPollConfig,
    ) -> Option<String> {
        let acceptor = Acceptor::new(Silent, CheckOrigin::default(), limits);
        let websocket = WebSocket::new(acceptor.clone(), websocket);
        SocketLayer::new(prefix, websocket, LongPoll::new(acceptor, longpoll)).err()
    }

    #[test]
    fn a_prefix_that_no_request_can_have_is_named() {
        let problem = |prefix| {
            problem(prefix, Limits::default(), WebSocketConfig::new(), LongPollConfig::new())
        };
        for prefix in ["/", "socket", "/socket/", "//", "/a b", "/a?b", "/a#b", "/{id}"] {
            assert!(problem(prefix).is_some_and(|text| text.contains(prefix)), "{prefix}");
        }
        for prefix in ["", "/socket", "/api/v1/socket"] {
            assert_eq!(problem(prefix), None);
        }
    }

    #[test]
    fn transports_that_collide_or_are_all_off_are_named() {
        let problem = |websocket, longpoll| problem("", Limits::default(), websocket, longpoll);
        let (websocket, longpoll) = (WebSocketConfig::new, LongPollConfig::new);
        assert!(problem(websocket(), longpoll().path("/websocket")).is_some());
        assert!(problem(WebSocketConfig::off(), LongPollConfig::off()).is_some());
        assert_eq!(problem(WebSocketConfig::off(), longpoll().path("/websocket")), None);
        assert_eq!(problem(websocket(), LongPollConfig::off()), None);
    }

    #[test]
    fn what_is_wrong_with_a_transport_is_named() {
        let problem = |websocket, longpoll| problem("", Limits::default(), websocket, longpoll);
        let zero = Duration::ZERO;
        assert!(
            problem(WebSocketConfig::new().idle_timeout(zero), LongPollConfig::new()).is_some()
        );
        assert!(
            problem(WebSocketConfig::new(), LongPollConfig::new().poll_timeout(zero)).is_some()
        );
    }

    #[test]
    fn a_limit_of_zero_is_named() {
        let zeros: [fn(&mut Limits); 3] = [
            |limits| limits.message = 0,
            |limits| limits.outbox = 0,
            |limits| limits.connect_timeout = Duration::ZERO,
        ];
        for zero in zeros {
            let mut limits = Limits::default();
            zero(&mut limits);
            let problem = problem("", limits, WebSocketConfig::new(), LongPollConfig::new());
            assert!(problem.is_some_and(|text| text.contains("zero")));
        }
    }
}
