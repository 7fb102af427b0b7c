//! [`Asked`]: the questions of this node that are not answered yet.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::OVERHEAD;
use crate::adapter::NodeId;

/// The questions of this node that are not answered yet. Plain code: time is an argument. `W` is who waits for the
/// answer; whoever takes it from here wakes it, without a lock held.
#[derive(Debug)]
pub(crate) struct Asked<W> {
    last: u64,
    waiting: BTreeMap<u64, Waiting<W>>,
    deadlines: BTreeSet<(Duration, u64)>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting<W> {
    node: NodeId,
    bytes: usize,
    /// How long an answer may take once the question is accepted.
    patience: Duration,
    deadline: Duration,
    is_accepted: bool,
    is_sent: bool,
    /// `None` if nobody waits any more, and the question is yet to be sent: it takes its bytes until then.
    waiter: Option<W>,
}

/// A question ended without an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unanswered<W> {
    pub(crate) id: u64,
    pub(crate) node: NodeId,
    /// Whether the node has the question, and is to learn that it was given up.
    pub(crate) is_sent: bool,
    pub(crate) error: AskError,
    pub(crate) waiter: W,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AskError {
    /// There is no such node any more.
    Gone,
    /// It has neither answered nor accepted the question within a second.
    Silent,
    /// It has accepted the question, and not answered in time; or this node leaves the cluster.
    Late,
    /// Too much is asked by this node or of the other, or the question is too long.
    Busy,
}

/// Until when a question must be answered or accepted.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);

/// How many bytes of questions may be unanswered.
pub(crate) const MAX_BYTES: usize = 32 << 20;

impl<W> Asked<W> {
    /// Adds a question, and returns its id. `None` if there is no room.
    pub(crate) fn ask(
        &mut self,
        node: NodeId,
        bytes: usize,
        patience: Duration,
        now: Duration,
        waiter: W,
    ) -> Option<u64> {
        let bytes = bytes.saturating_add(OVERHEAD);
        let held = self.bytes.checked_add(bytes).filter(|held| *held <= MAX_BYTES)?;
        self.bytes = held;
        self.last += 1;
        let deadline = now.saturating_add(SILENCE);
        self.deadlines.insert((deadline, self.last));
        let waiting = Waiting {
            node,
            bytes,
            patience,
            deadline,
            is_accepted: false,
            is_sent: false,
            waiter: Some(waiter),
        };
        self.waiting.insert(self.last, waiting);
        Some(self.last)
    }

    /// The question has been sent. Returns whether it was given up meanwhile, which the node is to learn.
    pub(crate) fn sent(&mut self, id: u64) -> bool {
        let Some(waiting) = self.waiting.get_mut(&id) else { return false };
        waiting.is_sent = true;
        waiting.waiter.is_none() && self.remove(id).is_some()
    }

    /// The question has not reached anybody. Returns who waits.
    pub(crate) fn unsent(&mut self, id: u64) -> Option<W> {
        self.remove(id)?.waiter
    }

    /// A node works at a question. Once more is as good as once.
    pub(crate) fn accept(&mut self, node: NodeId, id: u64, now: Duration) {
        let waiting = self.waiting.get_mut(&id).filter(|it| it.node == node);
        let waiting = waiting.filter(|it| it.waiter.is_some() && !it.is_accepted);
        if let Some(waiting) = waiting {
            waiting.is_accepted = true;
            self.deadlines.remove(&(waiting.deadline, id));
            waiting.deadline = now.saturating_add(waiting.patience);
            self.deadlines.insert((waiting.deadline, id));
        }
    }

    /// A node answers a question. `None` if it was not asked, or nobody waits any more.
    pub(crate) fn answer(&mut self, node: NodeId, id: u64) -> Option<W> {
        self.waiting.get(&id).filter(|waiting| waiting.node == node)?;
        self.remove(id)?.waiter
    }

    /// Nobody waits for the answer any more. Returns the node if it has the question, and is to learn of it.
    pub(crate) fn withdraw(&mut self, id: u64) -> Option<NodeId> {
        let ended = self.end(id, AskError::Gone)?;
        ended.is_sent.then_some(ended.node)
    }

    /// Ends the questions to a node that is gone.
    pub(crate) fn gone(&mut self, node: NodeId) -> Vec<Unanswered<W>> {
        let ids = self.waiting.iter().filter(|(_, waiting)| waiting.node == node);
        let ids: Vec<_> = ids.map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.end(id, AskError::Gone)).collect()
    }

