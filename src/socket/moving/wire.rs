//! What the nodes exchange about a session that moves, as protobuf messages.
//!
//! A later release may add fields, which this one ignores. What this one cannot understand is a session that begins anew.

use bytes::Bytes;
use prost::{Message, Oneof};

use crate::adapter::NodeId;
use crate::cluster::claims::LeftTopic;
use crate::history::Position;
use crate::payload::Payload;
use crate::serializer::Version;

/// What a session hears.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Outline {
    /// The protocol version of the client; see [`version`].
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(string, repeated, tag = "2")]
    pub(super) topics: Vec<String>,
}

/// How far the new node has heard the others when it began to keep what it hears.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Prepared {
    /// By node.
    #[prost(message, repeated, tag = "1")]
    pub(super) heard: Vec<Number>,
    /// It does not hear all topics yet.
    #[prost(bool, tag = "2")]
    pub(super) is_late: bool,
}

/// A number of a node: that of a frame, or a ticket.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Number {
    #[prost(fixed64, tag = "1")]
    pub(super) node: u64,
    #[prost(uint64, tag = "2")]
    pub(super) number: u64,
}

/// A session, but for its messages.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Packed {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    /// The nodes on which presence of the client lingers, with their tickets.
    #[prost(message, repeated, tag = "2")]
    pub(super) lingering: Vec<Number>,
    #[prost(message, repeated, tag = "3")]
    pub(super) topics: Vec<Topic>,
    /// What is not handled again.
    #[prost(message, optional, tag = "4")]
    pub(super) handled: Option<Handled>,
    /// The topics that the client had joined on a node that was gone, and not joined since.
    #[prost(message, repeated, tag = "6")]
    pub(super) left: Vec<LeftTopic>,
}

/// A topic that the client has joined.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Topic {
    #[prost(string, tag = "1")]
    pub(super) topic: String,
    #[prost(uint64, tag = "2")]
    pub(super) stream: u64,
    #[prost(oneof = "State", tags = "3, 4")]
    pub(super) state: Option<State>,
    /// By node, the number of the last broadcast that the channel has received.
    #[prost(message, repeated, tag = "5")]
    pub(super) heard: Vec<Number>,
    /// Whether the client has requested the presence.
    #[prost(bool, tag = "6")]
    pub(super) follows: bool,
    #[prost(bool, tag = "7")]
    pub(super) has_gap: bool,
    /// The join_ref, as JSON, if the client has received the reply to its join.
    #[prost(string, optional, tag = "8")]
    pub(super) joined: Option<String>,
    /// Up to where the channel has received the history of the topic, if the nodes share that.
    #[prost(message, optional, tag = "12")]
    pub(super) position: Option<At>,
}

/// A position.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct At {
    #[prost(fixed64, tag = "1")]
    pub(super) epoch: u64,
    #[prost(uint64, tag = "2")]
    pub(super) number: u64,
}

/// What a channel has packed.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum State {
    #[prost(string, tag = "3")]
    Json(String),
    #[prost(bytes = "bytes", tag = "4")]
    Binary(Bytes),
}

/// Refs of pushes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Handled {
    /// The first and the last of each range, in turn.
    #[prost(uint64, repeated, tag = "1")]
    pub(super) bounds: Vec<u64>,
}

/// Returns the number by which nodes know a protocol version.
pub(super) fn version(version: Version) -> u32 {
    match version {
        Version::V1 => 1,
        Version::V2 => 2,
    }
}

pub(super) fn numbers(numbers: impl IntoIterator<Item = (NodeId, u64)>) -> Vec<Number> {
    numbers.into_iter().map(|(NodeId(node), number)| Number { node, number }).collect()
}

pub(super) fn by_node(numbers: &[Number]) -> Vec<(NodeId, u64)> {
    numbers.iter().map(|it| (NodeId(it.node), it.number)).collect()
}

impl From<Position> for At {
    fn from(Position { epoch, number }: Position) -> Self {
        Self { epoch, number }
    }
}

impl From<At> for Position {
    fn from(At { epoch, number }: At) -> Self {
        Self { epoch, number }
    }
}

impl From<&Payload> for State {
    fn from(payload: &Payload) -> Self {
        match (payload.as_json(), payload.as_binary()) {
            (Some(text), _) => Self::Json(text.to_owned()),
            (None, bytes) => Self::Binary(bytes.cloned().unwrap_or_default()),
        }
    }
}

impl From<State> for Payload {
    fn from(state: State) -> Self {
        match state {
            State::Json(text) => Self::from_json_text(&text),
            State::Binary(bytes) => Self::binary(bytes),
        }
    }
}
