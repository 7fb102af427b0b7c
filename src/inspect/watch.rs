//! [`Watch`]: what is counted only while somebody watches.

use std::fmt;

use tower_channels_transports::Watch as TransportsWatch;

use crate::topics::Topics;

/// Lets messages, broadcasts and round trips be counted for as long as it exists. Returned by
/// [`Inspect::watch`](super::Inspect::watch).
#[must_use = "dropping it ends the count"]
pub struct Watch {
    topics: Topics,
    key: usize,
    _transports: TransportsWatch,
}

/// Broadcasts of a time, from [`Watch::take_broadcasts`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broadcasts {
    /// How many there were.
    pub count: u64,
    /// The busiest topics, with how many broadcasts each had: at most 1024 topics, in no order. If there were more, some of the
    /// quiet ones are missing, and each number may be too low by a 1024th of all broadcasts.
    pub topics: Vec<(String, u64)>,
}

impl Watch {
    pub(super) fn new(topics: &Topics, transports: TransportsWatch) -> Self {
        Self { topics: topics.clone(), key: topics.busiest().watch(), _transports: transports }
    }

    /// Returns the broadcasts on this node since the last call, or since the watch began.
    pub fn take_broadcasts(&self) -> Broadcasts {
        let counts = self.topics.busiest().take(self.key);
        let topics = counts.topics.into_iter().map(|(name, count)| (name.into(), count));
        Broadcasts { count: counts.broadcasts, topics: topics.collect() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.topics.busiest().unwatch(self.key);
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
