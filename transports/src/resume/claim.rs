//! The node that a client has come to: it looks for the session on the other nodes, and continues it.
//!
//! One task at a time does so for each id. Any other that asks for it waits, and then finds it here.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, timeout};

use super::connected::{Connected, Kind};
use super::connection::Attached;
use super::moved::MovedSession;
use super::session::ResumableSession;
use super::state::{CONFLICT_WINDOW, SessionId};
use crate::connect_info::Transport;
use crate::limited;
use crate::outbox;
use crate::panics;
use crate::peers::{Found, Offer, Peers, Wanted};
use crate::session::Session;
use crate::telemetry::{SESSIONS_MOVED, SESSIONS_NOT_MOVED, refuse};

/// The other nodes, and the claims of this one.
#[derive(Debug)]
pub(super) struct Elsewhere {
    pub(super) peers: Arc<dyn Peers>,
    claims: Arc<Claims>,
    given: Mutex<Given>,
}

/// Sessions that this node has given away.
#[derive(Debug, Default)]
struct Given {
    by_id: HashMap<SessionId, GivenSession>,
    /// How many there may be before those are removed that are too old.
    full: usize,
}

#[derive(Debug)]
struct GivenSession {
    at: Instant,
    /// If its client turns out to be there still, two clients share the id, and the next connection knows.
    outbox: outbox::Sender,
    /// Until when its next WebSocket is refused, if that comes to this node.
    refused_until: Option<Instant>,
}

/// The ids that tasks have claimed, or wait for.
#[derive(Debug, Default)]
struct Claims(Mutex<HashMap<SessionId, Arc<Lock>>>);

type Lock = tokio::sync::Mutex<()>;

/// The exclusive use of an id.
pub(super) struct Claim {
    claims: Arc<Claims>,
    id: SessionId,
    lock: Option<Arc<Lock>>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Elsewhere {
    pub(super) fn new(peers: Arc<dyn Peers>) -> Self {
        Self { peers, claims: Arc::default(), given: Mutex::default() }
    }

    /// Returns whether a task has claimed the id, or waits for it.
    pub(super) fn is_claimed(&self, id: &str) -> bool {
        self.claims.0.lock().contains_key(id)
    }

    /// Remembers a session that was given away.
    pub(super) fn remember<S: Session>(
        &self,
        id: &SessionId,
        session: &ResumableSession<S>,
        now: Instant,
    ) {
        let (outbox, refused_until) = (session.outbox.clone(), session.take_refusal());
        let mut given = self.given.lock();
        if given.by_id.len() >= given.full.max(FEW) {
            given.by_id.retain(|_, session| now.duration_since(session.at) < CONFLICT_WINDOW);
            given.by_id.shrink_to_fit();
            given.full = given.by_id.len().saturating_mul(2);
        }
        given.by_id.insert(Arc::clone(id), GivenSession { at: now, outbox, refused_until });
    }

    /// Until when the next WebSocket of a session that was given away is to be refused.
    pub(super) fn take_refusal(&self, id: &str) -> Option<Instant> {
        self.given.lock().by_id.get_mut(id)?.refused_until.take()
    }

    /// Returns whether the client of a session that was given away was still there afterwards.
    fn had_conflict(&self, id: &str) -> bool {
        let given = self.given.lock().by_id.remove(id);
        given.is_some_and(|session| session.outbox.take_conflict())
    }

    /// Waits until no other task has the id.
    pub(super) async fn claim(&self, id: &SessionId) -> Claim {
        let lock = Arc::clone(self.claims.0.lock().entry(Arc::clone(id)).or_default());
        let (claims, id) = (Arc::clone(&self.claims), Arc::clone(id));
        // It is given up if this future is dropped, too.
        let mut claim = Claim { claims, id, lock: Some(Arc::clone(&lock)), guard: None };
        claim.guard = Some(lock.lock_owned().await);
        claim
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.guard = None;
        let mut claims = self.claims.0.lock();
        let lock = self.lock.take();
        // Besides this one only the map has it.
        if lock.is_some_and(|lock| Arc::strong_count(&lock) == 2) {
            claims.remove(&self.id);
            if claims.is_empty() {
                *claims = HashMap::new();
            }
        }
    }
}

impl<S: Session> Connected<S> {
    /// Returns whether another node may have the session: then [`claim`](Self::claim) takes the place of
    /// [`attach`](Self::attach).
    pub(crate) fn may_be_elsewhere(&self) -> bool {
        match &self.kind {
            Kind::New(registry, ..) | Kind::Known(registry, ..) => registry.peers().is_some(),
            Kind::Own(..) | Kind::Resumed(..) => false,
        }
    }

    /// Begins to use the session on a connection, after it was looked for on the other nodes. Returns `None` if it has
    /// ended meanwhile, or may not be used over this transport.
    ///
    /// A session that was found moves in any case: the caller runs this in a task of its own.
    pub(crate) async fn claim(
        self,
        transport: Transport,
    ) -> Option<(Attached<S>, outbox::Receiver)> {
        let (Kind::New(registry, id, ..) | Kind::Known(registry, id, ..)) = &self.kind else {
            return self.attach(transport);
        };
        let (registry, id) = (Arc::clone(registry), Arc::clone(id));
        let _claim = registry.claim(&id).await;
        let attached = self.find(transport).await;
        // Unless it lives here.
        registry.release(&id);
        attached
    }

