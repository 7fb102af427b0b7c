//! One rendered response for all polls that are answered alike.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use crate::memory::{Account, Reservation};

/// The last response that was rendered, for as long as it is being sent to anyone.
///
/// A poll may be repeated over many connections that do not read: they share the bytes, which are
/// freed with the last of them.
#[derive(Debug, Default)]
pub(super) struct SharedAnswer {
    /// The positions of the messages in the response: the first one, and the one behind the last.
    range: (u64, u64),
    body: Weak<Body>,
}

#[derive(Debug)]
struct Body {
    bytes: Vec<u8>,
    _reservation: Option<Reservation>,
}

struct Shared(Arc<Body>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl SharedAnswer {
    /// Returns the response with these messages, if it exists.
    pub(super) fn get(&self, range: (u64, u64)) -> Option<Bytes> {
        let body = self.body.upgrade().filter(|_| range == self.range)?;
        Some(Bytes::from_owner(Shared(body)))
    }

    /// Shares a response, unless another thread has rendered the same meanwhile. It is reserved from
    /// the account.
    pub(super) fn insert(
        &mut self,
        range: (u64, u64),
        bytes: Vec<u8>,
        account: Option<Arc<Account>>,
    ) -> Bytes {
        if let Some(shared) = self.get(range) {
            return shared;
        }
        let mut reservation = account.map(Reservation::new);
        if let Some(reservation) = &mut reservation {
            reservation.set(bytes.capacity());
        }
        let body = Arc::new(Body { bytes, _reservation: reservation });
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
        let first = shared.insert((0, 1), b"first".to_vec(), None);
        let again = [shared.get((0, 1)).unwrap(), shared.insert((0, 1), b"first".to_vec(), None)];
        assert!(again.iter().all(|again| again.as_ptr() == first.as_ptr()));
        assert_eq!(shared.get((0, 2)), None);
        drop((first, again));
        assert_eq!(shared.get((0, 1)), None);
        assert_eq!(shared.body.strong_count(), 0);
    }
}
