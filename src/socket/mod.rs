//! The session of one client on its socket, as the transports see it.

mod dispatch;
mod handled_refs;
pub(crate) mod registry;
pub(crate) mod shutdown;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use tower_channels_transports::{
    self as transports, Close, DetachReason, FixedReservation, Inbound, Session, Transport,
};

use self::dispatch::Dispatcher;
pub(crate) use self::dispatch::{ChannelLimits, EndpointContext};
use self::handled_refs::HandledRefs;
use self::registry::{SessionPermit, SessionRegistry};
use crate::guarded::Guarded;
use crate::message::{ClientMessage, ClientPayload, Ref};
use crate::responder::Responder;

/// The session of one client: decodes its messages and dispatches them to its channels.
pub(crate) struct SocketSession<A> {
    dispatcher: Dispatcher<A>,
    /// The socket id.
    id: Option<String>,
    /// The newest refs of this connection, over a transport whose requests may be repeated.
    recent_refs: Option<VecDeque<Ref>>,
    once: Once,
    admission: Admission,
    /// For what a session holds beside its queues and channels.
    _memory: Option<FixedReservation>,
}

/// Whether a message is handled at most once over all connections of the session.
enum Once {
    /// The client has not asked for it.
    No,
    /// The client has asked for it. It begins with the first connection, if the session is resumable.
    Requested,
    Yes(HandledRefs),
}

/// The place of a session in its endpoint, which a session needs unless it is dropped in favour of the
/// one that its client resumes.
enum Admission {
    Requested(SessionRegistry),
    /// Released when the session ends.
    Granted {
        _permit: SessionPermit,
    },
}

impl<A: Send + Sync + 'static> SocketSession<A> {
    /// Creates the session of a client that was accepted. With `once`, a resumable session handles no
    /// ref of its client twice.
    pub(crate) fn new(
        endpoint: Arc<EndpointContext<A>>,
        assigns: Guarded<A>,
        responder: Responder,
        id: Option<String>,
        sessions: SessionRegistry,
        once: bool,
    ) -> Self {
        let size = SESSION + if once { HandledRefs::MAX_SIZE } else { 0 };
        let memory = responder.outbox.account().map(|account| account.hold(size));
        let dispatcher = Dispatcher::new(endpoint, assigns, responder);
        let admission = Admission::Requested(sessions);
        let once = if once { Once::Requested } else { Once::No };
        Self { dispatcher, id, recent_refs: None, once, admission, _memory: memory }
    }

    /// Returns whether a message was handled before: on any connection if its client has asked for
    /// that and numbers its messages, or on this one.
    fn is_repeated(&mut self, message: &ClientMessage<'_>, number: Option<u64>) -> bool {
        if let (Once::Yes(handled), Some(number)) = (&self.once, number) {
            // Heartbeats may be alike.
            let is_repeated = handled.contains(number) && message.topic.as_text() != Some(PHOENIX);
            if is_repeated {
                metrics::counter!("tower_channels_messages_repeated").increment(1);
                tracing::debug!(topic = ?message.topic, "repeated message ignored");
            }
            return is_repeated;
        }
        self.is_recent(&message.reference)
    }

    /// Returns whether a message with this ref was handled on this connection before, and remembers
    /// the ref.
    fn is_recent(&mut self, reference: &Ref) -> bool {
        let Some(recent) = self.recent_refs.as_mut().filter(|_| !reference.is_null()) else {
            return false;
        };
        let repeated = recent.contains(reference);
        if !repeated {
            if recent.len() == MAX_RECENT_REFS {
                recent.pop_front();
            }
            recent.push_back(reference.clone());
        }
        repeated
    }
}

/// The topic of the protocol's own messages.
const PHOENIX: &str = "phoenix";

/// The event with which a client asks for what was handled.
const HANDLED: &str = "handled";

/// What an idle session and its connection hold at least, in bytes.
const SESSION: usize = 3072;

/// How many refs of one connection are remembered.
const MAX_RECENT_REFS: usize = 128;

impl<A: Send + Sync + 'static> Session for SocketSession<A> {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        let version = self.dispatcher.version();
        let message = version.decode(message).map_err(|_| Close::Malformed)?;
        let is_join = message.event.as_text() == Some("phx_join");
        if is_join && message.join_ref.as_json().is_none() {
            // A join_ref that is not UTF-8: neither the reply nor the end of the channel could
            // carry it.
            return Err(Close::Malformed);
        }
        let number = match &self.once {
            Once::Yes(handled) => {
                if let (Some(PHOENIX), Some(HANDLED)) =
                    (message.topic.as_text(), message.event.as_text())
                {
                    self.dispatcher.reply_handled(&message.reference, true, &handled.to_json());
                    return Ok(());
                }
                handled_refs::number(&message.reference)
            }
            Once::No | Once::Requested => None,
        };
        if self.is_repeated(&message, number) {
            return Ok(());
        }
        if matches!(message.payload, ClientPayload::Invalid) {
            self.dispatcher.refuse_payload(&message);
            return Ok(());
        }
        let is_done = self.dispatcher.dispatch(&message)?;
        if let (Once::Yes(handled), Some(number), true) = (&mut self.once, number, is_done) {
            handled.insert(number);
        }
        Ok(())
    }

    fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    fn admit(&mut self) -> Result<(), transports::Rejected> {
        let Admission::Requested(sessions) = &self.admission else { return Ok(()) };
        let permit = sessions.acquire(self.dispatcher.outbox(), self.id.clone());
        let Ok(permit) = permit else {
            metrics::counter!("tower_channels_sessions_refused").increment(1);
            tracing::info!("session refused: there are too many, or the endpoint is shutting down");
            return Err(transports::Rejected);
        };
        self.admission = Admission::Granted { _permit: permit };
        Ok(())
    }

    fn attached(&mut self, epoch: u64, transport: Transport) {
        // Browsers repeat a POST whose connection broke.
        let posts = matches!(transport, Transport::LongPoll | Transport::Other(_));
        self.recent_refs = posts.then(VecDeque::new);
        self.dispatcher.attach(epoch);
        let is_resumed = matches!(self.once, Once::Yes(_));
        if matches!(self.once, Once::Requested) {
            self.once = Once::Yes(HandledRefs::default());
        }
        if let Once::Yes(handled) = &self.once {
            // As if the client had asked, before the reply to any join.
            let asked = Ref::from_bytes(HANDLED.as_bytes()).unwrap_or(Ref::NULL);
            self.dispatcher.reply_handled(&asked, is_resumed, &handled.to_json());
        }
    }

    fn detached(&mut self, reason: DetachReason) {
        self.dispatcher.detach(reason);
    }

    fn reattached(&mut self) {
        self.dispatcher.catch_up();
    }

    fn rejoin_deadline(&mut self) {
        self.dispatcher.end_unjoined();
    }
}

impl<A> fmt::Debug for SocketSession<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketSession")
            .field("topics", &self.dispatcher.topics())
            .finish_non_exhaustive()
    }
}
