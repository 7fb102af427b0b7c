//! How a node finds a session that another may have.

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tower_channels_transports::limited;
use tower_channels_transports::peers::{self, BoxFuture, Found, Wanted};

use super::claim::{Answer, Cause, Claim, Event, Held, Outcome, Step};
use super::record::{SessionRecord, hash_socket, key};
use super::records::{GIVEN, TTL};
use super::{PATIENCE, unix_time};
use crate::adapter::{NodeId, Replaced};
use crate::cluster::Cluster;
use crate::cluster::questions::{self, AskError, Question};
use crate::cluster::wire::questions::Offered;
use crate::telemetry::CLAIMS;

/// How long a claim may take, whatever fails.
const LONGEST: Duration = Duration::from_secs(3);

/// How long to wait before a node is asked again that was too busy, or about to begin the session or to give it away.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the taking of a session may take.
const TAKING: Duration = Duration::from_secs(2);

impl Cluster {
    /// Finds a session for an endpoint of this node; see [`Peers::find`](peers::Peers::find). If the session is not
    /// another node's, or is taken from it, it belongs to this node until it is [released](Self::release).
    ///
    /// # Cancel safety
    /// Dropping the future may leave a record that names this node, which does not know the session when it is asked.
    pub(in crate::cluster) fn find(
        self: &Arc<Self>,
        endpoint: u32,
        wanted: Wanted,
    ) -> BoxFuture<Found> {
        if self.adapter.store().is_none() {
            return Box::pin(ready(Found::Here));
        }
        let cluster = Arc::clone(self);
        Box::pin(async move {
            let socket = hash_socket(&wanted.id, wanted.socket_id.as_deref());
            let session = Session { cluster, endpoint, id: wanted.id.clone(), socket };
            session.find(&wanted).await
        })
    }
}

/// A session that an endpoint of this node wants.
struct Session {
    cluster: Arc<Cluster>,
    endpoint: u32,
    id: Arc<str>,
    /// The hash of the socket id of its client.
    socket: u64,
}

impl Session {
    async fn find(self, wanted: &Wanted) -> Found {
        if self.cluster.is_here(self.endpoint, &self.id).await {
            CLAIMS.increment(["here"], 1);
            return Found::Here;
        }
        let mut offered = None;
        let outcome = self.claim(wanted, &mut offered).await;
        let result = match &outcome {
            Outcome::New { held, .. } if !held.is_recorded => "unrecorded",
            Outcome::New { cause: Cause::Unknown, .. } => "new",
            Outcome::New { cause: Cause::DeadNode, .. } => "dead_node",
            Outcome::Deposited { .. } => "deposited",
            Outcome::Offered { .. } => "offered",
            Outcome::Taken => "taken",
        };
        CLAIMS.increment([result], 1);
        match outcome {
            Outcome::New { cause, held, unheard } => {
                if cause == Cause::DeadNode {
                    limited!(INFO, session = ?self.id, "session begun anew: its node is gone or silent");
                }
                self.own(held);
                if let Some(node) = unheard {
                    self.cluster.tell_took(node, self.endpoint, &self.id, held.generation);
                }
                Found::None
            }
            Outcome::Deposited { held, state } => {
                self.own(held);
                Found::Offered(Box::new(Deposited { state }))
            }
            Outcome::Offered { owner, held } => match offered {
                Some(Offered { ticket, outline }) => {
                    let session = self;
                    Found::Offered(Box::new(FromOwner { session, owner, held, ticket, outline }))
                }
                None => Found::None,
            },
            Outcome::Taken => {
                limited!(INFO, session = ?self.id, "session id in use by another client on another node");
                Found::Taken
            }
        }
    }

