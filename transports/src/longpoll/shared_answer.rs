//! One rendered response for all polls that are answered alike.

use std::sync::{Arc, Weak};

use bytes::Bytes;

/// The last response that was rendered, for as long as it is being sent to anyone.
///
/// A poll may be repeated over many connections that do not read: they share the bytes, which are
/// freed with the last of them.
#[derive(Debug, Default)]
pub(super) struct SharedAnswer {
    /// The positions of the messages in the response: the first one, and the one behind the last.
    range: (u64, u64),
    body: Weak<Vec<u8>>,
}

struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl SharedAnswer {
    /// Returns the response with these messages, if it exists.
    pub(super) fn get(&self, range: (u64, u64)) -> Option<Bytes> {
        let body = self.body.upgrade().filter(|_| range == self.range)?;
        Some(Bytes::from_owner(Shared(body)))
    }

    /// Shares a response, unless another thread has rendered the same meanwhile.
    pub(super) fn insert(&mut self, range: (u64, u64), body: Vec<u8>) -> Bytes {
        if let Some(shared) = self.get(range) {
            return shared;
        }
        let body = Arc::new(body);
        *self = Self { range, body: Arc::downgrade(&body) };
        Bytes::from_owner(Shared(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_shared_until_something_changes_or_nobody_has_it() {
        let mut shared = SharedAnswer::default();
        let first = shared.insert((0, 1), b"first".to_vec());
        let again = [shared.get((0, 1)).unwrap(), shared.insert((0, 1), b"first".to_vec())];
        assert!(again.iter().all(|again| again.as_ptr() == first.as_ptr()));
        assert_eq!(shared.get((0, 2)), None);
        drop((first, again));
        assert_eq!(shared.get((0, 1)), None);
        assert_eq!(shared.body.strong_count(), 0);
    }
}
