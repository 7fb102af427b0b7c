//! How a node finds a session that another may have.

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tower_channels_transports::limited;
use tower_channels_transports::peers::{self, BoxFuture, Found, Wanted};

use super::claim::{Answer, Cause, Claim, Event, Held, Outcome, Step};
use super::left::Left;
use super::record::{SessionRecord, hash_socket, key};
use super::records::{GIVEN, TTL};
use super::{PATIENCE, unix_time};
use crate::adapter::{NodeId, Record, Replaced, Revision, StoreError};
use crate::cluster::Cluster;
use crate::cluster::questions::{self, AskError, Question};
use crate::cluster::wire::questions::Offered;
use crate::telemetry::CLAIMS;

/// How long it takes to find a session, at most, whatever fails.
const LONGEST: Duration = Duration::from_secs(2);

/// What is left of it for the record after other nodes were asked.
const LAST: Duration = Duration::from_millis(500);

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
        let (cluster, endpoint) = (Arc::clone(&self.cluster), self.endpoint);
        let (now, time) = (cluster.elapsed(), unix_time());
        let (own, given_to, mut left) = {
            let mut state = cluster.claims.state.lock();
            let records = state.of(endpoint);
            let given_to = records.given_to(&self.id, GIVEN, now);
            if given_to.is_none() && records.is_of_another(&self.id, self.socket) {
                // Its endpoint knows.
                return Found::Here;
            }
            let own = records.held(&self.id).filter(|_| given_to.is_none());
            let left = own.and_then(|_| records.left(&self.id));
            (own, given_to, left)
        };
        let (claim, step) = Claim::new(cluster.node, self.socket, time, own, given_to);
        let mut offered = None;
        let outcome = self.claim(wanted, claim, step, &mut offered, &mut left).await;
        let is_kept = matches!(outcome, Outcome::Own { cause: Cause::Kept, .. });
        if !is_kept && cluster.claims.state.lock().of(endpoint).forget(&self.id).is_some() {
            limited!(INFO, session = ?self.id, "session ended: another node has it by now");
            cluster.end_moved(endpoint, Arc::clone(&self.id));
        }
        let result = match &outcome {
            Outcome::Own { cause: Cause::Kept, .. } => "here",
            Outcome::Own { held, .. } if !held.is_recorded => "unrecorded",
            Outcome::Own { cause: Cause::Unknown, .. } => "new",
            Outcome::Own { cause: Cause::DeadNode, .. } => "dead_node",
            Outcome::Deposited { .. } => "deposited",
            Outcome::Offered { .. } => "offered",
            Outcome::Taken => "taken",
        };
        CLAIMS.increment([result], 1);
        match outcome {
            Outcome::Own { cause, held, unheard } => {
                if cause == Cause::DeadNode {
                    let topics = left.as_ref().map_or(0, |left| left.topics.len());
                    limited!(INFO, session = ?self.id, topics, "session begun anew: its node is gone or silent");
                }
                self.own(held, left.as_ref());
                if let Some(node) = unheard {
                    cluster.tell_took(node, endpoint, &self.id, held.generation);
                }
                match left.filter(|_| cause == Cause::DeadNode) {
                    _ if is_kept => Found::Here,
                    Some(left) => Found::Left(left.encode_to_vec().into()),
                    None => Found::None,
                }
            }
            Outcome::Deposited { held, state } => {
                Found::Offered(Box::new(Deposited { session: self, held, state }))
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

    async fn claim(
        &self,
        wanted: &Wanted,
        mut claim: Claim,
        mut step: Step,
        offered: &mut Option<Offered>,
        left: &mut Option<Left>,
    ) -> Outcome {
        let end = Instant::now() + LONGEST;
        loop {
            let event = match step {
                Step::Replace { seen, generation } => {
                    if !claim.is_kept() {
                        *left = match claim.left().cloned() {
                            Some((owner, left)) => Some(self.cluster.complete(owner, left).await),
                            None => None,
                        };
                    }
                    // The semaphore is never closed.
                    let replace = async {
                        let _place = self.cluster.claims.calls.acquire().await;
                        self.replace(seen, generation, left.as_ref(), end).await
                    };
                    match timeout_at(end, replace).await {
                        Ok(Ok(Replaced::Yes(revision))) => Event::Replaced(revision),
                        Ok(Ok(Replaced::No(there))) => Event::Refused(there),
                        Ok(Err(_)) | Err(_) => Event::Failed,
                    }
                }
                Step::Ask(owner) => {
                    let asked = timeout_at(end - LAST, self.ask(owner, wanted)).await;
                    let (answer, offer) = asked.unwrap_or((Answer::Silent, None));
                    *offered = offer;
                    Event::Answered(answer)
                }
                Step::Done(outcome) => return outcome,
            };
            step = claim.on(event);
        }
    }

    /// Writes that this node has the session, within a second.
    async fn replace(
        &self,
        seen: Option<Revision>,
        generation: u64,
        left: Option<&Left>,
        end: Instant,
    ) -> Result<Replaced, StoreError> {
        let key = key(self.endpoint, &self.id);
        let mut record = SessionRecord::new(self.cluster.node, generation, self.socket);
        record.left = left.cloned();
        let record = record.encode();
        let deadline = end.min(Instant::now() + PATIENCE);
        self.cluster.replace_record(&key, seen, Some(record), TTL, deadline).await
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
    fn own(&self, held: Held, left: Option<&Left>) {
        let now = self.cluster.elapsed();
        let mut state = self.cluster.claims.state.lock();
        let records = state.of(self.endpoint);
        records.own(&self.id, self.socket, held, now);
        if held.is_recorded {
            records.stored(&self.id, left);
        }
    }

    /// This node has the session that was another's. Its client does not wait for the store.
    fn take(&self, held: Held) {
        let now = self.cluster.elapsed();
        let mut state = self.cluster.claims.state.lock();
        state.of(self.endpoint).take(&self.id, self.socket, held, now);
        drop(state);
        self.cluster.keep_records();
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
            let Session { cluster, endpoint, id, .. } = &session;
            let taking = cluster.ask(owner, *endpoint, Question::take(ticket, prepared));
            let taken = timeout(TAKING, taking).await.unwrap_or(Err(AskError::Late));
            let state = match taken {
                Ok(questions::Answer::Given(state)) => Some(state),
                Ok(questions::Answer::InUse(())) => {
                    limited!(INFO, session = ?id, "session stays on its node: its client has returned there");
                    // Whatever begins for this connection is superseded already.
                    cluster.end_moved(*endpoint, Arc::clone(id));
                    return None;
                }
                _ => {
                    limited!(WARN, session = ?id, "session begun anew: its node has not given it away");
                    cluster.tell_took(owner, *endpoint, id, held.generation);
                    None
                }
            };
            session.take(held);
            state
        })
    }
}

