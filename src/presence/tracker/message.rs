//! The messages that replicas exchange: versioned JSON.
//!
//! A later release may add fields, which this one ignores. A change that this release would
//! misinterpret requires a new version number, which it rejects.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::clock::{CausalContext, MAX_COUNTER};
use super::entry::{Entry, Fields, MAX_META, MAX_TEXT, Replica, json_object};
use super::replicas::MAX_REPLICAS;
use super::state::Fragment;

const VERSION: u64 = 1;

/// The maximum length of a replica's name, in bytes.
const MAX_NAME: usize = 255;

/// The maximum length of a message, in bytes. Longer ones are rejected without parsing.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// A message. Every part but the sender is optional.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) from: Replica,
    /// The sender's vector clock: for each replica, the contiguous prefix it has observed.
    pub(super) clock: Vec<(Replica, u64)>,
    /// At most one fragment per node.
    pub(super) fragments: Vec<Fragment>,
    /// Whether further fragments follow in other messages.
    pub(super) more: bool,
    /// The replicas whose missing operations the sender requests, with the context it has.
    pub(super) request: Vec<(Replica, CausalContext)>,
    /// Informs a replica that the sender considers it gone. Carries the newest incarnation of that
    /// node known to the sender.
    pub(super) gone: Option<(Replica, u64)>,
}

/// The message is malformed or of an unknown version. Nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DecodeError(pub(crate) &'static str);

/// The one field that all versions have in common.
#[derive(Deserialize)]
struct Header {
    v: u64,
}

// The names of the fields below are those on the wire.

#[derive(Serialize, Deserialize)]
struct WireMessage<'a> {
    v: u64,
    from: Replica,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    clock: Vec<WireClock>,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    states: Vec<WireFragment<'a>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    more: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    request: Vec<WireRequest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone: Option<WireGone>,
}

#[derive(Serialize, Deserialize)]
struct WireGone {
    of: Replica,
    newest: u64,
}

#[derive(Serialize, Deserialize)]
struct WireClock {
    of: Replica,
    to: u64,
}

#[derive(Serialize, Deserialize)]
struct WireRequest {
    of: Replica,
    seen: CausalContext,
}

#[derive(Serialize, Deserialize)]
struct WireFragment<'a> {
    of: Replica,
    seen: CausalContext,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    entries: Vec<WireEntry<'a>>,
}

#[derive(Serialize, Deserialize)]
struct WireEntry<'a> {
    n: u64,
    age: u64,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    meta: &'a RawValue,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prev: Option<SmolStr>,
}

impl Message {
    pub(super) fn new(from: Replica) -> Self {
        let (clock, fragments, request) = Default::default();
        Self { from, clock, fragments, more: false, request, gone: None }
    }

    pub(super) fn encode(&self) -> String {
        let clock = |(of, to): &(Replica, u64)| WireClock { of: of.clone(), to: *to };
        let request = |(of, context): &(Replica, CausalContext)| WireRequest {
            of: of.clone(),
            seen: context.clone(),
        };
        let gone = |(of, newest): &(Replica, u64)| WireGone { of: of.clone(), newest: *newest };
        let wire = WireMessage {
            v: VERSION,
            from: self.from.clone(),
            clock: self.clock.iter().map(clock).collect(),
            states: self.fragments.iter().map(WireFragment::new).collect(),
            more: self.more,
            request: self.request.iter().map(request).collect(),
            gone: self.gone.as_ref().map(gone),
        };
        serde_json::to_string(&wire).expect("integers, strings and raw JSON serialize")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        ensure(bytes.len() <= MAX_MESSAGE, "message too large")?;
        let header: Header =
            serde_json::from_slice(bytes).map_err(|_| DecodeError("not a tracker message"))?;
        ensure(header.v == VERSION, "unknown version")?;
        let wire: WireMessage<'_> =
            serde_json::from_slice(bytes).map_err(|_| DecodeError("not a tracker message"))?;
        let ensure_count = |count: usize| ensure(count <= MAX_REPLICAS, "too many replicas");
        ensure_count(wire.clock.len())?;
        ensure_count(wire.states.len())?;
        ensure_count(wire.request.len())?;
        validate_unique(wire.states.iter().map(|state| &state.of))?;
        validate_unique(wire.request.iter().map(|request| &request.of))?;
        for WireClock { of, to } in &wire.clock {
            validate_counter(*to)?;
            validate_replica(of)?;
        }
        for WireRequest { of, .. } in &wire.request {
            validate_replica(of)?;
        }
        if let Some(WireGone { of, newest }) = &wire.gone {
            validate_counter(*newest)?;
            validate_replica(of)?;
        }
        validate_replica(&wire.from)?;
        Ok(Self {
            from: wire.from,
            clock: wire.clock.into_iter().map(|clock| (clock.of, clock.to)).collect(),
            fragments: wire
                .states
                .into_iter()
                .map(WireFragment::decode)
                .collect::<Result<_, _>>()?,
            more: wire.more,
            request: wire.request.into_iter().map(|request| (request.of, request.seen)).collect(),
            gone: wire.gone.map(|gone| (gone.of, gone.newest)),
        })
    }
}

