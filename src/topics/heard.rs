//! [`Heard`]: which broadcasts of each node the subscribers of a topic have received.

use crate::adapter::NodeId;

/// The node that sent a broadcast, and the number of its frame among those of this node.
pub(crate) type Origin = (NodeId, u64);

/// The number of the last broadcast of each node, of those that were delivered on a topic: the broadcasts of one node
/// arrive in order. Plain code.
///
/// It is compared with what another node has received within a second or two. So only the [`MOST`] nodes that have
/// sent last are kept, which bounds a topic that outlives many processes; what is not known to be heard is received
/// twice rather than never.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard(Vec<Origin>);

/// How many nodes are kept.
const MOST: usize = 64;

impl Heard {
    /// A broadcast has come to a place that is behind: it expects nothing more of this node if it has caught up with it.
    /// Returns whether it is still behind.
    pub(super) fn remove_reached(&mut self, (node, number): Origin) -> bool {
        self.0.retain(|(other, last)| *other != node || number < *last);
        !self.0.is_empty()
    }

    /// A broadcast is delivered.
    pub(super) fn add(&mut self, (node, number): Origin) {
        let all = &mut self.0;
        // The one that sent last is at the end.
        match all.iter().rposition(|(other, _)| *other == node) {
            Some(place) => {
                all[place].1 = all[place].1.max(number);
                all[place..].rotate_left(1);
            }
            None => {
                if all.len() == MOST {
                    all.remove(0);
                }
                all.push((node, number));
            }
        }
    }

    /// Returns whether a broadcast is one of those that were delivered.
    pub(crate) fn covers(&self, (node, number): Origin) -> bool {
        self.0.iter().rev().any(|(other, last)| *other == node && number <= *last)
    }

    /// Returns whether nothing numbered was delivered.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The nodes and their numbers, those that sent last at the end.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Origin> {
        self.0.iter().copied()
    }
}

impl FromIterator<Origin> for Heard {
    fn from_iter<I: IntoIterator<Item = Origin>>(all: I) -> Self {
        let mut heard = Self::default();
        all.into_iter().for_each(|origin| heard.add(origin));
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_above_the_last_number_of_its_node_is_covered() {
        let heard = Heard::from_iter([(NodeId(1), 5), (NodeId(2), 1), (NodeId(1), 4)]);
        let covers = |node, numbers: [u64; 2]| numbers.map(|n| heard.covers((NodeId(node), n)));
        assert_eq!(covers(1, [5, 6]), [true, false]);
        assert_eq!(covers(2, [1, 2]), [true, false]);
        assert_eq!(covers(3, [0, 1]), [false; 2]);
    }

    #[test]
    fn what_is_expected_is_forgotten_when_it_or_a_later_one_comes() {
        let mut heard = Heard::from_iter([(NodeId(1), 5), (NodeId(2), 1)]);
        assert!(heard.remove_reached((NodeId(1), 4)) && heard.covers((NodeId(1), 5)));
        assert!(heard.remove_reached((NodeId(1), 5)) && !heard.covers((NodeId(1), 5)));
        assert!(!heard.remove_reached((NodeId(2), 9)));
    }

    #[test]
    fn the_nodes_that_have_sent_last_are_kept() {
        let mut heard = Heard::default();
        for node in 0..=MOST as u64 {
            heard.add((NodeId(node), 1));
            heard.add((NodeId(0), node));
        }
        assert_eq!(heard.iter().count(), MOST);
        assert!(heard.covers((NodeId(0), MOST as u64)));
        assert!(!heard.covers((NodeId(1), 1)), "it has been silent the longest");
    }
}
