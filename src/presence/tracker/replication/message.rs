//! The messages that replicas exchange: versioned JSON.
//!
//! A later release may add fields, which this one ignores. A change that this release would
//! misinterpret requires a new version number, which it rejects. Who sends a message, and to which
//! shard, is said by the frame that carries it.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::causal_context::CausalContext;
use super::state::Fragment;
use crate::presence::tracker::entry::{
    Entry, Fields, MAX_COUNTER, MAX_META, MAX_TEXT, Replica, json_object,
};

const VERSION: u64 = 1;

/// The maximum length of a message, in bytes. Longer ones are rejected without parsing.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// A message. Every part is optional.
#[derive(Debug, Default)]
pub(crate) struct Message {
    /// Operations of the sender.
    pub(super) state: Option<Fragment>,
    /// Whether further fragments of the same delta follow in other messages.
    pub(super) more: bool,
    /// Requests the operations of the recipient that are not in this context, that of the sender.
    pub(super) request: Option<CausalContext>,
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
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    state: Option<WireFragment<'a>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    more: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request: Option<Cow<'a, CausalContext>>,
}

#[derive(Serialize, Deserialize)]
struct WireFragment<'a> {
    seen: Cow<'a, CausalContext>,
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
    pub(super) fn state(state: Fragment, more: bool) -> Self {
        Self { state: Some(state), more, request: None }
    }

    pub(super) fn request(known: CausalContext) -> Self {
        Self { request: Some(known), ..Self::default() }
    }

    /// Returns the message as JSON.
    pub(crate) fn encode(&self) -> String {
        let wire = WireMessage {
            v: VERSION,
            state: self.state.as_ref().map(WireFragment::new),
            more: self.more,
            request: self.request.as_ref().map(Cow::Borrowed),
        };
        serde_json::to_string(&wire).expect("integers, strings and raw JSON serialize")
    }

    /// Decodes a message of a replica.
    pub(crate) fn decode(bytes: &[u8], from: Replica) -> Result<Self, DecodeError> {
        ensure(bytes.len() <= MAX_MESSAGE, "message too large")?;
        let malformed = |_| DecodeError("not a tracker message");
        let Header { v } = serde_json::from_slice(bytes).map_err(malformed)?;
        ensure(v == VERSION, "unknown version")?;
        let wire: WireMessage<'_> = serde_json::from_slice(bytes).map_err(malformed)?;
        let state = wire.state.map(|state| state.decode(from)).transpose()?;
        Ok(Self { state, more: wire.more, request: wire.request.map(Cow::into_owned) })
    }

    /// Removes the entries that are not `accepted`, and returns how many these are. The replica
    /// takes them for entries that came and went.
    pub(crate) fn retain(&mut self, accepted: impl FnMut(&Entry) -> bool) -> usize {
        let Some(Fragment { entries, .. }) = &mut self.state else { return 0 };
        let before = entries.len();
        entries.retain(accepted);
        before - entries.len()
    }
}

impl<'a> WireFragment<'a> {
    fn new(Fragment { context, entries }: &'a Fragment) -> Self {
        let entry = |entry: &'a Entry| WireEntry {
            n: entry.dot(),
            age: entry.timestamp(),
            topic: Cow::Borrowed(entry.topic()),
            key: Cow::Borrowed(entry.key()),
            meta: json_object(entry.meta()).expect("a meta is a JSON object"),
            prev: entry.prev().cloned(),
        };
        Self { seen: Cow::Borrowed(context), entries: entries.iter().map(entry).collect() }
    }

    fn decode(self, from: Replica) -> Result<Fragment, DecodeError> {
        let Self { seen, entries } = self;
        let context = seen.into_owned();
        let is_ascending = entries.windows(2).all(|pair| pair[0].n < pair[1].n);
        ensure(is_ascending, "entries not in ascending order")?;
        let is_observed = entries.iter().all(|entry| context.contains(entry.n));
        ensure(is_observed, "entry outside the fragment's context")?;
        let entries = entries.into_iter().map(|entry| entry.decode(from));
        Ok(Fragment { entries: entries.collect::<Result<_, _>>()?, context })
    }
}

impl WireEntry<'_> {
    fn decode(self, from: Replica) -> Result<Entry, DecodeError> {
        let Self { n: dot, age: timestamp, topic, key, meta, prev } = self;
        ensure(timestamp <= MAX_COUNTER, "integer out of range")?;
        ensure(topic.len() <= MAX_TEXT && key.len() <= MAX_TEXT, "topic or key too long")?;
        ensure(meta.get().len() <= MAX_META, "meta too long")?;
        ensure(meta.get().starts_with('{'), "meta is not an object")?;
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_ref = |prev: &SmolStr| prev.len() == 16 && prev.bytes().all(is_base64url);
        ensure(prev.iter().all(is_ref), "prev is not a phx_ref")?;
        let (topic, key, meta) = (topic.into(), key.into(), meta.get().into());
        Ok(Entry::new(from, dot, Fields { timestamp, topic, key, meta, prev }))
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for DecodeError {}

fn ensure(condition: bool, error: &'static str) -> Result<(), DecodeError> {
    if condition { Ok(()) } else { Err(DecodeError(error)) }
}
