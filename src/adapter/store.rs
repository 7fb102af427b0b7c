//! [`Store`]: small records that all nodes see, and that outlive the node that wrote them.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::BoxFuture;

/// Keeps small records for all nodes: which node has a resumable session, and sessions that a node has left behind.
///
/// An engine offers it through [`Adapter::store`](super::Adapter::store). Keys consist of letters, digits, `-`, `_` and
/// `.`; a value has at most 128 KiB. Records of different applications that share an engine do not meet.
///
/// Every call resolves within a second, with an error if the engine does not answer.
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Reads a record.
    ///
    /// # Errors
    /// If the engine is away or refuses.
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>>;

    /// Replaces a record, provided that it is still the one with the revision `seen`; with `None`, provided that there
    /// is none. A `value` of `None` removes it.
    ///
    /// The record is kept for `ttl` from now on, and may be forgotten after that.
    ///
    /// # Errors
    /// If the engine is away or refuses. The record may have been replaced all the same.
    fn replace<'a>(
        &'a self,
        key: &'a str,
        seen: Option<Revision>,
        value: Option<Bytes>,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Replaced, StoreError>>;
}

/// A record, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What was written.
    pub value: Bytes,
    /// Identifies what was written: another write, also of the same value, has another.
    pub revision: Revision,
}

/// Identifies the write of a record, among all writes of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision(pub u64);

/// The result of [`Store::replace`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// It was replaced, and this is the revision of the new record. After a removal it has no meaning.
    Yes(Revision),
    /// It was not: another record is there, or none.
    No(Option<Record>),
}

/// The engine does not answer, or refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError(String);

impl StoreError {
    /// Creates an error with a description.
    pub fn new(description: impl Into<String>) -> Self {
        Self(description.into())
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store is unavailable: {}", self.0)
    }
}

impl std::error::Error for StoreError {}
