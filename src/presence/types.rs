//! The values of presence: lists, diffs, and the metas in them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::config::Fetched;
use super::error::PresenceError;
use super::tracker::{Entry, Metas, Snapshot};

/// The presences of a topic by their keys, such as user ids.
///
/// Its JSON is what phoenix.js' `Presence` reads: `{"KEY":{"metas":[{"phx_ref":…}]}}`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Presences(BTreeMap<SmolStr, Present>);

/// The presences under one key: one for each tab, device or task that tracks it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Present {
    metas: Vec<Meta>,
    /// The fields from the fetch hook.
    #[serde(flatten)]
    fetched: Map<String, Value>,
}

/// The joins and leaves of one topic. An update is a leave of the old meta and a join of the new
/// one.
#[derive(Clone, Debug, Serialize)]
pub struct PresenceDiff {
    /// The topic.
    #[serde(skip)]
    pub topic: String,
    /// The presences that came.
    pub joins: Presences,
    /// The presences that went.
    pub leaves: Presences,
}

impl Presences {
    /// The number of keys.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether no key is present.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The presences under a key.
    pub fn get(&self, key: &str) -> Option<&Present> {
        self.0.get(key)
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(SmolStr::as_str)
    }

    /// The keys, in order, with their presences.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Present)> {
        self.0.iter().map(|(key, present)| (key.as_str(), present))
    }

    /// Adds the fields from the fetch hook.
    pub(super) fn add_fetched(&mut self, fetched: &Fetched) {
        for (key, present) in &mut self.0 {
            if let Some(Value::Object(fields)) = fetched.get(key.as_str()) {
                present.fetched.clone_from(fields);
                present.fetched.remove("metas");
            }
        }
    }
}

/// The metas of a key that comes several times follow each other.
impl FromIterator<Entry> for Presences {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        let mut all = Self::default();
        for entry in entries {
            all.0.entry(entry.key().clone()).or_default().metas.push(Meta(entry));
        }
        all
    }
}

impl From<&Snapshot> for Presences {
    fn from(snapshot: &Snapshot) -> Self {
        let present = |metas: &Metas| Present {
            metas: metas.iter().cloned().map(Meta).collect(),
            fetched: Map::new(),
        };
        Self(snapshot.iter().map(|(key, metas)| (key.clone(), present(metas))).collect())
    }
}

impl Present {
    /// The metas, oldest first.
    pub fn metas(&self) -> &[Meta] {
        &self.metas
    }

    /// A field from the fetch hook.
    pub fn fetched(&self, name: &str) -> Option<&Value> {
        self.fetched.get(name)
    }
}

/// The meta of one presence: the JSON object that was tracked, and a `phx_ref`. A cheap clone.
#[derive(Clone)]
pub struct Meta(Entry);

impl Meta {
    /// The id of this meta, unique and of 16 characters. An update gives the presence a new one.
    pub fn phx_ref(&self) -> &str {
        self.0.phx_ref()
    }

    /// The id of the meta that this one replaced in an update.
    pub fn phx_ref_prev(&self) -> Option<&str> {
        self.0.prev().map(SmolStr::as_str)
    }

    /// Parses the object that was tracked, without the refs.
    ///
    /// # Errors
    /// If it is not the JSON of a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.meta())
    }

    /// The JSON text that clients receive: the object that was tracked, with the refs added at its
    /// end.
    fn to_json(&self) -> String {
        let tracked: &str = self.0.meta();
        // Another node may have written it with spaces.
        let open = tracked.strip_suffix('}').unwrap_or(tracked).trim_end();
        let mut json = String::with_capacity(tracked.len() + 80);
        json.push_str(open);
        let mut add = |name, phx_ref| {
            // Refs are URL-safe base64, which needs no escapes.
            json.extend([if json.len() > 1 { ",\"" } else { "\"" }, name, "\":\"", phx_ref, "\""]);
        };
        add("phx_ref", self.phx_ref());
        if let Some(prev) = self.phx_ref_prev() {
            add("phx_ref_prev", prev);
        }
        json.push('}');
        json
    }
}

/// Serializes it as clients receive it: with `phx_ref`, and with `phx_ref_prev` after an update.
impl Serialize for Meta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_json()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

/// The argument of [`Presence::update`](crate::Presence::update): a new meta as a JSON value, or a
/// function that changes the old one.
pub trait MetaUpdate {
    /// Returns the new meta.
    fn update(self, old: Map<String, Value>) -> Value;
}

impl MetaUpdate for Value {
    fn update(self, _: Map<String, Value>) -> Value {
        self
    }
}

impl<F: FnOnce(&mut Map<String, Value>)> MetaUpdate for F {
    fn update(self, mut old: Map<String, Value>) -> Value {
        self(&mut old);
        Value::Object(old)
    }
}

/// The longest key in bytes: it is repeated in every diff.
const MAX_KEY: usize = 255;

/// The names that every JavaScript object inherits, and `prototype`. phoenix.js before 1.8.9 looks keys
/// up in plain objects, and takes what it finds under these names for a presence.
const RESERVED_KEYS: [&str; 13] = [
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "prototype",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// Validates a key.
pub(super) fn validate_key(key: &str) -> Result<(), PresenceError> {
    if RESERVED_KEYS.contains(&key) {
        Err(PresenceError::ReservedKey)
    } else if key.len() > MAX_KEY {
        Err(PresenceError::KeyTooLong)
    } else {
        Ok(())
    }
}

/// Encodes a meta as JSON text of at most `max` bytes, without refs: those are the tracker's.
pub(super) fn encode_meta(meta: Value, max: usize) -> Result<String, PresenceError> {
    let Value::Object(mut meta) = meta else { return Err(PresenceError::NotAnObject) };
    meta.remove("phx_ref");
    meta.remove("phx_ref_prev");
    let text = Value::Object(meta).to_string();
    if text.len() > max { Err(PresenceError::MetaTooLong) } else { Ok(text) }
}
