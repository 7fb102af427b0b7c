//! [`SessionRecord`]: what the store knows of a session.

use bytes::Bytes;
use prost::Message;
use sha1::{Digest, Sha1};

use super::left::Left;
use crate::adapter::NodeId;

/// Which node has a session. A version byte precedes it in the store.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct SessionRecord {
    #[prost(fixed64, tag = "1")]
    owner: u64,
    /// Grows with every change of the owner. Of two nodes that both believe to have the session, the one with the higher
    /// generation is right.
    #[prost(uint64, tag = "2")]
    pub(super) generation: u64,
    /// The [hash](hash_socket) of the socket id.
    #[prost(fixed64, tag = "3")]
    pub(super) socket: u64,
    #[prost(message, optional, tag = "4")]
    pub(super) deposit: Option<Deposit>,
    /// What the next node needs to know if this one dies.
    #[prost(message, optional, tag = "5")]
    pub(super) left: Option<Left>,
}

/// A session that its node has left behind.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Deposit {
    /// What continues it on another node.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) state: Bytes,
    /// When the session ends, in microseconds since the Unix epoch.
    #[prost(uint64, tag = "2")]
    pub(super) expires: u64,
}

/// The version that this release writes, and the only one that it reads.
const VERSION: u8 = 1;

impl SessionRecord {
    pub(super) fn new(owner: NodeId, generation: u64, socket: u64) -> Self {
        Self { owner: owner.0, generation, socket, deposit: None, left: None }
    }

    pub(super) fn owner(&self) -> NodeId {
        NodeId(self.owner)
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut value = Vec::with_capacity(1 + self.encoded_len());
        value.push(VERSION);
        self.encode_raw(&mut value);
        value.into()
    }

    /// Reads a record. `None` if another release or something else has written it: then it counts as none, and is
    /// replaced.
    pub(super) fn decode(mut value: Bytes) -> Option<Self> {
        let is_known = value.first() == Some(&VERSION);
        is_known.then(|| Message::decode(value.split_off(1)).ok()).flatten()
    }
}

/// The key of a session's record. Endpoints are numbered in the order in which they are built.
pub(super) fn key(endpoint: u32, id: &str) -> String {
    format!("s.{endpoint}.{id}")
}

/// Hashes a socket id, so that the store does not tell who has a session: the first 64 bits of the SHA-1 of the session
/// id, a byte that says whether there is a socket id, and that. All nodes have to agree on it.
pub(super) fn hash_socket(id: &str, socket_id: Option<&str>) -> u64 {
    let hash = Sha1::new()
        .chain_update(id)
        .chain_update([u8::from(socket_id.is_some())])
        .chain_update(socket_id.unwrap_or_default())
        .finalize();
    hash.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

/// The generation that follows on another: at least the time, in microseconds since the Unix epoch, so that a later owner
/// has the higher one even if the store has lost the record of an earlier one.
pub(super) fn generation_after(generation: u64, time: u64) -> u64 {
    time.max(generation.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_its_bytes() {
        let mut record = SessionRecord::new(NodeId(0x0102_0304_0506_0708), 300, 9);
        let bytes = b"\x01\x09\x08\x07\x06\x05\x04\x03\x02\x01\x10\xac\x02\x19\x09\0\0\0\0\0\0\0";
        assert_eq!(record.encode(), &bytes[..]);
        assert_eq!(SessionRecord::decode(record.encode()), Some(record.clone()));
        record.deposit = Some(Deposit { state: "xy".into(), expires: 7 });
        let bytes = [&bytes[..], b"\x22\x06\x0a\x02xy\x10\x07"].concat();
        assert_eq!(record.encode(), bytes);
        assert_eq!(SessionRecord::decode(bytes.into()), Some(record));
    }

    #[test]
    fn what_another_release_has_written_counts_as_nothing() {
        let mut value = SessionRecord::new(NodeId(1), 1, 1).encode().to_vec();
        value[0] = 2;
        for value in [Vec::new(), value, b"\x01\x09".to_vec(), b"garbage".to_vec()] {
            assert_eq!(SessionRecord::decode(value.into()), None);
        }
    }

    #[test]
    fn the_hash_of_a_socket_id_is_the_same_on_all_nodes() {
        let id = "0123456789abcdefghij";
        let hash = |socket_id| hash_socket(id, socket_id);
        assert_eq!(hash(Some("ann")), 0x6ee3_e076_e4f4_bdb5);
        assert_eq!(hash(None), 0x03fb_49f6_e10e_deb9);
        assert_ne!(hash(Some("")), hash(None));
        assert_ne!(hash_socket("0123456789abcdefghik", Some("ann")), hash(Some("ann")));
    }

    #[test]
    fn a_generation_is_above_the_one_before_and_no_earlier_than_its_time() {
        assert_eq!(generation_after(0, 5), 5);
        assert_eq!(generation_after(5, 5), 6);
        assert_eq!(generation_after(u64::MAX, 5), u64::MAX);
    }
}
