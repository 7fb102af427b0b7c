//! What is tracked: entries, and how each is named.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha1::{Digest, Sha1};
use smol_str::SmolStr;

/// The text of a JSON object: what the application says of a presence, without `phx_ref`.
pub(crate) type Meta = Arc<str>;

/// Whoever tracks, a channel or a task: a number that this replica gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Owner(pub(crate) u64);

/// One life of a node. A restarted node has the same name and a higher incarnation, and what its
/// earlier ones tracked is gone for good.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Replica {
    /// At most 255 bytes.
    pub(crate) name: SmolStr,
    /// At most 2^53; milliseconds since 1970 at the start of the node do well.
    pub(crate) incarnation: u64,
}

/// One presence: a cheap clone, and the same value wherever it is seen.
///
/// Entries are compared by their place among the metas of a key: oldest first, in the same order
/// on all replicas.
#[derive(Clone)]
pub(crate) struct Entry(Arc<Fields>);

struct Fields {
    age: u64,
    replica: Replica,
    dot: u64,
    topic: SmolStr,
    key: SmolStr,
    meta: Meta,
    phx_ref: SmolStr,
    prev: Option<SmolStr>,
}

/// What an entry is made of, besides where it was made.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    /// When it was made, in Lamport's time: higher than all that its replica had seen.
    pub(super) age: u64,
    pub(super) topic: SmolStr,
    pub(super) key: SmolStr,
    pub(super) meta: Meta,
    pub(super) prev: Option<SmolStr>,
}

impl Entry {
    /// The entry that the operation `dot` of `replica` made.
    pub(super) fn new(replica: &Replica, dot: u64, parts: Parts) -> Self {
        let Parts { age, topic, key, meta, prev } = parts;
        let phx_ref = phx_ref(replica, dot);
        Self(Arc::new(Fields {
            age,
            replica: replica.clone(),
            dot,
            topic,
            key,
            meta,
            phx_ref,
            prev,
        }))
    }

    pub(crate) fn topic(&self) -> &SmolStr {
        &self.0.topic
    }

    pub(crate) fn key(&self) -> &SmolStr {
        &self.0.key
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.0.meta
    }

    /// 16 characters of base64url, of this entry alone.
    pub(crate) fn phx_ref(&self) -> &SmolStr {
        &self.0.phx_ref
    }

    /// The `phx_ref` of the entry that this one replaced.
    pub(crate) fn prev(&self) -> Option<&SmolStr> {
        self.0.prev.as_ref()
    }

    #[cfg(any(test, fuzzing, feature = "unstable-internals"))]
    pub(super) fn age(&self) -> u64 {
        self.0.age
    }

    #[cfg(any(test, fuzzing, feature = "unstable-internals"))]
    pub(super) fn dot(&self) -> u64 {
        self.0.dot
    }

    fn place(&self) -> (u64, &Replica, u64) {
        (self.0.age, &self.0.replica, self.0.dot)
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fields { replica, dot, topic, key, meta, .. } = &*self.0;
        write!(f, "{topic} {key} {meta} ({}.{} {dot})", replica.name, replica.incarnation)
    }
}

/// The text as JSON, if it is that of an object.
pub(super) fn as_object(text: &str) -> Option<&RawValue> {
    serde_json::from_str::<&RawValue>(text).ok().filter(|raw| raw.get().starts_with('{'))
}

/// All replicas derive the same one, so that it is not sent between them.
fn phx_ref(replica: &Replica, dot: u64) -> SmolStr {
    let mut hash = Sha1::new();
    hash.update(dot.to_be_bytes());
    hash.update(replica.incarnation.to_be_bytes());
    hash.update(replica.name.as_bytes());
    let mut text = [0; 16];
    let written = URL_SAFE_NO_PAD.encode_slice(&hash.finalize()[..12], &mut text);
    debug_assert_eq!(written, Ok(16));
    SmolStr::new(str::from_utf8(&text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, incarnation: u64, dot: u64) -> Entry {
        let parts = Parts {
            age: 1,
            topic: "room".into(),
            key: "ann".into(),
            meta: "{}".into(),
            prev: None,
        };
        Entry::new(&Replica { name: name.into(), incarnation }, dot, parts)
    }

    #[test]
    fn a_phx_ref_is_16_characters_of_base64url() {
        let entry = entry("one", 1, 1);
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert_eq!(entry.phx_ref().len(), 16);
        assert!(entry.phx_ref().bytes().all(is_base64url), "{}", entry.phx_ref());
    }

    #[test]
    fn a_phx_ref_differs_by_node_incarnation_and_operation() {
        let refs = [entry("one", 1, 1), entry("two", 1, 1), entry("one", 2, 1), entry("one", 1, 2)]
            .map(|entry| entry.phx_ref().clone());
        let unique: std::collections::HashSet<_> = refs.iter().collect();
        assert_eq!(unique.len(), 4);
    }

    #[test]
    fn a_phx_ref_is_the_same_in_every_version_of_this_program() {
        assert_eq!(entry("one", 1, 1).phx_ref(), "A8VfJ33OFuxIhoCQ");
    }
}
