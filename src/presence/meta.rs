//! What is said of someone who is present, and what may not be.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use smol_str::SmolStr;

use super::PresenceError;
use super::tracker::Entry;

/// One appearance of a key: what whoever tracked it said of it, and the `phx_ref` that names this
/// very saying. A cheap clone.
#[derive(Clone)]
pub struct Meta(Entry);

impl Meta {
    pub(super) fn new(entry: Entry) -> Self {
        Self(entry)
    }

    /// What names this meta among all others: 16 characters. An update gives it a new one.
    pub fn phx_ref(&self) -> &str {
        self.0.phx_ref()
    }

    /// What named the meta that this one previous.
    pub fn phx_ref_prev(&self) -> Option<&str> {
        self.0.prev().map(SmolStr::as_str)
    }

    /// What was tracked, without the refs.
    ///
    /// # Errors
    /// If it is no `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.meta())
    }

    /// The JSON text that clients receive: what was tracked, and then the refs.
    fn to_json(&self) -> String {
        let tracked: &str = self.0.meta();
        let open = tracked.strip_suffix('}').unwrap_or(tracked);
        let mut json = String::with_capacity(tracked.len() + 80);
        json.push_str(open);
        let mut add = |name, phx_ref| {
            // The refs are of the URL-safe base64 alphabet: nothing in them needs an escape.
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

/// As clients receive it: with `phx_ref`, and `phx_ref_prev` after an update.
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

/// What [`Presence::update`](super::Presence::update) takes: a new meta as a JSON value, or a function
/// that changes the old one.
pub trait MetaUpdate {
    /// What becomes of the old meta.
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

/// The text of a meta. The refs are the tracker's to give: they are taken out.
pub(super) fn checked_meta(meta: Value, longest: usize) -> Result<String, PresenceError> {
    let Value::Object(mut meta) = meta else { return Err(PresenceError::NotAnObject) };
    meta.remove("phx_ref");
    meta.remove("phx_ref_prev");
    let text = Value::Object(meta).to_string();
    if text.len() > longest { Err(PresenceError::MetaTooLong) } else { Ok(text) }
}

/// A key becomes the name of a property in a browser, where some names are not free, and in every
/// diff.
pub(super) fn check_key(key: &str) -> Result<(), PresenceError> {
    match key {
        "__proto__" | "constructor" | "prototype" => Err(PresenceError::ReservedKey),
        _ if key.len() > LONGEST_KEY => Err(PresenceError::KeyTooLong),
        _ => Ok(()),
    }
}

const LONGEST_KEY: usize = 255;
