//! [`Left`]: what a session that is lost with its node leaves to the next one.

use bytes::Bytes;
use prost::Message;

use crate::history::Position;

/// The topics with a history that a client has joined, and from where each goes on.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Left {
    #[prost(message, repeated, tag = "1")]
    pub(crate) topics: Vec<LeftTopic>,
    /// The number up to which the client has received everything. If there is none, that is the [`Horizon`] of its node.
    #[prost(uint64, optional, tag = "2")]
    pub(crate) since: Option<u64>,
}

/// A topic, and a position behind which everything is the client's.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct LeftTopic {
    #[prost(string, tag = "1")]
    pub(crate) topic: String,
    #[prost(fixed64, tag = "2")]
    pub(crate) epoch: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) number: u64,
}

/// The number up to which all clients of a node have received everything, but for those whose records name their own. A
/// version byte precedes it in the store.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Horizon {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
}

/// How many topics of a session are remembered, and how many bytes their names may have.
pub(crate) const MAX_TOPICS: usize = 64;
pub(crate) const MAX_NAMES: usize = 4 << 10;

/// The version that is written, and the only one that is read.
const VERSION: u8 = 1;

impl Left {
    /// Goes on from the horizon of its node, where nothing else is known.
    pub(super) fn after(self, horizon: Option<u64>) -> Self {
        let since = self.since.or(horizon).unwrap_or(0);
        let after = |it: LeftTopic| LeftTopic { number: it.number.max(since), ..it };
        // No other horizon counts from now on.
        Self { topics: self.topics.into_iter().map(after).collect(), since: Some(0) }
    }
}

impl LeftTopic {
    pub(crate) fn new(topic: &str, position: Position) -> Self {
        let Position { epoch, number } = position;
        Self { topic: topic.to_owned(), epoch, number }
    }

    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch, number: self.number }
    }
}

impl Horizon {
    /// The key of a node's horizon.
    pub(super) fn key(node: crate::adapter::NodeId) -> String {
        format!("h.{node}")
    }

    pub(super) fn encode(self) -> Bytes {
        let mut value = vec![VERSION];
        self.encode_raw(&mut value);
        value.into()
    }

    /// Reads a horizon. `None` if another release or something else has written it.
    pub(super) fn decode(mut value: Bytes) -> Option<Self> {
        let is_known = value.first() == Some(&VERSION);
        is_known.then(|| Message::decode(value.split_off(1)).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::NodeId;

    fn left(since: Option<u64>) -> Left {
        let topic = |topic: &str, number| LeftTopic::new(topic, Position { epoch: 7, number });
        Left { topics: vec![topic("a", 10), topic("b", 20)], since }
    }

    fn numbers(left: &Left) -> Vec<u64> {
        left.topics.iter().map(|it| it.number).collect()
    }

    #[test]
    fn each_topic_goes_on_from_the_join_or_from_what_was_received_since() {
        for (since, horizon, expected) in [
            (None, None, [10, 20]),
            (None, Some(15), [15, 20]),
            (None, Some(25), [25, 25]),
            (Some(12), Some(25), [12, 20]),
            (Some(0), Some(25), [10, 20]),
        ] {
            let after = left(since).after(horizon);
            assert_eq!(numbers(&after), expected);
            assert_eq!(numbers(&after.clone().after(Some(99))), expected, "that is final");
        }
    }

    #[test]
    fn a_horizon_keeps_its_bytes() {
        let horizon = Horizon { number: 300 };
        assert_eq!(horizon.encode(), &b"\x01\x08\xac\x02"[..]);
        assert_eq!(Horizon::decode(horizon.encode()), Some(horizon));
        for value in [&b""[..], b"\x02\x08\x01", b"\x01\x08"] {
            assert_eq!(Horizon::decode(Bytes::from_static(value)), None);
        }
        assert_eq!(Horizon::key(NodeId(10)), "h.000000000000000a");
    }

    #[test]
    fn what_is_left_of_a_session_is_short() {
        let topic =
            |n: u64| LeftTopic::new(&format!("room:{n}"), Position { epoch: n, number: 1 << 50 });
        let left = Left { topics: (0..10).map(topic).collect(), since: Some(1 << 50) };
        assert!(left.encoded_len() < 350, "{}", left.encoded_len());
    }
}
