//! Entries: the elements of the set, and their identity.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::value::RawValue;
use sha1::{Digest, Sha1};
use smol_str::SmolStr;

use crate::adapter::NodeId;

/// The maximum length of a topic or a key, in bytes.
pub(crate) const MAX_TEXT: usize = 4096;

/// The maximum length of a meta, in bytes.
pub(crate) const MAX_META: usize = 1024 * 1024;

/// The largest dot or timestamp. Up to here every integer is exact as an IEEE 754
/// double, the type that many JSON implementations read numbers into (RFC 8259, section 6).
pub(super) const MAX_COUNTER: u64 = 1 << 53;

/// The application's metadata of a presence: the text of a JSON object, without `phx_ref`.
pub(crate) type Meta = Arc<str>;

/// The id of an entry's owner, such as a channel or a task. Unique within a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Owner(pub(crate) u64);

/// One shard of one node. A node that restarts is another node, with another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Replica {
    pub(crate) node: NodeId,
    pub(crate) shard: u8,
}

/// The node and the number of the shard, such as `00000000000000a7/3`.
impl fmt::Display for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.node, self.shard)
    }
}

/// A presence: one owner, tracked under one key of one topic.
///
/// Entries are immutable and cheap to clone. They are ordered by Lamport timestamp, with ties
/// broken by replica and dot, so every replica lists the metas of a key in the same order, oldest
/// first.
#[derive(Clone)]
pub(crate) struct Entry(Arc<Inner>);

struct Inner {
    replica: Replica,
    dot: u64,
    phx_ref: SmolStr,
    fields: Fields,
}

/// The contents of an entry, apart from its identity (replica and dot).
#[derive(Clone, Debug)]
pub(super) struct Fields {
    /// The Lamport timestamp: higher than that of every entry the replica had observed when this
    /// one was tracked.
    pub(super) timestamp: u64,
    pub(super) topic: SmolStr,
    pub(super) key: SmolStr,
    pub(super) meta: Meta,
    /// The `phx_ref` of the entry that this one replaces.
    pub(super) prev: Option<SmolStr>,
}

impl Entry {
    /// Creates the entry added by the operation `dot` of `replica`.
    pub(super) fn new(replica: Replica, dot: u64, fields: Fields) -> Self {
        let phx_ref = phx_ref(replica, dot);
        Self(Arc::new(Inner { replica, dot, phx_ref, fields }))
    }

    pub(crate) fn topic(&self) -> &SmolStr {
        &self.0.fields.topic
    }

    pub(crate) fn key(&self) -> &SmolStr {
        &self.0.fields.key
    }

    pub(crate) fn meta(&self) -> &Meta {
        &self.0.fields.meta
    }

    /// The entry's unique reference: 16 characters of base64url.
    pub(crate) fn phx_ref(&self) -> &SmolStr {
        &self.0.phx_ref
    }

    /// The `phx_ref` of the entry that this one replaced.
    pub(crate) fn prev(&self) -> Option<&SmolStr> {
        self.0.fields.prev.as_ref()
    }

    pub(super) fn timestamp(&self) -> u64 {
        self.0.fields.timestamp
    }

    /// The dot of the operation that added this entry.
    pub(super) fn dot(&self) -> u64 {
        self.0.dot
    }

    fn sort_key(&self) -> (u64, Replica, u64) {
        (self.timestamp(), self.0.replica, self.dot())
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sort_key().cmp(&other.sort_key())
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
        let Inner { replica, dot, fields: Fields { topic, key, meta, .. }, .. } = &*self.0;
        write!(f, "{topic} {key} {meta} ({replica} {dot})")
    }
}

/// Parses the text as JSON and returns it if it is an object.
pub(super) fn json_object(text: &str) -> Option<&RawValue> {
    serde_json::from_str::<&RawValue>(text).ok().filter(|raw| raw.get().starts_with('{'))
}

/// Derives the reference from the entry's identity, so that replicas need not exchange it.
fn phx_ref(replica: Replica, dot: u64) -> SmolStr {
    let mut hash = Sha1::new();
    hash.update(dot.to_be_bytes());
    hash.update(replica.node.0.to_be_bytes());
    hash.update([replica.shard]);
    let mut text = [0; 16];
    let written = URL_SAFE_NO_PAD.encode_slice(&hash.finalize()[..12], &mut text);
    debug_assert_eq!(written, Ok(16));
    SmolStr::new(str::from_utf8(&text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(node: u64, shard: u8, dot: u64) -> Entry {
        let fields = Fields {
            timestamp: 1,
            topic: "room".into(),
            key: "ann".into(),
            meta: "{}".into(),
            prev: None,
        };
        Entry::new(Replica { node: NodeId(node), shard }, dot, fields)
    }

    #[test]
    fn a_phx_ref_is_16_characters_of_base64url() {
        let entry = entry(1, 1, 1);
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        assert_eq!(entry.phx_ref().len(), 16);
        assert!(entry.phx_ref().bytes().all(is_base64url), "{}", entry.phx_ref());
    }

    #[test]
    fn a_phx_ref_depends_on_node_shard_and_dot() {
        let refs = [entry(1, 1, 1), entry(2, 1, 1), entry(1, 2, 1), entry(1, 1, 2)]
            .map(|entry| entry.phx_ref().clone());
        let unique: std::collections::HashSet<_> = refs.iter().collect();
        assert_eq!(unique.len(), 4);
    }

    #[test]
    fn nodes_of_other_releases_derive_the_same_phx_ref() {
        assert_eq!(entry(1, 1, 1).phx_ref(), "lNFICDXDI86IMpnG");
    }
}
