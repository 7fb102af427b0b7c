//! [`Interest`]: which topics a node wants to hear, and [`Selection`], which it has subscribed to.

use std::collections::HashSet;

use crate::subjects;

/// Which topics a node wants to hear: all of them, or those that it listens to.
///
/// Each change increments its version; a caller waits for a change by waiting for that version.
#[derive(Debug)]
pub(crate) struct Interest {
    is_all: bool,
    topics: HashSet<Box<str>>,
    /// How many of the topics are in each partition.
    counts: Box<[u32; 256]>,
    partitions: Partitions,
    version: u64,
}

/// A set of partitions.
type Partitions = [u64; 4];

/// Subscriptions to topics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) is_all: bool,
    /// Empty if all topics are heard.
    partitions: Partitions,
}

impl Interest {
    /// Wants to hear all topics.
    pub(crate) fn new() -> Self {
        Self {
            is_all: true,
            topics: HashSet::new(),
            counts: Box::new([0; 256]),
            partitions: [0; 4],
            version: 0,
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// What to subscribe to.
    pub(crate) fn wanted(&self) -> Selection {
        let partitions = if self.is_all { [0; 4] } else { self.partitions };
        Selection { is_all: self.is_all, partitions }
    }

    pub(crate) fn listens(&self, topic: &str) -> bool {
        self.topics.contains(topic)
    }

    /// Listens to a topic. Returns whether that changes what to subscribe to.
    pub(crate) fn listen(&mut self, topic: &str) -> bool {
        if self.topics.contains(topic) {
            return false;
        }
        self.topics.insert(topic.into());
        let partition = subjects::partition(topic);
        let count = &mut self.counts[usize::from(partition)];
        *count = count.saturating_add(1);
        let is_first = *count == 1;
        let (word, bit) = bit(partition);
        self.partitions[word] |= bit;
        self.changed(is_first && !self.is_all)
    }

    /// Does not listen to a topic any more. Returns whether that changes what to subscribe to.
    pub(crate) fn ignore(&mut self, topic: &str) -> bool {
        if !self.topics.remove(topic) {
            return false;
        }
        let partition = subjects::partition(topic);
        let count = &mut self.counts[usize::from(partition)];
        *count = count.saturating_sub(1);
        let is_last = *count == 0;
        if is_last {
            let (word, bit) = bit(partition);
            self.partitions[word] &= !bit;
        }
        self.changed(is_last && !self.is_all)
    }

    /// Chooses between all topics and those that it listens to. Returns whether that is a change.
    pub(crate) fn hear_all(&mut self, is_all: bool) -> bool {
        let is_change = self.is_all != is_all;
        self.is_all = is_all;
        self.changed(is_change)
    }

    fn changed(&mut self, is_change: bool) -> bool {
        self.version += u64::from(is_change);
        is_change
    }
}

impl Selection {
    /// The partitions of this selection that the other lacks.
    pub(crate) fn beyond(self, other: Self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |&partition| {
            let (word, bit) = bit(partition);
            self.partitions[word] & !other.partitions[word] & bit != 0
        })
    }

    pub(crate) fn partitions(self) -> impl Iterator<Item = u8> {
        self.beyond(Self::default())
    }
}

/// The word and the bit of a partition.
fn bit(partition: u8) -> (usize, u64) {
    (usize::from(partition / 64), 1 << (partition % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Their partitions, by FNV-1a.
    const EMPTY: u8 = 0x25;
    const A: u8 = 0x8c;
    const FOOBAR: u8 = 0xe8;

    fn wanted(interest: &Interest) -> (bool, Vec<u8>) {
        let wanted = interest.wanted();
        (wanted.is_all, wanted.partitions().collect())
    }

    #[test]
    fn a_node_that_hears_everything_subscribes_to_no_partition() {
        let mut interest = Interest::new();
        assert!(!interest.listen("a"));
        assert_eq!(wanted(&interest), (true, vec![]));
        assert!(interest.hear_all(false));
        assert_eq!(wanted(&interest), (false, vec![A]));
        assert!(!interest.hear_all(false));
        assert!(interest.hear_all(true));
        assert!(!interest.ignore("a"));
        interest.hear_all(false);
        assert_eq!(wanted(&interest), (false, vec![]));
    }

    #[test]
    fn a_partition_is_wanted_until_the_last_of_its_topics_is_ignored() {
        let in_partition_of_a = |number: &u32| subjects::partition(&number.to_string()) == A;
        let other = (0..).find(in_partition_of_a).unwrap().to_string();
        let mut interest = Interest::new();
        interest.hear_all(false);
        assert_eq!(
            ["a", &other, "a", "foobar"].map(|it| interest.listen(it)),
            [true, false, false, true]
        );
        assert_eq!(wanted(&interest), (false, vec![A, FOOBAR]));
        assert_eq!(
            ["a", "a", "", &other].map(|it| interest.ignore(it)),
            [false, false, false, true]
        );
        assert_eq!(wanted(&interest), (false, vec![FOOBAR]));
    }

    #[test]
    fn only_changes_have_a_version() {
        let mut interest = Interest::new();
        let version = |interest: &Interest| interest.version();
        interest.listen("a");
        assert_eq!(version(&interest), 0);
        interest.hear_all(false);
        interest.listen("a");
        assert_eq!(version(&interest), 1);
        interest.listen("");
        assert_eq!(version(&interest), 2);
        interest.ignore("a");
        assert_eq!(version(&interest), 3);
    }

    #[test]
    fn selections_are_compared() {
        let mut interest = Interest::new();
        interest.hear_all(false);
        interest.listen("a");
        let before = interest.wanted();
        interest.listen("foobar");
        interest.listen("");
        interest.ignore("a");
        let after = interest.wanted();
        assert_eq!(after.beyond(before).collect::<Vec<_>>(), [EMPTY, FOOBAR]);
        assert_eq!(before.beyond(after).collect::<Vec<_>>(), [A]);
    }
}
