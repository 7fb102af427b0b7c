//! [`Names`]: which Redis channel carries what, and which key has what.

use std::sync::Arc;

use redis::{RedisWrite, ToRedisArgs};
use tower_channels::adapter::{Channel, NodeId};

/// The channels and the keys of one application in Redis. Their names are the same on all of its nodes.
#[derive(Debug)]
pub(crate) struct Names {
    /// What all nodes hear.
    pub(crate) all: String,
    /// Matches every topic.
    pub(crate) pattern: String,
    nodes: String,
    pub(crate) topic_prefix: String,
    records: String,
}

impl Names {
    /// Creates the names of an application, which must be [valid](is_valid).
    pub(crate) fn new(app: &str) -> Self {
        Self {
            all: format!("tc:{app}:all"),
            pattern: format!("tc:{app}:t:*"),
            nodes: format!("tc:{app}:n:"),
            topic_prefix: format!("tc:{app}:t:"),
            // What is in braces chooses the slot of a Redis Cluster: one for all records.
            records: format!("tc:{{{app}}}:r:"),
        }
    }

    /// The channel that one node hears.
    pub(crate) fn node(&self, node: NodeId) -> String {
        format!("{}{node}", self.nodes)
    }

    /// The key of a record.
    pub(crate) fn record(&self, key: &str) -> String {
        format!("{}{key}", self.records)
    }

    /// The channel of a topic.
    pub(crate) fn topic<'a>(&'a self, topic: &'a str) -> Name<'a> {
        Name { prefix: &self.topic_prefix, rest: topic }
    }

    /// The channel that frames to `to` are published on.
    pub(crate) fn channel<'a>(&'a self, to: Channel<'a>) -> Name<'a> {
        match to {
            Channel::Topic(topic) => self.topic(topic),
            _ => Name { prefix: &self.all, rest: "" },
        }
    }

    /// The channels of several topics.
    pub(crate) fn topics<'a>(&'a self, topics: &'a [Arc<str>]) -> TopicNames<'a> {
        TopicNames { prefix: &self.topic_prefix, topics }
    }

    /// Returns whether a channel is that of a topic.
    pub(crate) fn is_topic(&self, channel: &[u8]) -> bool {
        channel.starts_with(self.topic_prefix.as_bytes())
    }
}

/// Whether an application may have this name: it is part of a pattern and of access rules, so it contains
/// neither their wildcards nor a separator.
pub(crate) fn is_valid(app: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&app.len()) && app.bytes().all(is_plain)
}

/// The name of a channel, written into a command without being assembled first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    prefix: &'a str,
    rest: &'a str,
}

impl Name<'_> {
    pub(crate) fn len(self) -> usize {
        self.prefix.len() + self.rest.len()
    }
}

impl ToRedisArgs for Name<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        use std::io::Write;

        let mut arg = out.writer_for_next_arg();
        for part in [self.prefix, self.rest] {
            arg.write_all(part.as_bytes()).expect("a command is in memory");
        }
    }
}

/// One argument per topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicNames<'a> {
    prefix: &'a str,
    topics: &'a [Arc<str>],
}

impl ToRedisArgs for TopicNames<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        for topic in self.topics {
            Name { prefix: self.prefix, rest: topic }.write_redis_args(out);
        }
    }

    fn num_of_args(&self) -> usize {
        self.topics.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(args: impl ToRedisArgs) -> Vec<String> {
        let texts = args.to_redis_args().into_iter();
        texts.map(|arg| String::from_utf8(arg).unwrap()).collect()
    }

    #[test]
    fn each_application_has_its_own_channels() {
        let names = Names::new("chat");
        assert_eq!(args(names.channel(Channel::All)), ["tc:chat:all"]);
        assert_eq!(args(names.channel(Channel::Topic("room:1"))), ["tc:chat:t:room:1"]);
        assert_eq!(names.node(NodeId(0xab)), "tc:chat:n:00000000000000ab");
        assert_eq!(names.record("s.1.abc"), "tc:{chat}:r:s.1.abc");
        let topics = [Arc::from("a"), Arc::from("b")];
        assert_eq!(args(names.topics(&topics)), ["tc:chat:t:a", "tc:chat:t:b"]);
        assert_eq!(names.topics(&topics).num_of_args(), 2);
        assert_eq!(names.topic("a").len(), "tc:chat:t:a".len());
    }

    #[test]
    fn topics_are_told_from_what_all_nodes_hear() {
        let names = Names::new("chat");
        assert!(names.is_topic(b"tc:chat:t:all"));
        assert!(!names.is_topic(b"tc:chat:all"));
        assert!(!names.is_topic(b"tc:chat:n:00000000000000ab"));
        assert!(!names.is_topic(b"tc:chat2:t:all"));
    }

    #[test]
    fn a_name_with_a_wildcard_or_a_separator_is_not_valid() {
        for app in ["chat", "Chat_2-test", "c", &"c".repeat(64)] {
            assert!(is_valid(app), "{app}");
        }
        for app in ["", "a*", "a?", "a[b]", "a:b", "a b", "a.b", "\u{e4}", &"c".repeat(65)] {
            assert!(!is_valid(app), "{app}");
        }
    }
}
