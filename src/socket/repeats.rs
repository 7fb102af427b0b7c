//! [`Repeats`], by which a session recognizes messages that it has handled before.

use std::collections::VecDeque;

use tower_channels_transports::Transport;

use super::handled_refs::{self, HandledRefs};
use crate::message::{ClientMessage, Ref};

/// Recognizes messages that were handled before: those of this connection, if its requests may be
/// repeated, and the pushes of all connections, if the client numbers them and has asked for it.
pub(super) struct Repeats {
    /// The newest refs of this connection, over a transport whose requests may be repeated.
    recent: Option<VecDeque<Ref>>,
    once: Once,
}

/// Whether a push is handled at most once over all connections of the session.
enum Once {
    /// The client has not asked for it.
    No,
    /// It begins with the first connection, if the session is resumable.
    Requested,
    Yes(HandledRefs),
}

/// What the client is told about its messages.
pub(super) struct Report {
    /// Whether the client has resumed an earlier session.
    pub(super) is_resumed: bool,
    /// The refs that are not handled again, as JSON.
    pub(super) refs: String,
}

impl Repeats {
    /// Creates the value of a new session. With `once`, the client asks that each push is handled at most
    /// once.
    pub(super) fn new(once: bool) -> Self {
        Self { recent: None, once: if once { Once::Requested } else { Once::No } }
    }

    /// The most that a session holds for a client that asks with `once`, in bytes.
    pub(super) fn max_size(once: bool) -> usize {
        if once { HandledRefs::MAX_SIZE } else { 0 }
    }

    /// A connection of a resumable session begins. Returns what its client is told.
    pub(super) fn attach(&mut self, transport: Transport) -> Option<Report> {
        // Browsers repeat a POST whose connection broke.
        let posts = matches!(transport, Transport::LongPoll | Transport::Other(_));
        self.recent = posts.then(VecDeque::new);
        let is_resumed = matches!(self.once, Once::Yes(_));
        if matches!(self.once, Once::Requested) {
            self.once = Once::Yes(HandledRefs::default());
        }
        self.report().map(|report| Report { is_resumed, ..report })
    }

    /// Returns the refs that are not handled again, as ranges, if they are counted.
    pub(super) fn handled(&self) -> Option<Vec<(u64, u64)>> {
        match &self.once {
            Once::Yes(handled) => Some(handled.ranges().to_vec()),
            Once::No | Once::Requested => None,
        }
    }

    /// Continues for a session that was on another node, with what [`handled`](Self::handled) has returned there.
    pub(super) fn continue_with(&mut self, handled: Option<Vec<(u64, u64)>>) {
        let handled = handled.map(HandledRefs::from_ranges);
        self.once = handled.map_or(Once::No, Once::Yes);
    }

    /// Returns what a client that asks for it is told. `None` if nothing is counted.
    pub(super) fn report(&self) -> Option<Report> {
        match &self.once {
            Once::Yes(handled) => Some(Report { is_resumed: true, refs: handled.to_json() }),
            Once::No | Once::Requested => None,
        }
    }

    /// Returns whether a message was handled before.
    pub(super) fn contain(&mut self, message: &ClientMessage<'_>) -> bool {
        let Once::Yes(handled) = &self.once else { return self.is_recent(&message.reference) };
        let number = handled_refs::number(&message.reference).filter(|_| is_push(message));
        let Some(number) = number else { return self.is_recent(&message.reference) };
        handled.contains(number)
    }

    /// Returns whether this connection has brought a message with this ref, and remembers the ref.
    fn is_recent(&mut self, reference: &Ref) -> bool {
        let Some(recent) = self.recent.as_mut().filter(|_| !reference.is_null()) else {
            return false;
        };
        let is_recent = recent.contains(reference);
        if !is_recent {
            if recent.len() == MAX_RECENT {
                recent.pop_front();
            }
            recent.push_back(reference.clone());
        }
        is_recent
    }

    /// Records that a message was handled. Joins, leaves and heartbeats count as well, so that their refs
    /// leave no gaps.
    pub(super) fn add(&mut self, message: &ClientMessage<'_>) {
        if let Once::Yes(handled) = &mut self.once
            && let Some(number) = handled_refs::number(&message.reference)
        {
            handled.insert(number);
        }
    }
}

/// Returns whether a message is for a channel. Only these are refused on other connections: they would
/// have an effect twice.
fn is_push(message: &ClientMessage<'_>) -> bool {
    let is_of_protocol = matches!(message.event.as_text(), Some("phx_join" | "phx_leave"));
    !is_of_protocol && message.topic.as_text() != Some("phoenix")
}

/// How many refs of one connection are remembered.
const MAX_RECENT: usize = 128;

#[cfg(test)]
mod tests {
    use tower_channels_transports::Inbound;

    use super::*;
    use crate::serializer::Version;

    fn decode(text: &str) -> ClientMessage<'_> {
        Version::V2.decode(Inbound::Text(text)).expect("a message")
    }

    /// Handles messages, and returns which of them were repeats.
    fn handle<const N: usize>(repeats: &mut Repeats, messages: [&str; N]) -> [bool; N] {
        messages.map(decode).map(|message| {
            let is_repeated = repeats.contain(&message);
            if !is_repeated {
                repeats.add(&message);
            }
            is_repeated
        })
    }

    const JOIN: &str = r#"["1","1","t","phx_join",{}]"#;
    const PUSH: &str = r#"["1","2","t","e",{}]"#;
    const BEAT: &str = r#"[null,"3","phoenix","heartbeat",{}]"#;

    #[test]
    fn without_being_asked_only_a_connection_of_requests_knows_repeats() {
        let mut repeats = Repeats::new(false);
        for (transport, knows) in [(Transport::WebSocket, false), (Transport::LongPoll, true)] {
            assert!(repeats.attach(transport).is_none());
            let repeated = handle(&mut repeats, [JOIN, PUSH, BEAT, JOIN, PUSH, BEAT]);
            assert_eq!(repeated, [false, false, false, knows, knows, knows]);
        }
    }

    #[test]
    fn a_push_is_known_on_any_connection_and_joins_and_heartbeats_on_their_own() {
        let mut repeats = Repeats::new(true);
        let report = repeats.attach(Transport::LongPoll).expect("it was asked for");
        assert_eq!((report.is_resumed, &*report.refs), (false, "[]"));
        assert_eq!(
            handle(&mut repeats, [JOIN, PUSH, BEAT, PUSH, JOIN]),
            [false, false, false, true, true]
        );
        let report = repeats.attach(Transport::WebSocket).expect("it was asked for");
        assert_eq!((report.is_resumed, &*report.refs), (true, "[[1,3]]"));
        assert_eq!(handle(&mut repeats, [JOIN, PUSH, BEAT, BEAT]), [false, true, false, false]);
    }

    #[test]
    fn another_client_may_join_with_the_ref_of_a_push() {
        let mut repeats = Repeats::new(true);
        repeats.attach(Transport::WebSocket);
        let other = [r#"["2","2","t","phx_join",{}]"#, r#"["2","2","t","phx_leave",{}]"#];
        assert_eq!(handle(&mut repeats, [JOIN, PUSH]), [false, false]);
        assert_eq!(handle(&mut repeats, other), [false, false]);
    }
}
