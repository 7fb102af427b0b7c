//! The session of one client on its socket, as the transports see it.

mod dispatch;
pub(crate) mod expiry;
mod joined_channel;
pub(crate) mod registry;
pub(crate) mod shutdown;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use tower_channels_transports::{
    Close, DetachReason, FixedReservation, Inbound, Rejected, Session, Transport,
};
use tracing::field;

use self::dispatch::Dispatcher;
pub(crate) use self::dispatch::{ChannelLimits, EndpointContext, RefreshFn};
use self::expiry::Expiry;
use self::registry::{NotAdmitted, SessionPermit, SessionRegistry};
use crate::guarded::Guarded;
use crate::message::{ClientPayload, Ref};
use crate::responder::Responder;
use crate::socket_info::SocketInfo;

/// The session of one client: decodes its messages and dispatches them to its channels.
pub(crate) struct SocketSession<A> {
    dispatcher: Dispatcher<A>,
    info: Arc<SocketInfo>,
    /// The newest refs of this connection, over a transport whose requests may be repeated.
    recent_refs: Option<VecDeque<Ref>>,
    admission: Admission,
    /// Until when the client may stay, if not as long as it likes.
    expiry: Option<Box<Expiry>>,
    /// For what a session holds beside its queues and channels.
    _memory: Option<FixedReservation>,
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
    /// Creates the session of a client that was accepted.
    pub(crate) fn new(
        endpoint: Arc<EndpointContext<A>>,
        assigns: Arc<Guarded<A>>,
        info: SocketInfo,
        responder: Responder,
        expiry: Option<Box<Expiry>>,
        sessions: SessionRegistry,
    ) -> Self {
        let memory = responder.outbox.account().map(|account| account.hold(SESSION));
        let info = Arc::new(info);
        let id = info.id().map(field::debug);
        let transport = info.transport().name();
        // A root: the request that it came by ends long before it.
        let span = tracing::info_span!(parent: None, "socket", id, transport);
        let dispatcher = Dispatcher::new(endpoint, assigns, Arc::clone(&info), responder, span);
        let admission = Admission::Requested(sessions);
        Self { dispatcher, info, recent_refs: None, admission, expiry, _memory: memory }
    }

    fn start_expiry(&mut self) {
        if let Some(expiry) = &mut self.expiry {
            expiry.start(self.dispatcher.outbox().clone());
        }
    }

    /// Returns whether a message with this ref was handled on this connection before, and remembers
    /// the ref.
    fn is_repeated(&mut self, reference: &Ref) -> bool {
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
        if self.is_repeated(&message.reference) {
            return Ok(());
        }
        match message.payload {
            ClientPayload::Invalid => self.dispatcher.refuse_payload(&message),
            _ => return self.dispatcher.dispatch(&message),
        }
        Ok(())
    }

    fn id(&self) -> Option<&str> {
        self.info.id().map(|id| &**id)
    }

    fn admit(&mut self) -> Result<(), Rejected> {
        let Admission::Requested(sessions) = &self.admission else { return Ok(()) };
        let permit = sessions.acquire(self.dispatcher.outbox(), &self.info);
        let permit = permit.map_err(NotAdmitted::refuse)?;
        self.admission = Admission::Granted { _permit: permit };
        self.start_expiry();
        Ok(())
    }

    fn resumed(&mut self, newer: Self) {
        self.expiry = newer.expiry;
        self.start_expiry();
        if self.dispatcher.refresh(newer.dispatcher).is_err() {
            // What the channels see may be half old and half new. The client begins anew.
            self.dispatcher.outbox().close(Close::Restart);
        }
    }

    fn attached(&mut self, epoch: u64, transport: Transport) {
        // Browsers repeat a POST whose connection broke.
        let posts = matches!(transport, Transport::LongPoll | Transport::Other(_));
        self.recent_refs = posts.then(VecDeque::new);
        self.info.attach(transport);
        self.dispatcher.attach(epoch);
    }

    fn detached(&mut self, reason: DetachReason) {
        self.info.set_detached(true);
        self.dispatcher.detach(reason);
    }

    fn reattached(&mut self) {
        self.info.set_detached(false);
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
