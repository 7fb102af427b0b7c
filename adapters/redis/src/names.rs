//! [`Names`]: which Redis channel carries what, and which key has what.

use std::sync::Arc;

use redis::{RedisWrite, ToRedisArgs};
use tower_channels::adapter::{Channel, NodeId};

/// The channels and the keys of one application in Redis. Their names are the same on all of its nodes.
#[derive(Debug)]
pub(crate) struct Names {
    /// What all nodes hear.
    pub(crate) all: String,
    /// The channels of topics.
    pub(crate) topics: Family,
    /// The channels of what is kept of topics.
    pub(crate) kept: Family,
    nodes: String,
    records: String,
    topic_keys: String,
    message_keys: String,
    senders: String,
    /// The key that has the run of the server.
    pub(crate) run: String,
}

/// Channels that end with the name of a topic.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) prefix: String,
    /// Matches them all.
    pub(crate) pattern: String,
}

impl Family {
    fn new(prefix: String) -> Self {
        Self { pattern: format!("{prefix}*"), prefix }
    }

    /// The channel of a topic.
    pub(crate) fn of<'a>(&'a self, topic: &'a str) -> Name<'a> {
        Name { prefix: &self.prefix, rest: topic }
    }

    /// The channels of several topics.
    pub(crate) fn all<'a>(&'a self, topics: &'a [Arc<str>]) -> TopicNames<'a> {
        TopicNames { prefix: &self.prefix, topics }
    }

    /// The topic of a channel, if it is one of these.
    pub(crate) fn topic<'a>(&self, channel: &'a [u8]) -> Option<&'a [u8]> {
        channel.strip_prefix(self.prefix.as_bytes())
    }
}

impl Names {
    /// Creates the names of an application, which must be [valid](is_valid).
    pub(crate) fn new(app: &str) -> Self {
        Self {
            all: format!("tc:{app}:all"),
            topics: Family::new(format!("tc:{app}:t:")),
            kept: Family::new(format!("tc:{app}:h:")),
            nodes: format!("tc:{app}:n:"),
            // What is in braces chooses the slot of a Redis Cluster: one for all keys.
            records: format!("tc:{{{app}}}:r:"),
            topic_keys: format!("tc:{{{app}}}:t:"),
            message_keys: format!("tc:{{{app}}}:h:"),
            senders: format!("tc:{{{app}}}:s:"),
            run: format!("tc:{{{app}}}:run"),
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

    /// The key of what is known of a topic with a history.
    pub(crate) fn topic_key<'a>(&'a self, topic: &'a str) -> Name<'a> {
        Name { prefix: &self.topic_keys, rest: topic }
    }

    /// The key of a topic's messages.
    pub(crate) fn message_key<'a>(&'a self, topic: &'a str) -> Name<'a> {
        Name { prefix: &self.message_keys, rest: topic }
    }

    /// The key that has the connection of one who keeps messages.
    pub(crate) fn sender(&self, sender: u64) -> String {
        format!("{}{sender:016x}", self.senders)
    }

    /// The channel that frames to `to` are published on.
    pub(crate) fn channel<'a>(&'a self, to: Channel<'a>) -> Name<'a> {
        match to {
            Channel::Topic(topic) => self.topics.of(topic),
            _ => Name { prefix: &self.all, rest: "" },
        }
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
        assert_eq!(args(names.topics.all(&topics)), ["tc:chat:t:a", "tc:chat:t:b"]);
        assert_eq!(names.topics.all(&topics).num_of_args(), 2);
        assert_eq!(names.topics.of("a").len(), "tc:chat:t:a".len());
        assert_eq!(args(names.kept.of("a")), ["tc:chat:h:a"]);
    }

    #[test]
    fn all_keys_are_in_one_slot() {
        let names = Names::new("chat");
        assert_eq!(args(names.topic_key("{a}")), ["tc:{chat}:t:{a}"]);
        assert_eq!(args(names.message_key("{a}")), ["tc:{chat}:h:{a}"]);
        assert_eq!(names.sender(0xab), "tc:{chat}:s:00000000000000ab");
        assert_eq!(names.run, "tc:{chat}:run");
    }

    #[test]
    fn topics_are_told_from_what_all_nodes_hear() {
        let names = Names::new("chat");
        assert_eq!(names.topics.topic(b"tc:chat:t:all"), Some(&b"all"[..]));
        assert_eq!(names.kept.topic(b"tc:chat:h:all"), Some(&b"all"[..]));
        for other in
            ["tc:chat:all", "tc:chat:n:00000000000000ab", "tc:chat2:t:all", "tc:chat:h:all"]
        {
            assert_eq!(names.topics.topic(other.as_bytes()), None);
        }
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
