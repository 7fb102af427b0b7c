//! [`Parts`]: bodies that are too long for one frame, cut and put together again.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::wire::Part;
use crate::adapter::NodeId;

/// Cuts a body into parts of at most `size` bytes.
pub(super) fn cut(id: u64, mut body: Bytes, size: usize) -> impl Iterator<Item = Part> {
    let size = size.max(1);
    let count = body.len().div_ceil(size) as u32;
    (0..count).map(move |index| {
        let bytes = body.split_to(size.min(body.len()));
        Part { id, index, count, bytes, ..Part::default() }
    })
}

/// The bodies of which some parts have come. Plain code: time is an argument.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    unfinished: BTreeMap<(NodeId, u64), Unfinished>,
    /// Those discarded since the last [`expire`](Self::expire).
    discarded: Discarded,
}

#[derive(Debug)]
struct Unfinished {
    count: u32,
    next: u32,
    bytes: BytesMut,
    since: Duration,
    is_private: bool,
}

/// How many bodies were discarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Discarded {
    /// Those to all nodes, or all that hear a topic.
    pub(crate) shared: usize,
    /// Those to this node alone.
    pub(crate) private: usize,
}

/// The longest body that is sent. It has room in the queue of an adapter, and several have room here.
pub(super) const LONGEST: usize = 6 << 20;

/// How many bytes of unfinished bodies of one sender are kept.
pub(crate) const MAX_BYTES: usize = 16 << 20;

/// How many unfinished bodies are kept.
pub(crate) const MAX_UNFINISHED: usize = 1024;

/// How long a body may take from its first part to its last.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(10);

impl Parts {
    /// Adds a part. Returns the body with the last one. Parts that come in another order than they were cut in, or
    /// would exceed [`MAX_BYTES`], discard the body, and so does one body more than [`MAX_UNFINISHED`].
    pub(crate) fn add(&mut self, from: NodeId, part: &Part, now: Duration) -> Option<Bytes> {
        let key = (from, part.id);
        if part.index == 0 {
            let is_full = self.unfinished.len() >= MAX_UNFINISHED;
            if is_full && !self.unfinished.contains_key(&key) {
                self.discarded.add(part.is_private);
                return None;
            }
            let (count, is_private) = (part.count, part.is_private);
            let body =
                Unfinished { count, next: 0, bytes: BytesMut::new(), since: now, is_private };
            let replaced = self.unfinished.insert(key, body);
            replaced.iter().for_each(|body| self.discarded.add(body.is_private));
        }
        let held = self.held(from);
        let body = self.unfinished.get_mut(&key)?;
        let fits = held.saturating_add(part.bytes.len()) <= MAX_BYTES;
        if body.next != part.index || body.count != part.count || part.bytes.is_empty() || !fits {
            self.discarded.add(body.is_private);
            self.unfinished.remove(&key);
            return None;
        }
        body.bytes.extend_from_slice(&part.bytes);
        body.next += 1;
        if body.next < body.count {
            return None;
        }
        self.unfinished.remove(&key).map(|body| body.bytes.freeze())
    }

    /// Discards the bodies that take too long. Returns how many were discarded since the last time.
    pub(crate) fn expire(&mut self, now: Duration) -> Discarded {
        self.unfinished.retain(|_, body| {
            let is_young = now.saturating_sub(body.since) < MAX_AGE;
            if !is_young {
                self.discarded.add(body.is_private);
            }
            is_young
        });
        std::mem::take(&mut self.discarded)
    }

    /// Returns how many bodies are unfinished, and how many bytes they have.
    #[cfg(any(test, feature = "unstable-internals"))]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.unfinished.len(), self.unfinished.values().map(|body| body.bytes.len()).sum())
    }

    fn held(&self, from: NodeId) -> usize {
        let of_sender = self.unfinished.range((from, 0)..=(from, u64::MAX));
        of_sender.map(|(_, body)| body.bytes.len()).sum()
    }
}

