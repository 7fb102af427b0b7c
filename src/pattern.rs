//! Topic patterns: an exact topic, or a prefix followed by `*`. Of several, the first that matches wins.

use tower_channels_transports::ConfigError;

use crate::message::LONGEST_NAME;

/// A pattern such as `room:*` matches every topic with that prefix, one without a `*` only itself.
pub(crate) fn matches(pattern: &str, topic: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => topic.starts_with(prefix),
        None => topic == pattern,
    }
}

/// Validates patterns that are looked up in this order.
pub(crate) fn validate<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<(), ConfigError> {
    let patterns = patterns.collect::<Vec<_>>();
    for (at, pattern) in patterns.iter().enumerate() {
        let text = pattern.strip_suffix('*').unwrap_or(pattern);
        if pattern.is_empty() {
            return Err(ConfigError::new("a topic pattern must not be empty"));
        }
        if text.contains('*') {
            return Err(ConfigError::new(format!(
                "topic pattern `{pattern}`: `*` is allowed only at the end"
            )));
        }
        if pattern.len() > LONGEST_NAME {
            return Err(ConfigError::new(format!(
                "topic pattern `{pattern}` is longer than {LONGEST_NAME} bytes"
            )));
        }
        if *pattern == "phoenix" {
            return Err(ConfigError::new("the topic `phoenix` is reserved for heartbeats"));
        }
        if let Some(earlier) = patterns[..at].iter().find(|earlier| matches(earlier, pattern)) {
            return Err(ConfigError::new(format!(
                "topic pattern `{pattern}` can never match: the earlier `{earlier}` matches all \
                 of its topics; add the narrower pattern first"
            )));
        }
    }
    Ok(())
}