    async fn claim(&self, wanted: &Wanted, offered: &mut Option<Offered>) -> Outcome {
        let cluster = &self.cluster;
        let key = key(self.endpoint, &self.id);
        let end = Instant::now() + LONGEST;
        let given_to = {
            let now = cluster.elapsed();
            cluster.claims.state.lock().of(self.endpoint).given_to(&self.id, GIVEN, now)
        };
        let (mut claim, mut step) = Claim::new(cluster.node, self.socket, unix_time(), given_to);
        loop {
            let event = match step {
                Step::Replace { seen, generation } => {
                    let record = SessionRecord::new(cluster.node, generation, self.socket);
                    let replace = async {
                        // The semaphore is never closed.
                        let _place = cluster.claims.calls.acquire().await;
                        let deadline = end.min(Instant::now() + PATIENCE);
                        let value = Some(record.encode());
                        cluster.replace_record(&key, seen, value, TTL, deadline).await
                    };
                    match timeout_at(end, replace).await {
                        Ok(Ok(Replaced::Yes(revision))) => Event::Replaced(revision),
                        Ok(Ok(Replaced::No(there))) => Event::Refused(there),
                        Ok(Err(_)) | Err(_) => Event::Failed,
                    }
                }
                Step::Ask(owner) => {
                    let asked = timeout_at(end - PATIENCE, self.ask(owner, wanted)).await;
                    let (answer, offer) = asked.unwrap_or((Answer::Silent, None));
                    *offered = offer;
                    Event::Answered(answer)
                }
                Step::Done(outcome) => return outcome,
            };
            step = claim.on(event);
        }
    }

    /// Asks a node for the session.
    async fn ask(&self, owner: NodeId, wanted: &Wanted) -> (Answer, Option<Offered>) {
        loop {
            let asking = self.cluster.ask(owner, self.endpoint, Question::offer(wanted));
            let asked = timeout(PATIENCE, asking).await.unwrap_or(Err(AskError::Silent));
            let answer = match asked {
                Ok(questions::Answer::Offered(offered)) => {
                    return (Answer::Offered, Some(offered));
                }
                Ok(questions::Answer::InUse(())) => Answer::Taken,
                Ok(_) => Answer::None,
                Err(AskError::Gone) => Answer::Gone,
                Err(AskError::Silent | AskError::Late) => Answer::Silent,
                Err(AskError::Busy) => {
                    sleep(PAUSE).await;
                    continue;
                }
            };
            return (answer, None);
        }
    }

    /// This node has the session.
    fn own(&self, held: Held) {
        let now = self.cluster.elapsed();
        let mut state = self.cluster.claims.state.lock();
        state.of(self.endpoint).own(&self.id, self.socket, held, now);
    }
}

/// A session that its node offers.
struct FromOwner {
    session: Session,
    owner: NodeId,
    /// What takes the place of its record.
    held: Held,
    ticket: u64,
    outline: Bytes,
}

impl peers::Offer for FromOwner {
    fn outline(&self) -> &Bytes {
        &self.outline
    }

    fn take(self: Box<Self>, prepared: Bytes) -> BoxFuture<Option<Bytes>> {
        let Self { session, owner, held, ticket, .. } = *self;
        Box::pin(async move {
            let Session { cluster, endpoint, id, socket } = session;
            let taking = cluster.ask(owner, endpoint, Question::take(ticket, prepared));
            let taken = timeout(TAKING, taking).await.unwrap_or(Err(AskError::Late));
            let state = match taken {
                Ok(questions::Answer::Given(state)) => Some(state),
                Ok(questions::Answer::InUse(())) => {
                    limited!(INFO, session = ?id, "session stays on its node: its client has returned there");
                    // Whatever begins for this connection is superseded already.
                    cluster.end_moved(endpoint, id);
                    return None;
                }
                _ => {
                    limited!(WARN, session = ?id, "session begun anew: its node has not given it away");
                    cluster.tell_took(owner, endpoint, &id, held.generation);
                    None
                }
            };
            let now = cluster.elapsed();
            let has_state = state.is_some();
            cluster.claims.state.lock().of(endpoint).take(&id, socket, held, has_state, now);
            // The client does not wait for the store.
            cluster.keep_records();
            state
        })
    }
}

impl fmt::Debug for FromOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromOwner").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// A session that its node has left behind, and that belongs to this one by now.
struct Deposited {
    state: Bytes,
}

impl peers::Offer for Deposited {
    /// Empty: nobody hears anything for it until it is taken, so that there is nothing to prepare.
    fn outline(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        &NOTHING
    }

    fn take(self: Box<Self>, _: Bytes) -> BoxFuture<Option<Bytes>> {
        Box::pin(ready(Some(self.state)))
    }
}

impl fmt::Debug for Deposited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deposited").field("bytes", &self.state.len()).finish()
    }
}
