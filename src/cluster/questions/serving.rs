//! [`Serving`]: the questions of other nodes that this one works at.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::OVERHEAD;
use crate::adapter::NodeId;

/// The questions of other nodes that this one works at. Plain code: time is an argument. `C` is what ends the work, to
/// be dropped or used without a lock held.
#[derive(Debug)]
pub(crate) struct Serving<C> {
    served: BTreeMap<(NodeId, u64), Served<C>>,
    /// Those that are to be accepted if they are not answered by then, in order. They may be done already.
    unaccepted: VecDeque<(Duration, NodeId, u64)>,
    bytes_of: BTreeMap<NodeId, usize>,
    bytes: usize,
}

#[derive(Debug)]
struct Served<C> {
    bytes: usize,
    /// `None` if it cannot be ended any more.
    cancel: Option<C>,
}

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    Yes,
    /// It has come before.
    Repeated,
    /// There is no room for it.
    Busy,
}

/// After which time a question is accepted, if it is not answered by then.
pub(crate) const ACCEPT_AFTER: Duration = Duration::from_millis(300);

/// How many bytes of questions and answers may be worked at.
pub(crate) const MAX_BYTES: usize = 32 << 20;

/// How many of them may be those of one node.
pub(crate) const MAX_BYTES_OF_NODE: usize = 16 << 20;

impl<C> Serving<C> {
    /// A question has come. `cancel` ends the work at it, if it may be ended.
    pub(crate) fn begin(
        &mut self,
        from: NodeId,
        id: u64,
        bytes: usize,
        now: Duration,
        cancel: Option<C>,
    ) -> Begun {
        if self.served.contains_key(&(from, id)) {
            return Begun::Repeated;
        }
        let bytes = bytes.saturating_add(OVERHEAD);
        if !self.has_room(from, bytes) {
            return Begun::Busy;
        }
        self.add(from, bytes);
        self.served.insert((from, id), Served { bytes, cancel });
        self.unaccepted.push_back((now.saturating_add(ACCEPT_AFTER), from, id));
        Begun::Yes
    }

    /// The work at a question is done, and the answer is so long. From now on it cannot be ended. Returns `false` if
    /// there is no room for the answer, which counts all the same.
    pub(crate) fn answer(&mut self, from: NodeId, id: u64, bytes: usize) -> bool {
        let has_room = self.has_room(from, bytes);
        let Some(served) = self.served.get_mut(&(from, id)) else { return has_room };
        served.cancel = None;
        served.bytes = served.bytes.saturating_add(bytes);
        self.add(from, bytes);
        has_room
    }

    /// A question is answered, or will not be.
    pub(crate) fn end(&mut self, from: NodeId, id: u64) {
        if let Some(served) = self.served.remove(&(from, id)) {
            self.bytes = self.bytes.saturating_sub(served.bytes);
            if let Some(bytes) = self.bytes_of.get_mut(&from) {
                *bytes = bytes.saturating_sub(served.bytes);
                if *bytes == 0 {
                    self.bytes_of.remove(&from);
                }
            }
        }
    }

    /// A node withdraws its question. The work goes on until it is ended by what is returned.
    pub(crate) fn cancel(&mut self, from: NodeId, id: u64) -> Option<C> {
        self.served.get_mut(&(from, id))?.cancel.take()
    }

    /// A node is gone, and with it all who wait for answers.
    pub(crate) fn gone(&mut self, node: NodeId) -> Vec<C> {
        let of_node = self.served.range_mut((node, 0)..=(node, u64::MAX));
        of_node.filter_map(|(_, served)| served.cancel.take()).collect()
    }

    /// Returns the questions to accept now, by node.
    pub(crate) fn due(&mut self, now: Duration) -> BTreeMap<NodeId, Vec<u64>> {
        let mut due = BTreeMap::<_, Vec<_>>::new();
        while let Some((_, from, id)) = self.unaccepted.front().filter(|(at, ..)| *at <= now) {
            let (from, id) = (*from, *id);
            self.unaccepted.pop_front();
            if self.served.contains_key(&(from, id)) {
                due.entry(from).or_default().push(id);
            }
        }
        due
    }

