//! [`Subjects`]: where frames are published.

use std::fmt::Display;

use async_nats::Subject;
use tower_channels::adapter::{Channel, NodeId};

use crate::history::names;

/// The subjects of an application: `tc.{app}.all` for all nodes, `tc.{app}.t.{partition}` for topics,
/// `tc.{app}.n.{node}` for one node, `tc.{app}.m.{node}` for what a node sends to itself; and those of
/// [histories](crate::history).
///
/// Topics are hashed into 256 partitions, because not every topic can be a subject, and a subscription for each
/// costs a node 5 KB.
#[derive(Debug)]
pub(crate) struct Subjects {
    prefix: String,
    all: Subject,
    partitions: Vec<Subject>,
}

impl Subjects {
    pub(crate) fn new(app: &str) -> Self {
        let prefix = format!("tc.{app}");
        let partition = |number: u8| format!("{prefix}.t.{number:02x}").into();
        Self {
            all: format!("{prefix}.all").into(),
            partitions: (0..=u8::MAX).map(partition).collect(),
            prefix,
        }
    }

    /// Where frames for `channel` are published.
    pub(crate) fn channel(&self, channel: Channel<'_>) -> Subject {
        match channel {
            Channel::Topic(topic) => self.partition(partition(topic)),
            // The only other one.
            _ => self.all(),
        }
    }

    /// What is for all nodes.
    pub(crate) fn all(&self) -> Subject {
        self.all.clone()
    }

    /// What is for the topics of a partition.
    pub(crate) fn partition(&self, partition: u8) -> Subject {
        self.partitions[usize::from(partition)].clone()
    }

    /// What is for any topic.
    pub(crate) fn topics(&self) -> Subject {
        format!("{}.t.*", self.prefix).into()
    }

    /// What is for one node.
    pub(crate) fn node(&self, node: NodeId) -> Subject {
        format!("{}.n.{node}", self.prefix).into()
    }

    /// Where a node sends its marks, to itself.
    pub(crate) fn marks(&self, node: NodeId) -> Subject {
        format!("{}.m.{node}", self.prefix).into()
    }

    /// Where messages of a topic are kept.
    pub(crate) fn kept(&self, topic: &str) -> String {
        format!("{}.h.{:02x}.{}", self.prefix, partition(topic), names::encode(topic))
    }

    /// Where messages of all topics are kept, and where they are handed over once they are.
    pub(crate) fn histories(&self) -> [String; 2] {
        ["h", "r"].map(|kind| format!("{}.{kind}.>", self.prefix))
    }

    /// Where messages of the topics of a partition are handed over.
    pub(crate) fn copies(&self, partition: u8) -> Subject {
        format!("{}.r.{partition:02x}.*", self.prefix).into()
    }

    /// The subject of the answer to a numbered message of a node, and of what the node sends to itself.
    pub(crate) fn answer(&self, node: NodeId, number: impl Display) -> Subject {
        format!("{}.a.{node}.{number}", self.prefix).into()
    }

    /// Everything.
    pub(crate) fn needed(&self) -> String {
        format!("{}.>", self.prefix)
    }
}

/// The partition of a topic: the lowest byte of its FNV-1a hash, of 64 bits. All nodes must agree on it.
pub(crate) fn partition(topic: &str) -> u8 {
    let hash = topic.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_those_that_the_docs_name() {
        let subjects = Subjects::new("chat");
        assert_eq!(subjects.channel(Channel::All).as_str(), "tc.chat.all");
        assert_eq!(subjects.node(NodeId(0xab)).as_str(), "tc.chat.n.00000000000000ab");
        assert_eq!(subjects.marks(NodeId(0xab)).as_str(), "tc.chat.m.00000000000000ab");
        assert_eq!(subjects.topics().as_str(), "tc.chat.t.*");
        assert_eq!(subjects.channel(Channel::Topic("a")).as_str(), "tc.chat.t.8c");
    }

    #[test]
    fn histories_have_subjects_of_their_own() {
        let subjects = Subjects::new("chat");
        assert_eq!(subjects.kept("a"), "tc.chat.h.8c.a");
        assert_eq!(subjects.histories(), ["tc.chat.h.>", "tc.chat.r.>"]);
        assert_eq!(subjects.copies(0x8c).as_str(), "tc.chat.r.8c.*");
        assert_eq!(subjects.answer(NodeId(0xab), 7).as_str(), "tc.chat.a.00000000000000ab.7");
    }

    #[test]
    fn every_topic_has_a_valid_subject() {
        for topic in ["", "a b.*>\r\n", "room:ä"] {
            assert!(Subjects::new("chat").channel(Channel::Topic(topic)).is_valid(), "{topic:?}");
        }
    }

    #[test]
    fn the_partition_of_a_topic_never_changes() {
        // The test vectors of FNV-1a: cbf29ce484222325, af63dc4c8601ec8c, 85944171f73967e8.
        assert_eq!(["", "a", "foobar"].map(partition), [0x25, 0x8c, 0xe8]);
    }

    #[test]
    fn topics_spread_over_the_partitions() {
        let mut counts = [0; 256];
        for number in 0..25_600 {
            counts[usize::from(partition(&format!("room:{number}")))] += 1;
        }
        assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
    }
}