impl Discarded {
    fn add(&mut self, is_private: bool) {
        *(if is_private { &mut self.private } else { &mut self.shared }) += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: NodeId = NodeId(1);

    fn parts(id: u64, size: usize) -> Vec<Part> {
        cut(id, Bytes::from_static(b"0123456789"), size).collect()
    }

    fn add(parts: &mut Parts, part: &Part) -> Option<Bytes> {
        parts.add(ANN, part, Duration::ZERO)
    }

    #[test]
    fn a_body_is_put_together_whatever_the_size_of_its_parts() {
        for size in 1..12 {
            let mut all = Parts::default();
            let done: Vec<_> =
                parts(1, size).iter().filter_map(|part| add(&mut all, part)).collect();
            assert_eq!(done, ["0123456789"], "{size}");
            assert!(all.unfinished.is_empty());
        }
    }

    #[test]
    fn parts_of_several_bodies_and_senders_do_not_mix() {
        let mut all = Parts::default();
        let (one, two) = (parts(1, 6), parts(2, 6));
        assert_eq!([add(&mut all, &one[0]), add(&mut all, &two[0])], [None, None]);
        assert_eq!(all.add(NodeId(2), &one[1], Duration::ZERO), None);
        assert_eq!(add(&mut all, &one[1]).as_deref(), Some(&b"0123456789"[..]));
        assert_eq!(add(&mut all, &two[1]).as_deref(), Some(&b"0123456789"[..]));
    }

    #[test]
    fn a_body_with_a_missing_repeated_or_contradictory_part_is_discarded() {
        let whole = parts(1, 3);
        for order in [[0, 2, 3], [0, 0, 2], [1, 2, 3], [0, 1, 1]] {
            let mut all = Parts::default();
            assert!(order.iter().all(|index| add(&mut all, &whole[*index]).is_none()));
        }
        let mut all = Parts::default();
        add(&mut all, &whole[0]);
        add(&mut all, &Part { count: 2, ..whole[1].clone() });
        assert!(all.unfinished.is_empty());
    }

    #[test]
    fn what_one_sender_may_leave_unfinished_is_bounded() {
        let mut all = Parts::default();
        let bytes = Bytes::from(vec![0; MAX_BYTES / 4]);
        for id in 0..100 {
            add(&mut all, &Part { id, count: 2, bytes: bytes.clone(), ..Part::default() });
        }
        assert_eq!(all.held(ANN), MAX_BYTES);
        assert_eq!(all.unfinished.len(), 4);
    }

    #[test]
    fn how_many_bodies_may_be_unfinished_is_bounded_and_what_is_discarded_is_counted() {
        let mut all = Parts::default();
        for id in 0..2 * MAX_UNFINISHED as u64 {
            add(&mut all, &parts(id, 6)[0]);
        }
        assert_eq!(all.size().0, MAX_UNFINISHED);
        assert_eq!(all.expire(Duration::ZERO).shared, MAX_UNFINISHED);
        assert!(add(&mut all, &parts(0, 6)[1]).is_some());
        assert_eq!(all.expire(Duration::ZERO), Discarded::default());
    }

    #[test]
    fn a_body_that_takes_too_long_is_discarded() {
        let mut all = Parts::default();
        add(&mut all, &parts(1, 3)[0]);
        assert_eq!(all.expire(MAX_AGE - Duration::from_millis(1)), Discarded::default());
        assert_eq!(all.expire(MAX_AGE), Discarded { shared: 1, private: 0 });
        assert_eq!(add(&mut all, &parts(1, 3)[1]), None);
    }

    #[test]
    fn what_is_discarded_is_told_apart_by_whom_it_was_for() {
        let mut all = Parts::default();
        for (id, is_private) in [(1, true), (2, false), (3, true)] {
            add(&mut all, &Part { is_private, ..parts(id, 3)[0].clone() });
        }
        // Out of order.
        add(&mut all, &parts(3, 3)[2]);
        assert_eq!(all.expire(MAX_AGE), Discarded { shared: 1, private: 2 });
    }
}
