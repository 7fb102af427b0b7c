//! [`Run`]: messages that follow each other, without those that are forgotten. Plain code.

use std::collections::VecDeque;
use std::time::SystemTime;

use tower_channels::adapter::{Keep, Kept};
use tower_channels::history::Position;

use super::message::Stored;

/// Messages in their order, the oldest of which are forgotten by the rules of their topic.
#[derive(Debug)]
pub(crate) struct Run {
    keep: Option<Keep>,
    now: SystemTime,
    pub(crate) messages: VecDeque<Stored>,
    bytes: usize,
    /// The number of the message before the first, if it is known.
    pub(crate) before: Option<u64>,
    /// Whether a message was left out because it is forgotten.
    pub(crate) is_cut: bool,
    /// How many messages follow.
    pub(crate) pending: u64,
}

impl Run {
    pub(crate) fn new(keep: Option<Keep>, now: SystemTime) -> Self {
        let messages = VecDeque::new();
        Self { keep, now, messages, bytes: 0, before: None, is_cut: false, pending: 0 }
    }

    /// Adds the messages that follow.
    pub(crate) fn extend(&mut self, messages: Vec<Stored>, pending: u64) {
        // What was kept for a shorter time does not come back.
        let old = messages.iter().rposition(|message| self.is_old(message)).map_or(0, |at| at + 1);
        let old = if old > 0 { self.messages.len() + old } else { 0 };
        self.bytes += messages.iter().map(|message| message.content.len()).sum::<usize>();
        self.messages.extend(messages);
        self.pending = pending;
        for _ in 0..old {
            self.forget_first();
        }
        let Some(keep) = self.keep else { return };
        while !self.messages.is_empty() {
            let count = self.pending.saturating_add(self.messages.len() as u64);
            let is_over = count > keep.messages as u64 || self.bytes > keep.bytes;
            if !is_over || count == 1 {
                break;
            }
            self.forget_first();
        }
    }

    /// Whether a message is older than its topic keeps messages now, or did when it came.
    fn is_old(&self, message: &Stored) -> bool {
        let limits = [self.keep, message.keep].into_iter().flatten().map(|keep| keep.within);
        let age = self.now.duration_since(message.at).unwrap_or_default();
        message.keep.is_some() && limits.min().is_some_and(|limit| age > limit)
    }

    fn forget_first(&mut self) {
        let Some(first) = self.take_first() else { return };
        // A mark is no message.
        self.is_cut |= first.keep.is_some();
    }

    /// Leaves out the newest, up to a number of messages.
    pub(crate) fn truncate(&mut self, limit: usize) {
        while self.messages.len() > limit {
            self.messages.pop_back();
            self.pending = self.pending.saturating_add(1);
        }
    }

    /// Leaves out the oldest, up to a number of messages.
    pub(crate) fn keep_last(&mut self, limit: usize) {
        while self.messages.len() > limit {
            self.take_first();
        }
    }

    pub(crate) fn has_messages(&self) -> bool {
        self.messages.iter().any(|message| message.keep.is_some())
    }

    /// Takes the first message away.
    fn take_first(&mut self) -> Option<Stored> {
        let first = self.messages.pop_front()?;
        self.bytes -= first.content.len();
        self.before = Some(first.number);
        Some(first)
    }

    /// The messages, without marks.
    pub(crate) fn kept(self, epoch: u64) -> Vec<Kept> {
        let mut previous = self.before;
        let messages = self.messages.into_iter().filter_map(|message| {
            let number = message.number;
            // Of what was before the oldest nothing is known.
            let previous = previous.replace(number).unwrap_or_else(|| number.saturating_sub(1));
            message.keep?;
            let position = Position { epoch, number };
            Some(Kept { position, previous, content: message.content })
        });
        messages.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const KEEP: Keep = Keep { messages: 100, bytes: 1000, within: Duration::from_secs(60) };

    fn stored(number: u64, age: u64, bytes: usize) -> Stored {
        let at = SystemTime::now() - Duration::from_secs(age);
        Stored { number, at, keep: Some(KEEP), content: vec![0; bytes].into() }
    }

    fn run(keep: Keep, messages: Vec<Stored>, pending: u64) -> (Vec<u64>, bool) {
        let mut run = Run::new(Some(keep), SystemTime::now());
        run.extend(messages, pending);
        let is_cut = run.is_cut;
        (run.kept(1).iter().map(|kept| kept.position.number).collect(), is_cut)
    }

    #[test]
    fn what_a_topic_does_not_keep_is_left_out() {
        let all = || vec![stored(3, 50, 10), stored(5, 40, 10), stored(9, 30, 10)];
        assert_eq!(run(KEEP, all(), 0), (vec![3, 5, 9], false));
        assert_eq!(run(KEEP, all(), 97), (vec![3, 5, 9], false));
        assert_eq!(run(KEEP, all(), 98), (vec![5, 9], true));
        assert_eq!(run(KEEP, all(), 1000), (vec![], true));
        assert_eq!(run(Keep { bytes: 20, ..KEEP }, all(), 0), (vec![5, 9], true));
        assert_eq!(
            run(Keep { within: Duration::from_secs(45), ..KEEP }, all(), 0),
            (vec![5, 9], true)
        );
        assert_eq!(run(Keep { within: Duration::from_secs(1), ..KEEP }, all(), 0), (vec![], true));
    }

    #[test]
    fn what_was_kept_for_a_shorter_time_does_not_come_back() {
        let brief = Some(Keep { within: Duration::from_secs(5), ..KEEP });
        let all =
            vec![stored(3, 50, 1), Stored { keep: brief, ..stored(5, 40, 1) }, stored(9, 1, 1)];
        assert_eq!(run(KEEP, all, 0), (vec![9], true));
    }

    #[test]
    fn the_newest_message_is_kept_however_large() {
        assert_eq!(run(KEEP, vec![stored(3, 0, 2000)], 0), (vec![3], false));
        assert_eq!(run(KEEP, vec![stored(3, 0, 2000)], 1), (vec![], true));
    }

    #[test]
    fn a_mark_is_no_message_but_comes_before_one() {
        let mut run = Run::new(Some(KEEP), SystemTime::now());
        run.extend(
            vec![Stored { keep: None, ..stored(3, 90, 0) }, stored(7, 1, 1), stored(9, 1, 1)],
            0,
        );
        assert!(!run.is_cut);
        let kept = run.kept(1);
        let places: Vec<_> =
            kept.iter().map(|kept| (kept.previous, kept.position.number)).collect();
        assert_eq!(places, [(3, 7), (7, 9)]);
    }

    #[test]
    fn of_what_was_before_the_oldest_nothing_is_known() {
        let mut run = Run::new(None, SystemTime::now());
        run.extend(vec![stored(7, 1, 1)], 0);
        assert_eq!(run.kept(1)[0].previous, 6);
    }
}
