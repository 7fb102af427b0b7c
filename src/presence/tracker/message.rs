//! What replicas say to each other: JSON, with a version.
//!
//! Later versions may add fields, which this one ignores. A change that older readers would
//! misunderstand needs a new version, which they refuse.

use std::borrow::Cow;
use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::clock::Seen;
use super::entry::{Entry, Parts, Replica, as_object};
use super::replicas::MAX_REPLICAS;
use super::state::Fragment;
use super::{MAX_META, MAX_NUMBER, MAX_TEXT, Malformed};

const VERSION: u64 = 1;
const MAX_NAME: usize = 255;
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// One message, of any of these parts.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) from: Replica,
    /// How far the sender has seen each replica without a gap.
    pub(super) clock: Vec<(Replica, u64)>,
    /// One for a node at most.
    pub(super) fragments: Vec<Fragment>,
    /// Whether other messages carry the rest of the fragments.
    pub(super) more: bool,
    /// Of which replicas more is wanted than the sender has seen.
    pub(super) request: Vec<(Replica, Seen)>,
    /// The receiver, if the sender has given it up for good, and the newest incarnation of its name
    /// that is known.
    pub(super) gone: Option<(Replica, u64)>,
}

#[derive(Deserialize)]
struct Head {
    v: u64,
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
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
    seen: Seen,
}

#[derive(Serialize, Deserialize)]
struct WireFragment<'a> {
    of: Replica,
    seen: Seen,
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
        let request =
            |(of, seen): &(Replica, Seen)| WireRequest { of: of.clone(), seen: seen.clone() };
        let wire = Wire {
            v: VERSION,
            from: self.from.clone(),
            clock: self.clock.iter().map(clock).collect(),
            states: self.fragments.iter().map(WireFragment::new).collect(),
            more: self.more,
            request: self.request.iter().map(request).collect(),
            gone: self
                .gone
                .as_ref()
                .map(|(of, newest)| WireGone { of: of.clone(), newest: *newest }),
        };
        serde_json::to_string(&wire).expect("numbers, texts and JSON make JSON")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        check(bytes.len() <= MAX_MESSAGE, "the message is too large")?;
        let head: Head =
            serde_json::from_slice(bytes).map_err(|_| Malformed("this is no message"))?;
        check(head.v == VERSION, "the version is unknown")?;
        let wire: Wire<'_> =
            serde_json::from_slice(bytes).map_err(|_| Malformed("this is no message"))?;
        let count = |list: usize| check(list <= MAX_REPLICAS, "there are too many replicas");
        count(wire.clock.len())?;
        count(wire.states.len())?;
        count(wire.request.len())?;
        is_unique(wire.states.iter().map(|state| &state.of))?;
        is_unique(wire.request.iter().map(|request| &request.of))?;
        wire.clock.iter().try_for_each(|clock| is_number(clock.to).and(is_replica(&clock.of)))?;
        wire.request.iter().try_for_each(|request| is_replica(&request.of))?;
        let is_gone = |gone: &WireGone| is_number(gone.newest).and(is_replica(&gone.of));
        wire.gone.iter().try_for_each(is_gone)?;
        is_replica(&wire.from)?;
        Ok(Self {
            from: wire.from,
            clock: wire.clock.into_iter().map(|clock| (clock.of, clock.to)).collect(),
            fragments: wire.states.into_iter().map(WireFragment::read).collect::<Result<_, _>>()?,
            more: wire.more,
            request: wire.request.into_iter().map(|request| (request.of, request.seen)).collect(),
            gone: wire.gone.map(|gone| (gone.of, gone.newest)),
        })
    }
}

impl<'a> WireFragment<'a> {
    fn new(Fragment { replica, seen, entries }: &'a Fragment) -> Self {
        let entry = |entry: &'a Entry| WireEntry {
            n: entry.dot(),
            age: entry.age(),
            topic: Cow::Borrowed(entry.topic()),
            key: Cow::Borrowed(entry.key()),
            meta: as_object(entry.meta()).expect("a meta is an object"),
            prev: entry.prev().cloned(),
        };
        let entries = entries.iter().map(entry).collect();
        Self { of: replica.clone(), seen: seen.clone(), entries }
    }

    fn read(self) -> Result<Fragment, Malformed> {
        let Self { of: replica, seen, entries } = self;
        is_replica(&replica)?;
        let ascends = entries.windows(2).all(|pair| pair[0].n < pair[1].n);
        check(ascends, "the entries do not ascend")?;
        let is_seen = entries.iter().all(|entry| seen.contains(entry.n));
        check(is_seen, "an entry is none of what was seen")?;
        let entries = entries.into_iter().map(|entry| entry.read(&replica));
        Ok(Fragment { entries: entries.collect::<Result<_, _>>()?, seen, replica })
    }
}

impl WireEntry<'_> {
    fn read(self, replica: &Replica) -> Result<Entry, Malformed> {
        let Self { n, age, topic, key, meta, prev } = self;
        is_number(age)?;
        check(topic.len() <= MAX_TEXT && key.len() <= MAX_TEXT, "a topic or a key is too long")?;
        check(meta.get().len() <= MAX_META, "a meta is too long")?;
        check(meta.get().starts_with('{'), "a meta is no object")?;
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_ref = |prev: &SmolStr| prev.len() == 16 && prev.bytes().all(is_base64url);
        check(prev.iter().all(is_ref), "a prev is no phx_ref")?;
        let (topic, key, meta) = (topic.into(), key.into(), meta.get().into());
        Ok(Entry::new(replica, n, Parts { age, topic, key, meta, prev }))
    }
}

fn check(is_right: bool, otherwise: &'static str) -> Result<(), Malformed> {
    if is_right { Ok(()) } else { Err(Malformed(otherwise)) }
}

fn is_number(number: u64) -> Result<(), Malformed> {
    check(number <= MAX_NUMBER, "a number is too large")
}

fn is_replica(Replica { name, incarnation }: &Replica) -> Result<(), Malformed> {
    check(name.len() <= MAX_NAME, "a name is too long").and(is_number(*incarnation))
}

fn is_unique<'a>(replicas: impl Iterator<Item = &'a Replica>) -> Result<(), Malformed> {
    let mut names = HashSet::new();
    let mut replicas = replicas;
    check(replicas.all(|replica| names.insert(&replica.name)), "a node is there twice")
}