    /// How many bytes of questions and answers are worked at.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn has_room(&self, from: NodeId, bytes: usize) -> bool {
        let of_node = self.bytes_of.get(&from).copied().unwrap_or_default();
        self.bytes.saturating_add(bytes) <= MAX_BYTES
            && of_node.saturating_add(bytes) <= MAX_BYTES_OF_NODE
    }

    fn add(&mut self, from: NodeId, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        let of_node = self.bytes_of.entry(from).or_default();
        *of_node = of_node.saturating_add(bytes);
    }
}

impl<C> Default for Serving<C> {
    fn default() -> Self {
        Self {
            served: BTreeMap::new(),
            unaccepted: VecDeque::new(),
            bytes_of: BTreeMap::new(),
            bytes: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: NodeId = NodeId(1);
    const BOB: NodeId = NodeId(2);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn begin(serving: &mut Serving<&'static str>, from: NodeId, id: u64, now: u64) -> Begun {
        serving.begin(from, id, 100, ms(now), Some("cancel"))
    }

    #[test]
    fn a_question_that_is_not_answered_soon_is_accepted_once() {
        let mut serving = Serving::default();
        for (from, id, now) in [(ANN, 1, 0), (ANN, 2, 0), (BOB, 1, 0), (ANN, 3, 100)] {
            assert_eq!(begin(&mut serving, from, id, now), Begun::Yes);
        }
        serving.end(ANN, 2);
        assert_eq!(serving.due(ms(299)), BTreeMap::new());
        assert_eq!(serving.due(ms(300)), BTreeMap::from([(ANN, vec![1]), (BOB, vec![1])]));
        assert_eq!(serving.due(ms(9999)), BTreeMap::from([(ANN, vec![3])]));
        assert_eq!(serving.due(ms(9999)), BTreeMap::new());
    }

    #[test]
    fn a_question_is_served_once() {
        let mut serving = Serving::default();
        let begun = [1, 1, 2].map(|id| begin(&mut serving, ANN, id, 0));
        assert_eq!(begun, [Begun::Yes, Begun::Repeated, Begun::Yes]);
        assert_eq!(begin(&mut serving, BOB, 1, 0), Begun::Yes);
    }

    #[test]
    fn a_question_is_cancelled_by_its_node_until_the_answer_is_there() {
        let mut serving = Serving::default();
        (1..4).for_each(|id| assert_eq!(begin(&mut serving, ANN, id, 0), Begun::Yes));
        serving.begin(ANN, 4, 0, ms(0), None);
        serving.answer(ANN, 2, 10);
        let cancelled = [(BOB, 1), (ANN, 1), (ANN, 1), (ANN, 2), (ANN, 4), (ANN, 9)];
        let cancelled = cancelled.map(|(from, id)| serving.cancel(from, id));
        assert_eq!(cancelled, [None, Some("cancel"), None, None, None, None]);
        assert_eq!(serving.gone(ANN), ["cancel"]);
        assert!(serving.gone(BOB).is_empty());
    }

    #[test]
    fn one_node_gets_half_of_the_room_and_its_answers_count() {
        let mut serving = Serving::default();
        let largest = MAX_BYTES_OF_NODE - OVERHEAD;
        assert_eq!(serving.begin(ANN, 1, largest + 1, ms(0), Some(())), Begun::Busy);
        assert_eq!(serving.begin(ANN, 1, usize::MAX, ms(0), Some(())), Begun::Busy);
        assert_eq!(serving.begin(ANN, 1, largest, ms(0), Some(())), Begun::Yes);
        assert_eq!(serving.begin(ANN, 2, 0, ms(0), Some(())), Begun::Busy);
        assert_eq!(serving.begin(BOB, 2, 0, ms(0), Some(())), Begun::Yes);
        assert!(serving.answer(BOB, 2, 1000));
        assert!(!serving.answer(ANN, 1, 1000));
        let rest = MAX_BYTES - serving.bytes() - OVERHEAD;
        assert_eq!(serving.begin(NodeId(3), 1, rest + 1, ms(0), Some(())), Begun::Busy);
        assert_eq!(serving.begin(NodeId(3), 1, rest, ms(0), Some(())), Begun::Yes);
        for (from, id) in [(ANN, 1), (BOB, 2), (BOB, 2), (NodeId(3), 1)] {
            serving.end(from, id);
        }
        assert_eq!((serving.bytes(), serving.bytes_of.len()), (0, 0));
    }
}
