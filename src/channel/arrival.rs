//! [`Arrival`]: why a channel was joined.

use crate::payload::Payload;

/// Why [`Channel::join`](crate::Channel::join) runs, from [`Socket::arrival`](crate::Socket::arrival).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Arrival {
    /// The client joins the topic anew: for the first time in its session, or once more if it is not known to have read the
    /// reply to that before its session has moved.
    New,
    /// The client had joined the topic on another node, from which its session has moved here. What it has missed follows
    /// the reply to the join, in order.
    Moved {
        /// What [`Channel::pack`](crate::Channel::pack) has returned there. `None` also if that was too large.
        packed: Option<Payload>,
        /// Broadcasts of the topic may have been lost, on the way or on an earlier one, and the client is not known to
        /// have read the reply to a join that learned of it. Otherwise the client receives all of them.
        has_gap: bool,
    },
    /// The client has named the last message that it has received of a topic with a [history](crate::Builder::history), or
    /// had joined it on a node that has died, in the session that it returns to. What it has missed since follows the
    /// reply to the join, in order, and then what is new.
    Recovered {
        /// Not everything that it has missed is kept any more, so nothing of it follows. Send a snapshot.
        has_gap: bool,
    },
}

/// What the reply to a join tells its client, if it depends on why the topic was joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// That it begins anew.
    New,
    /// That something may be missing.
    Gap,
}

impl Arrival {
    /// Returns what the client has to be told. `None` stands for [`Arrival::New`].
    pub(crate) fn news(arrival: Option<&Self>) -> Option<News> {
        match arrival {
            // Also if it misses nothing of the topic, what the channel knew of it is gone.
            None | Some(Self::New | Self::Recovered { .. }) => Some(News::New),
            Some(Self::Moved { has_gap: true, .. }) => Some(News::Gap),
            Some(Self::Moved { has_gap: false, .. }) => None,
        }
    }

    /// The bytes that it holds outside of itself.
    pub(crate) fn heap_size(&self) -> usize {
        match self {
            Self::Moved { packed: Some(packed), .. } => packed.heap_size(),
            Self::New | Self::Moved { .. } | Self::Recovered { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_to_be_told_that_its_channel_begins_anew_and_that_something_may_be_missing() {
        let moved = |has_gap| Arrival::Moved { packed: None, has_gap };
        for (arrival, news) in [
            (Arrival::New, Some(News::New)),
            (Arrival::Recovered { has_gap: false }, Some(News::New)),
            (Arrival::Recovered { has_gap: true }, Some(News::New)),
            (moved(true), Some(News::Gap)),
            (moved(false), None),
        ] {
            assert_eq!(Arrival::news(Some(&arrival)), news, "{arrival:?}");
        }
    }
}