impl fmt::Debug for FromOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromOwner").field("owner", &self.owner).finish_non_exhaustive()
    }
}

/// A session that its node has left behind.
struct Deposited {
    session: Session,
    /// What takes the place of its record.
    held: Held,
    state: Bytes,
}

impl peers::Offer for Deposited {
    /// Empty: nobody hears anything for it until it is taken, so that there is nothing to prepare.
    fn outline(&self) -> &Bytes {
        static NOTHING: Bytes = Bytes::new();
        &NOTHING
    }

    fn take(self: Box<Self>, _: Bytes) -> BoxFuture<Option<Bytes>> {
        let Self { session, held, state } = *self;
        Box::pin(async move {
            let end = Instant::now() + TAKING;
            for _ in 0..2 {
                let is_own = |there: Record| {
                    let record = SessionRecord::decode(there.value)?;
                    let node = session.cluster.node;
                    let is_own = record.owner() == node && record.generation == held.generation;
                    is_own.then_some(there.revision)
                };
                let revision = match session.replace(held.seen, held.generation, None, end).await {
                    Ok(Replaced::Yes(revision)) => Some(revision),
                    // It was written though the store did not say so.
                    Ok(Replaced::No(there)) => there.and_then(is_own),
                    Err(_) => continue,
                };
                let Some(revision) = revision else { break };
                session.own(Held { seen: Some(revision), is_recorded: true, ..held }, None);
                return Some(state);
            }
            limited!(WARN, session = ?session.id, "session begun anew: it could not be taken from the store");
            session.take(held);
            None
        })
    }
}

impl fmt::Debug for Deposited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deposited").field("bytes", &self.state.len()).finish_non_exhaustive()
    }
}