    /// Ends all questions: this node leaves, and hears no answers.
    pub(crate) fn leave(&mut self) -> Vec<Unanswered<W>> {
        let ids: Vec<_> = self.waiting.keys().copied().collect();
        ids.into_iter().filter_map(|id| self.end(id, AskError::Late)).collect()
    }

    /// Ends the questions whose time is over.
    pub(crate) fn expire(&mut self, now: Duration) -> Vec<Unanswered<W>> {
        let mut ended = Vec::new();
        while let Some((_, id)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            let id = *id;
            let is_accepted = self.waiting.get(&id).is_some_and(|waiting| waiting.is_accepted);
            ended.extend(self.end(id, if is_accepted { AskError::Late } else { AskError::Silent }));
        }
        ended
    }

    /// How many bytes the unanswered questions take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Ends the waiting for an answer.
    fn end(&mut self, id: u64, error: AskError) -> Option<Unanswered<W>> {
        let waiting = self.waiting.get_mut(&id)?;
        let waiter = waiting.waiter.take()?;
        let (node, is_sent) = (waiting.node, waiting.is_sent);
        self.deadlines.remove(&(waiting.deadline, id));
        if is_sent {
            self.remove(id);
        }
        Some(Unanswered { id, node, is_sent, error, waiter })
    }

    fn remove(&mut self, id: u64) -> Option<Waiting<W>> {
        let waiting = self.waiting.remove(&id)?;
        self.deadlines.remove(&(waiting.deadline, id));
        self.bytes -= waiting.bytes;
        Some(waiting)
    }
}