impl<'a> WireFragment<'a> {
    fn new(Fragment { replica, context, entries }: &'a Fragment) -> Self {
        let entry = |entry: &'a Entry| WireEntry {
            n: entry.dot(),
            age: entry.timestamp(),
            topic: Cow::Borrowed(entry.topic()),
            key: Cow::Borrowed(entry.key()),
            meta: json_object(entry.meta()).expect("a meta is a JSON object"),
            prev: entry.prev().cloned(),
        };
        let entries = entries.iter().map(entry).collect();
        Self { of: replica.clone(), seen: context.clone(), entries }
    }

    fn decode(self) -> Result<Fragment, DecodeError> {
        let Self { of: replica, seen: context, entries } = self;
        validate_replica(&replica)?;
        let is_ascending = entries.windows(2).all(|pair| pair[0].n < pair[1].n);
        ensure(is_ascending, "entries not in ascending order")?;
        let is_observed = entries.iter().all(|entry| context.contains(entry.n));
        ensure(is_observed, "entry outside the fragment's context")?;
        let entries = entries.into_iter().map(|entry| entry.decode(&replica));
        Ok(Fragment { entries: entries.collect::<Result<_, _>>()?, context, replica })
    }
}

impl WireEntry<'_> {
    fn decode(self, replica: &Replica) -> Result<Entry, DecodeError> {
        let Self { n: dot, age: timestamp, topic, key, meta, prev } = self;
        validate_counter(timestamp)?;
        ensure(topic.len() <= MAX_TEXT && key.len() <= MAX_TEXT, "topic or key too long")?;
        ensure(meta.get().len() <= MAX_META, "meta too long")?;
        ensure(meta.get().starts_with('{'), "meta is not an object")?;
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_ref = |prev: &SmolStr| prev.len() == 16 && prev.bytes().all(is_base64url);
        ensure(prev.iter().all(is_ref), "prev is not a phx_ref")?;
        let (topic, key, meta) = (topic.into(), key.into(), meta.get().into());
        Ok(Entry::new(replica, dot, Fields { timestamp, topic, key, meta, prev }))
    }
}

fn ensure(condition: bool, error: &'static str) -> Result<(), DecodeError> {
    if condition { Ok(()) } else { Err(DecodeError(error)) }
}

fn validate_counter(counter: u64) -> Result<(), DecodeError> {
    ensure(counter <= MAX_COUNTER, "integer out of range")
}

fn validate_replica(Replica { name, incarnation }: &Replica) -> Result<(), DecodeError> {
    ensure(name.len() <= MAX_NAME, "replica name too long")?;
    validate_counter(*incarnation)
}

fn validate_unique<'a>(replicas: impl Iterator<Item = &'a Replica>) -> Result<(), DecodeError> {
    let (mut replicas, mut names) = (replicas, HashSet::new());
    ensure(replicas.all(|replica| names.insert(&replica.name)), "duplicate node")
}
