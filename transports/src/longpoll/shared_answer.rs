//! One rendered response for all polls that are answered alike.

use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use tokio::time::Instant;

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
    /// Only of a response of more than [`BUFFERED`].
    released: Option<Released>,
}

/// The bytes of a response, which count against the memory of the endpoint until they are written.
#[derive(Debug)]
struct Body {
    bytes: Vec<u8>,
    released: Option<Released>,
    _reservation: Option<Reservation>,
}

/// When the bytes of a response were written or dropped, for the last of those it was sent to.
type Released = Arc<OnceLock<Instant>>;

struct Shared(Arc<Body>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(released) = &self.released {
            let _ = released.set(Instant::now());
        }
    }
}

impl SharedAnswer {
    /// Returns when the last response was written or dropped, as far as `now`; `None` if the buffers
    /// of the network take it at once.
    pub(super) fn written(&self, now: Instant) -> Option<Instant> {
        let released = self.released.as_ref()?;
        Some(released.get().map_or(now, |at| (*at).min(now)))
    }

    /// Returns the response with these messages, if it exists.
    pub(super) fn get(&self, range: (u64, u64)) -> Option<Bytes> {
        let body = self.body.upgrade().filter(|_| range == self.range)?;
        Some(Bytes::from_owner(Shared(body)))
    }

    /// Shares a response, unless another thread has rendered the same meanwhile, and reserves what it
    /// holds from the account of the session.
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
            reservation.set(bytes.len());
        }
        let released = (bytes.len() > BUFFERED).then(Released::default);
        let body = Arc::new(Body { bytes, released: released.clone(), _reservation: reservation });
        *self = Self { range, body: Arc::downgrade(&body), released };
        Bytes::from_owner(Shared(body))
    }
}

/// How many bytes the buffers of the network may hold that a server has written. All responses but
/// those of a single large message are smaller.
pub(super) const BUFFERED: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    #[test]
    fn a_response_is_shared_until_something_changes_or_nobody_has_it() {
        let mut shared = SharedAnswer::default();
        let memory = Memory::new(usize::MAX);
        let mut insert = |size| shared.insert((0, 1), vec![b'a'; size], Some(memory.account()));
        let first = insert(10_000);
        let again = [insert(10_000), shared.get((0, 1)).unwrap()];
        assert!(again.iter().all(|again| again.as_ptr() == first.as_ptr()));
        assert_eq!(shared.get((0, 2)), None);
        assert!((10_000..15_000).contains(&memory.reserved()), "once: {}", memory.reserved());
        drop((first, again));
        assert_eq!(memory.reserved(), 0);
        assert_eq!(shared.get((0, 1)), None);
        assert_eq!(shared.body.strong_count(), 0);
    }
}
