//! Where the transports are mounted, and what a request to a wrong path is told.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{StatusCode, Uri};

use crate::error::ConfigError;
use crate::limited;
use crate::log_limit::excerpt;
use crate::longpoll::LongPoll;
use crate::params;
use crate::path::is_path;
use crate::response::{self, Answer};
use crate::session::Handler;
use crate::telemetry::REQUESTS_MISDIRECTED;
use crate::websocket::WebSocket;

/// Both transports and their paths.
pub(crate) struct Mount<H: Handler> {
    /// What stands before the path of a transport; `None` is anything.
    prefix: Option<String>,
    websocket: WebSocket<H>,
    longpoll: LongPoll<H>,
    has_warned: AtomicBool,
}

/// The owner of a request.
pub(crate) enum Route<'a, H: Handler> {
    WebSocket(&'a WebSocket<H>),
    LongPoll(&'a LongPoll<H>),
    /// A client whose URL is wrong: the request can be meant for a transport only, and has its path
    /// not.
    Misdirected,
    Inner,
}

impl<H: Handler> Mount<H> {
    /// # Errors
    /// If the prefix, a configuration or the limits are invalid, or the paths are ambiguous.
    pub(crate) fn new(
        prefix: Option<&str>,
        websocket: WebSocket<H>,
        longpoll: LongPoll<H>,
    ) -> Result<Self, ConfigError> {
        websocket.acceptor().limits().validate()?;
        longpoll.acceptor().limits().validate()?;
        let (ws, lp) = (websocket.config(), longpoll.config());
        ws.validate()?;
        lp.validate()?;
        match (ws.enabled, lp.enabled) {
            (false, false) => {
                return Err(ConfigError::new("at least one transport must be enabled"));
            }
            (true, true) if ws.path.ends_with(&lp.path) || lp.path.ends_with(&ws.path) => {
                return Err(ConfigError::new(format!(
                    "the path of no transport may end in that of the other: {:?}, {:?}",
                    ws.path, lp.path
                )));
            }
            _ => {}
        }
        let prefix = prefix.map(str::to_owned);
        let mount = Self { prefix, websocket, longpoll, has_warned: AtomicBool::new(false) };
        mount.validate_prefix()?;
        Ok(mount)
    }

    fn validate_prefix(&self) -> Result<(), ConfigError> {
        let Some(prefix) = self.prefix.as_deref().filter(|prefix| !prefix.is_empty()) else {
            return Ok(());
        };
        if !is_path(prefix) {
            return Err(ConfigError::new(format!(
                "prefix {prefix:?} must be empty, or one or more segments, each after a slash, \
                 such as \"/socket\""
            )));
        }
        match self.paths().find(|path| prefix.ends_with(path)) {
            Some(path) => Err(ConfigError::new(format!(
                "prefix {prefix:?} must not end in {path:?}, which follows it in the URL of every \
                 client"
            ))),
            None => Ok(()),
        }
    }

    /// The paths of the transports that are not off.
    fn paths(&self) -> impl Iterator<Item = &str> {
        let (ws, lp) = (self.websocket.config(), self.longpoll.config());
        let paths = [(ws.enabled, &ws.path), (lp.enabled, &lp.path)];
        paths.into_iter().filter_map(|(enabled, path)| enabled.then_some(path.as_str()))
    }

    /// Finds the owner of a request. Its path may have one trailing slash.
    pub(crate) fn route(&self, uri: &Uri) -> Route<'_, H> {
        let path = uri.path();
        let path = path.strip_suffix('/').unwrap_or(path);
        let (ws, lp) = (self.websocket.config(), self.longpoll.config());
        let is_at = |transport: &str| {
            let before = path.strip_suffix(transport);
            before.is_some_and(|before| self.prefix.as_deref().is_none_or(|it| it == before))
        };
        if ws.enabled && is_at(&ws.path) {
            Route::WebSocket(&self.websocket)
        } else if lp.enabled && is_at(&lp.path) {
            Route::LongPoll(&self.longpoll)
        } else if self.is_misdirected(path, uri.query()) {
            Route::Misdirected
        } else {
            Route::Inner
        }
    }

    /// Below a prefix, the path of a client whose URL contains that of a transport: clients append it
    /// themselves. Without one, every path is that of a client if it asks for a version of the protocol.
    fn is_misdirected(&self, path: &str, query: Option<&str>) -> bool {
        match &self.prefix {
            Some(prefix) => path.strip_prefix(&**prefix).is_some_and(|rest| {
                let doubled = |path| rest.strip_prefix(path).is_some_and(|rest| self.has(rest));
                self.paths().any(doubled)
            }),
            None => query.is_some_and(|query| {
                !params::is_too_long(query) && params::last(query, "vsn").is_some()
            }),
        }
    }

    fn has(&self, path: &str) -> bool {
        self.paths().any(|own| own == path)
    }

    /// Answers a misdirected request. The first one of a mount is a warning in the log.
    pub(crate) fn misdirected(&self, uri: &Uri) -> Answer {
        let hint = match self.prefix {
            Some(_) => "a client appends the path of its transport to its URL, which contains one",
            None => {
                "the service must be mounted so that this is followed by the path of a transport"
            }
        };
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            let paths: Vec<_> = self.paths().collect();
            limited!(WARN, path = ?excerpt(uri.path()), transports = ?paths, "no transport at this path: {hint}");
        }
        REQUESTS_MISDIRECTED.add(1);
        response::text(StatusCode::NOT_FOUND, format!("no transport at this path: {hint}"))
    }
}

impl<H: Handler> fmt::Debug for Mount<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount")
            .field("prefix", &self.prefix)
            .field("websocket", &self.websocket)
            .field("longpoll", &self.longpoll)
            .finish_non_exhaustive()
    }
}
