//! From a topic to the channel that serves it: the one place where channel types are forgotten.

use std::fmt;

use tokio::task::JoinHandle;

use crate::channel::callbacks::Channel;
use crate::channel::task::{self, Join};
use crate::message::LONGEST_NAME;

/// Starts a channel of the type that a route names.
pub(crate) type Start<A> = fn(Join<A>) -> JoinHandle<()>;

/// Topic patterns and their channels, in the order in which they were given; the first match wins.
pub(crate) struct Router<A> {
    routes: Vec<Route<A>>,
}

struct Route<A> {
    pattern: String,
    start: Start<A>,
}

impl<A: Send + Sync + 'static> Router<A> {
    pub(crate) fn new() -> Self {
        Self { routes: Vec::new() }
    }

    /// Serves topics like `pattern` with `C`.
    pub(crate) fn add<C: Channel<Assigns = A>>(&mut self, pattern: &str) {
        self.routes.push(Route { pattern: pattern.to_owned(), start: task::start::<C> });
    }

    /// Finds what serves a topic.
    pub(crate) fn find(&self, topic: &str) -> Option<Start<A>> {
        self.routes.iter().find(|route| matches(&route.pattern, topic)).map(|route| route.start)
    }

    /// Looks for patterns that cannot be meant.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (at, Route { pattern, .. }) in self.routes.iter().enumerate() {
            let text = pattern.strip_suffix('*').unwrap_or(pattern);
            if pattern.is_empty() {
                return Err("a channel's topic pattern is empty".into());
            }
            if text.contains('*') {
                return Err(format!("topic pattern `{pattern}`: `*` may stand at its end alone"));
            }
            if pattern.len() > LONGEST_NAME {
                return Err(format!(
                    "topic pattern `{pattern}` is longer than {LONGEST_NAME} bytes"
                ));
            }
            if pattern == "phoenix" {
                return Err("the topic `phoenix` belongs to the protocol's heartbeats".into());
            }
            let earlier = self.routes[..at].iter().find(|route| matches(&route.pattern, pattern));
            if let Some(Route { pattern: earlier, .. }) = earlier {
                return Err(format!(
                    "topic pattern `{pattern}` can never match: `{earlier}` before it takes its \
                     topics; give the narrower one first"
                ));
            }
        }
        Ok(())
    }
}

/// `room:*` matches whatever begins with `room:`; without a `*` the topic is meant itself.
fn matches(pattern: &str, topic: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => topic.starts_with(prefix),
        None => topic == pattern,
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
        let start: Start<()> = |_| unreachable!("nothing is started");
        let routes = patterns.iter().map(|&pattern| Route { pattern: pattern.into(), start });
        Router { routes: routes.collect() }
    }

    #[test]
    fn a_star_matches_any_rest_and_an_exact_pattern_itself() {
        let router = router(&["room:*", "lobby"]);
        for topic in ["room:", "room:1", "room:a:b", "lobby"] {
            assert!(router.find(topic).is_some(), "{topic}");
        }
        for topic in ["room", "lobby:1", "", "ROOM:1"] {
            assert!(router.find(topic).is_none(), "{topic}");
        }
    }

    #[test]
    fn patterns_that_cannot_be_meant_are_named() {
        assert_eq!(router(&["room:lobby", "room:*", "*"]).check(), Ok(()));
        for patterns in [
            &["room:*", "room:*"][..],
            &["room:*", "room:lobby"],
            &["*", "a"],
            &["a", "a"],
            &[""],
            &["a*b"],
            &["phoenix"],
        ] {
            let error = router(patterns).check().expect_err("refused");
            assert!(error.contains("pattern") || error.contains("phoenix"), "{error}");
        }
    }
}
