//! [`Router`]: finds the channel for a topic. Only here are channel types erased.

use std::fmt;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tower_channels_transports::ConfigError;

use crate::channel::callbacks::Channel;
use crate::channel::task::{self, Join};
use crate::pattern;
use crate::telemetry::ChannelMetrics;

/// Starts a channel of the type that a route names.
pub(crate) type Start<A> = fn(Join<A>) -> JoinHandle<()>;

/// Topic patterns and their channels. The first match wins.
pub(crate) struct Router<A> {
    routes: Vec<Route<A>>,
}

struct Route<A> {
    pattern: String,
    channel: RoutedChannel<A>,
}

/// The channel of a topic pattern.
pub(crate) struct RoutedChannel<A> {
    pub(crate) start: Start<A>,
    /// The events that it intercepts.
    pub(crate) intercepted: &'static [&'static str],
    pub(crate) metrics: Arc<ChannelMetrics>,
}

impl<A> Clone for RoutedChannel<A> {
    fn clone(&self) -> Self {
        Self { metrics: Arc::clone(&self.metrics), ..*self }
    }
}

impl<A: Send + Sync + 'static> Router<A> {
    pub(crate) fn new() -> Self {
        Self { routes: Vec::new() }
    }

    /// Serves the topics that match `pattern` with `C`.
    pub(crate) fn add<C: Channel<Assigns = A>>(&mut self, pattern: &str) {
        let start = task::start::<C> as Start<A>;
        let channel = RoutedChannel { start, intercepted: C::INTERCEPT, metrics: Arc::default() };
        self.routes.push(Route { pattern: pattern.to_owned(), channel });
    }

    /// Finds the channel for a topic.
    pub(crate) fn find(&self, topic: &str) -> Option<RoutedChannel<A>> {
        let route = self.routes.iter().find(|route| pattern::matches(&route.pattern, topic));
        route.map(|route| route.channel.clone())
    }

    /// Registers the metrics of the channels in the installed recorder.
    pub(crate) fn register_metrics(&mut self) {
        for route in &mut self.routes {
            route.channel.metrics = Arc::new(ChannelMetrics::new(&route.pattern));
        }
    }

    /// Returns the metrics of each channel.
    pub(crate) fn metrics(&self) -> Arc<[Arc<ChannelMetrics>]> {
        self.routes.iter().map(|route| Arc::clone(&route.channel.metrics)).collect()
    }

    /// Validates the patterns.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        if self.routes.is_empty() {
            return Err(ConfigError::new("the endpoint has no channel: add one with `channel`"));
        }
        pattern::validate(self.routes.iter().map(|route| &*route.pattern))
    }
}

impl<A> fmt::Debug for Router<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.routes.iter().map(|route| &route.pattern)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(patterns: &[&str]) -> Router<()> {
        let start: Start<()> = |_| unreachable!("no channel is started");
        let route = |pattern: &&str| {
            let channel = RoutedChannel { start, intercepted: &[], metrics: Arc::default() };
            Route { pattern: (*pattern).into(), channel }
        };
        Router { routes: patterns.iter().map(route).collect() }
    }

    #[test]
    fn a_star_matches_any_rest_and_an_exact_pattern_only_itself() {
        let router = router(&["room:*", "lobby"]);
        for topic in ["room:", "room:1", "room:a:b", "lobby"] {
            assert!(router.find(topic).is_some(), "{topic}");
        }
        for topic in ["room", "lobby:1", "", "ROOM:1"] {
            assert!(router.find(topic).is_none(), "{topic}");
        }
    }

    #[test]
    fn an_invalid_pattern_is_named_in_the_error() {
        assert_eq!(router(&["room:lobby", "room:*", "*"]).validate(), Ok(()));
        for patterns in [
            &["room:*", "room:*"][..],
            &["room:*", "room:lobby"],
            &["*", "a"],
            &["a", "a"],
            &[""],
            &["a*b"],
            &["phoenix"],
        ] {
            let error = router(patterns).validate().expect_err("refused");
            let error = error.to_string();
            assert!(error.contains("pattern") || error.contains("phoenix"), "{error}");
        }
    }
}