impl<W> Default for Asked<W> {
    fn default() -> Self {
        let (waiting, deadlines) = (BTreeMap::new(), BTreeSet::new());
        Self { last: 0, waiting, deadlines, bytes: 0 }
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

    /// Asks with a patience of 3 s. The question is sent later.
    fn begin(asked: &mut Asked<&'static str>, node: NodeId, now: u64, waiter: &'static str) -> u64 {
        asked.ask(node, 100, ms(3000), ms(now), waiter).expect("there is room")
    }

    fn ask(asked: &mut Asked<&'static str>, node: NodeId, now: u64, waiter: &'static str) -> u64 {
        let id = begin(asked, node, now, waiter);
        assert!(!asked.sent(id));
        id
    }

    fn errors(ended: Vec<Unanswered<&'static str>>) -> Vec<(&'static str, AskError)> {
        ended.into_iter().map(|it| (it.waiter, it.error)).collect()
    }

    #[test]
    fn an_answer_is_taken_once_and_from_the_node_that_was_asked() {
        let mut asked = Asked::default();
        let id = ask(&mut asked, ANN, 0, "a");
        assert_eq!([asked.answer(BOB, id), asked.answer(ANN, id + 1)], [None, None]);
        assert_eq!([asked.answer(ANN, id), asked.answer(ANN, id)], [Some("a"), None]);
        assert_eq!(asked.bytes(), 0);
        assert_eq!(asked.expire(ms(10_000)), []);
    }

    #[test]
    fn a_node_is_silent_after_a_second_without_a_word() {
        let mut asked = Asked::default();
        ask(&mut asked, ANN, 500, "a");
        assert_eq!(asked.expire(ms(1499)), []);
        assert_eq!(errors(asked.expire(ms(1500))), [("a", AskError::Silent)]);
        assert_eq!((asked.expire(ms(9999)), asked.bytes()), (vec![], 0));
    }

    #[test]
    fn an_accepted_question_has_its_own_time_from_then_on() {
        let mut asked = Asked::default();
        let id = ask(&mut asked, ANN, 0, "a");
        asked.accept(BOB, id, ms(100));
        asked.accept(ANN, id, ms(400));
        // Accepted again, it does not live longer.
        asked.accept(ANN, id, ms(2000));
        assert_eq!(asked.expire(ms(3399)), []);
        assert_eq!(errors(asked.expire(ms(3400))), [("a", AskError::Late)]);
    }

    #[test]
    fn a_question_accepted_by_another_node_is_silent() {
        let mut asked = Asked::default();
        let id = ask(&mut asked, ANN, 0, "a");
        asked.accept(BOB, id, ms(100));
        assert_eq!(errors(asked.expire(ms(1000))), [("a", AskError::Silent)]);
    }

    #[test]
    fn the_questions_to_a_node_that_is_gone_end_and_no_others() {
        let mut asked = Asked::default();
        let ids =
            [(ANN, "a"), (BOB, "b"), (ANN, "c")].map(|(node, it)| ask(&mut asked, node, 0, it));
        asked.accept(ANN, ids[2], ms(10));
        assert_eq!(errors(asked.gone(ANN)), [("a", AskError::Gone), ("c", AskError::Gone)]);
        assert_eq!(asked.answer(BOB, ids[1]), Some("b"));
        assert_eq!(asked.expire(ms(9999)), []);
    }

    #[test]
    fn all_questions_of_a_node_that_leaves_are_late() {
        let mut asked = Asked::default();
        let unsent = begin(&mut asked, ANN, 0, "a");
        ask(&mut asked, BOB, 0, "b");
        assert_eq!(errors(asked.leave()), [("a", AskError::Late), ("b", AskError::Late)]);
        assert!(asked.sent(unsent));
        assert_eq!((asked.leave(), asked.expire(ms(9999)), asked.bytes()), (vec![], vec![], 0));
    }

    #[test]
    fn a_node_learns_that_a_question_is_withdrawn_once_it_has_the_question() {
        let mut asked = Asked::default();
        let early = begin(&mut asked, ANN, 0, "a");
        assert_eq!([asked.withdraw(early), asked.withdraw(early)], [None, None]);
        assert!(asked.bytes() > 0, "it is yet to be sent");
        assert_eq!((asked.sent(early), asked.sent(early), asked.bytes()), (true, false, 0));
        let late = ask(&mut asked, ANN, 0, "b");
        assert_eq!([asked.withdraw(late), asked.withdraw(late)], [Some(ANN), None]);
        assert_eq!((asked.answer(ANN, late), asked.bytes()), (None, 0));
        assert_eq!(asked.expire(ms(9999)), []);
    }

    #[test]
    fn a_question_that_ends_before_it_is_sent_counts_until_then() {
        let mut asked = Asked::default();
        let id = begin(&mut asked, ANN, 0, "a");
        let ended = asked.expire(ms(1000));
        assert!(!ended[0].is_sent);
        asked.accept(ANN, id, ms(1000));
        assert!(asked.expire(ms(9999)).is_empty() && asked.gone(ANN).is_empty());
        assert!(asked.bytes() > 0);
        assert!(asked.sent(id), "the node is to learn that it was given up");
        assert_eq!(asked.bytes(), 0);
    }

    #[test]
    fn a_question_that_reaches_nobody_ends_alone() {
        let mut asked = Asked::default();
        let (first, second) = (begin(&mut asked, ANN, 0, "a"), ask(&mut asked, ANN, 0, "b"));
        assert_eq!([asked.unsent(first), asked.unsent(first)], [Some("a"), None]);
        assert_eq!(asked.answer(ANN, second), Some("b"));
        assert_eq!(asked.bytes(), 0);
    }

    #[test]
    fn an_answer_may_come_before_the_engine_has_confirmed_the_question() {
        let mut asked = Asked::default();
        let id = begin(&mut asked, ANN, 0, "a");
        assert_eq!((asked.answer(ANN, id), asked.sent(id), asked.bytes()), (Some("a"), false, 0));
    }

    #[test]
    fn questions_are_bounded_in_bytes_and_an_empty_one_counts() {
        let mut asked = Asked::default();
        assert_eq!(asked.ask(ANN, usize::MAX, ms(1), ms(0), "a"), None);
        let half = MAX_BYTES / 2 - OVERHEAD;
        let first = asked.ask(ANN, half, ms(1), ms(0), "a").expect("there is room");
        asked.sent(first);
        asked.ask(BOB, half, ms(1), ms(0), "b").expect("there is room");
        assert_eq!(asked.ask(ANN, 0, ms(1), ms(0), "c"), None);
        asked.answer(ANN, first);
        assert!(asked.ask(ANN, 0, ms(1), ms(0), "c").is_some());
    }

    #[test]
    fn endless_patience_is_no_overflow() {
        let mut asked = Asked::default();
        let id = asked.ask(ANN, 0, Duration::MAX, ms(5), "a").expect("there is room");
        asked.accept(ANN, id, ms(300));
        assert_eq!(asked.expire(ms(u64::MAX)), []);
        assert_eq!(asked.answer(ANN, id), Some("a"));
    }
}
