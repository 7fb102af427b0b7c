//! The session of one client on its socket, as the transports see it.

mod context;
mod dispatch;
pub(crate) mod drain;
pub(crate) mod expiry;
mod handled_refs;
mod joined_channel;
mod moving;
pub(crate) mod registry;
mod remembering;
mod repeats;
pub(crate) mod shutdown;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tower_channels_transports::peers::BoxFuture;
use tower_channels_transports::{
    Close, DetachReason, FixedReservation, Inbound, Rejected, Session, Transport,
};
use tracing::field;

pub(crate) use self::context::{ChannelLimits, EndpointContext, RefreshFn};
use self::dispatch::Dispatcher;
use self::expiry::Expiry;
use self::registry::{NotAdmitted, SessionPermit, SessionRegistry};
use self::remembering::Remembering;
use self::repeats::{Repeats, Report};
use crate::guarded::Guarded;
use crate::message::{ClientPayload, Ref};
use crate::responder::Responder;
use crate::socket_info::SocketInfo;

/// The session of one client: decodes its messages and dispatches them to its channels.
pub(crate) struct SocketSession<A> {
    dispatcher: Dispatcher<A>,
    info: Arc<SocketInfo>,
    repeats: Repeats,
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
    /// Creates the session of a client that was accepted. With `once`, a resumable session handles no
    /// ref of its client twice.
    pub(crate) fn new(
        endpoint: Arc<EndpointContext<A>>,
        assigns: Arc<Guarded<A>>,
        info: SocketInfo,
        responder: Responder,
        expiry: Option<Box<Expiry>>,
        sessions: SessionRegistry,
        once: bool,
    ) -> Self {
        let size = SESSION + Repeats::max_size(once);
        let memory = responder.outbox.account().map(|account| account.hold(size));
        let info = Arc::new(info);
        let id = info.id().map(field::debug);
        let transport = info.transport().name();
        // A root: the request that it came by ends long before it.
        let span = tracing::info_span!(parent: None, "socket", id, transport);
        let dispatcher = Dispatcher::new(endpoint, assigns, Arc::clone(&info), responder, span);
        let admission = Admission::Requested(sessions);
        let repeats = Repeats::new(once);
        Self { dispatcher, info, repeats, admission, expiry, _memory: memory }
    }

    /// Lets another node go on with the topics of the session of this id if this one dies.
    pub(crate) fn remember(mut self, session: Arc<str>) -> Self {
        self.dispatcher.remembering = Remembering::new(session);
        self
    }

    fn start_expiry(&mut self) {
        if let Some(expiry) = &mut self.expiry {
            expiry.start(self.dispatcher.responder().outbox.clone());
        }
    }

    /// Tells the client which of its messages were handled.
    fn report_handled(&self, reference: &Ref, report: &Report) {
        self.dispatcher.responder().reply_handled(reference, report.is_resumed, &report.refs);
    }
}

/// The event with which a client asks which of its messages were handled, and the ref of the report
/// that it has not asked for.
const HANDLED: &str = "handled";

/// What an idle session and its connection hold at least, in bytes.
const SESSION: usize = 3072;

impl<A: Send + Sync + 'static> Session for SocketSession<A> {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        let version = self.dispatcher.responder().version;
        let message = version.decode(message).map_err(|_| Close::Malformed)?;
        let is_join = message.event.as_text() == Some("phx_join");
        if is_join && message.join_ref.as_json().is_none() {
            // A join_ref that is not UTF-8: neither the reply nor the end of the channel could
            // carry it.
            return Err(Close::Malformed);
        }
        let is_invalid = matches!(message.payload, ClientPayload::Invalid);
        if let (Some("phoenix"), Some(HANDLED)) = (message.topic.as_text(), message.event.as_text())
            && let Some(report) = self.repeats.report().filter(|_| !is_invalid)
        {
            self.report_handled(&message.reference, &report);
            return Ok(());
        }
        if self.repeats.contain(&message) {
            self.dispatcher.ignore_repeated(&message);
            return Ok(());
        }
        if is_invalid {
            self.dispatcher.refuse_payload(&message);
        } else if self.dispatcher.dispatch(&message)? {
            self.repeats.add(&message);
        }
        Ok(())
    }

    fn id(&self) -> Option<&str> {
        self.info.id().map(|id| &**id)
    }

    fn admit(&mut self) -> Result<(), Rejected> {
        let Admission::Requested(sessions) = &self.admission else { return Ok(()) };
        let permit = sessions.acquire(&self.dispatcher.responder().outbox, &self.info);
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
            self.dispatcher.responder().outbox.close(Close::Restart);
        }
    }

    fn has_expired(&self) -> bool {
        self.expiry.as_ref().is_some_and(|expiry| expiry.has_passed())
    }

    fn attached(&mut self, epoch: u64, transport: Transport) {
        self.info.attach(transport);
        self.dispatcher.attach(epoch);
        if let Some(report) = self.repeats.attach(transport)
            && let Some(reference) = Ref::from_bytes(HANDLED.as_bytes())
        {
            // Before the reply to any join.
            self.report_handled(&reference, &report);
        }
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

    fn outline(&self) -> Bytes {
        self.dispatcher.outline()
    }

    fn pack(&mut self, prepared: Option<Bytes>) -> BoxFuture<Bytes> {
        self.dispatcher.pack(prepared, self.repeats.handled())
    }

    fn prepare(&mut self, outline: Bytes) -> BoxFuture<Bytes> {
        self.dispatcher.prepare(&outline)
    }

    fn recover(&mut self, left: Bytes) {
        self.dispatcher.remembering.recover(&left);
    }

    fn unpack(&mut self, packed: Bytes) -> bool {
        let handled = self.dispatcher.unpack(&packed);
        let can_continue = handled.is_some();
        if let Some(handled) = handled {
            self.repeats.continue_with(handled);
        }
        can_continue
    }
}

impl<A> fmt::Debug for SocketSession<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketSession")
            .field("topics", &self.dispatcher.topics())
            .finish_non_exhaustive()
    }
}