    async fn find(self, transport: Transport) -> Option<(Attached<S>, outbox::Receiver)> {
        let Self { received, census, mut moved, kind } = self;
        let (registry, id, mut session, receiver, is_admitted) = match kind {
            Kind::New(registry, id, session, receiver) => (registry, id, session, receiver, true),
            Kind::Known(registry, id, _, session, receiver) => {
                (registry, id, session, receiver, false)
            }
            kind => return Self { received, census, moved, kind }.attach(transport),
        };
        // Nobody may use it any more, and it takes nothing.
        if receiver.is_closed() || session.has_expired() {
            return None;
        }
        let again = Arc::clone(&registry);
        let elsewhere = again.elsewhere()?;
        let socket_id = session.id().map(Into::into);
        let wanted = Wanted { id: Arc::clone(&id), socket_id, received };
        let mut found = elsewhere.peers.find(wanted).await;
        if matches!(found, Found::None | Found::Left(_) | Found::Here)
            && let Some(known) = registry.find_own(&id, session.id(), received)
        {
            let kind = Kind::Resumed(known, session);
            return Self { received, census, moved, kind }.attach(transport);
        }
        // Another client has one of this id here: neither takes the other's place.
        if matches!(found, Found::Offered(_)) && registry.is_foreign(&id, session.id()) {
            found = Found::Taken;
        }
        // A connect that has found its session may go on with that and with no other: it may have been disconnected with
        // it, and then its client connects again.
        let is_offered = matches!(found, Found::Offered(_) | Found::Left(_));
        if !(is_admitted || is_offered && admit(&mut session)) {
            return None;
        }
        let kind = match found {
            Found::Taken => {
                limited!(INFO, "session id in use by another client");
                Kind::Own(session, receiver)
            }
            Found::Offered(offer) => {
                match take(&mut session, offer, &receiver).await {
                    Ok(mut taken) => {
                        if elsewhere.had_conflict(&id) {
                            taken.conduct.conflicts.push(Duration::ZERO);
                        }
                        moved = Some(Box::new(taken));
                    }
                    // Nothing was taken.
                    Err(NotMoved::Closed) => return None,
                    Err(reason) => {
                        SESSIONS_NOT_MOVED.increment([reason.label()], 1);
                        limited!(WARN, ?reason, "session of another node begins anew");
                        if reason == NotMoved::Failed || !is_admitted {
                            return None;
                        }
                    }
                }
                Kind::New(registry, id, session, receiver)
            }
            Found::Left(left) => {
                panics::catch("session", || session.recover(left)).ok()?;
                Kind::New(registry, id, session, receiver)
            }
            Found::None | Found::Here => Kind::New(registry, id, session, receiver),
        };
        Self { received, census, moved, kind }.attach(transport)
    }
}

/// Takes a place for a session that continues one. Returns `false` if there is none.
fn admit<S: Session>(session: &mut S) -> bool {
    session.admit().map_err(|rejected| refuse(rejected.report())).is_ok()
}

/// Takes a session from another node, and lets `session` continue it.
async fn take<S: Session>(
    session: &mut S,
    offer: Box<dyn Offer>,
    receiver: &outbox::Receiver,
) -> Result<MovedSession, NotMoved> {
    let outline = offer.outline().clone();
    let preparing = panics::catch_async("session", async { session.prepare(outline).await });
    let prepared = timeout(PREPARE_TIMEOUT, preparing).await.ok().and_then(Result::ok);
    if receiver.is_closed() {
        return Err(NotMoved::Closed);
    }
    // This node has the id by now, so the other has to end its session in any case.
    let taken = offer.take(prepared.clone().unwrap_or_default()).await;
    prepared.ok_or(NotMoved::Failed)?;
    let moved = taken.ok_or(NotMoved::Lost).and_then(|moved| {
        MovedSession::decode(moved, receiver.limit()).map_err(|_| NotMoved::Unreadable)
    });
    if moved.is_err() {
        // What it has prepared is of no use.
        panics::catch("session", || drop(session.prepare(Bytes::new())))
            .map_err(|_| NotMoved::Failed)?;
    }
    let moved = moved?;
    let packed = Bytes::clone(&moved.packed);
    match panics::catch("session", || session.unpack(packed)) {
        Ok(true) => {
            SESSIONS_MOVED.increment(["in"], 1);
            limited!(DEBUG, "session taken from another node");
            Ok(moved)
        }
        Ok(false) => Err(NotMoved::Refused),
        // What it has left behind is not used.
        Err(_) => Err(NotMoved::Failed),
    }
}

/// Why a session of another node is not continued here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NotMoved {
    /// The other node has not given it away, or is gone.
    Lost,
    /// It is in a form that this release does not read, or too large.
    Unreadable,
    /// The new session could not unpack it.
    Refused,
    /// The new session was closed meanwhile.
    Closed,
    /// The new session panicked, or was not prepared in time.
    Failed,
}

impl NotMoved {
    fn label(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Unreadable => "unreadable",
            Self::Refused => "refused",
            Self::Closed | Self::Failed => "failed",
        }
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claim").field(&self.id).finish()
    }
}

/// Draws how far the numbers of a session are kept apart from those of another one: more than a session sends while its client
/// is between two.
pub(super) fn draw_gap() -> u64 {
    u64::from(getrandom::u32().unwrap_or(u32::MAX / 2) >> 2)
}

/// So many sessions are remembered without a look at their age.
const FEW: usize = 64;

/// How long a session may take to be prepared, at most: it is meant to take a second.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(2);
