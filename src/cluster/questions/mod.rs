//! Questions: what one node wants of another, which answers.
//!
//! A node answers a question, or accepts it, in less than half a second; one that does neither for a second is silent.
//! Questions and answers go to one node each, by [`Cluster::reach`].

pub(super) mod asked;
pub(super) mod endpoints;
#[cfg(feature = "unstable-internals")]
pub(in crate::cluster) mod model;
mod peers;
mod serve;
pub(super) mod serving;
pub(super) mod tickets;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message;
use tokio::sync::oneshot;
use tower_channels_transports::limited;

pub(crate) use self::asked::AskError;
use self::asked::{Asked, Unanswered};
pub(crate) use self::endpoints::LocalEndpoint;
pub(crate) use self::peers::EndpointPeers;
use self::serving::Serving;
use self::tickets::Tickets;
use super::claims::Watched;
use super::wire::Body;
pub(crate) use super::wire::questions::{Answer, Notice, Question, Took};
use super::wire::questions::{Answered, Ask, Ids, Notify};
use super::{Cluster, parts};
use crate::adapter::NodeId;
use crate::telemetry::{ANSWERS_IGNORED, FRAMES_LOST, QUESTIONS_ASKED};

/// The questions between this node and others. What is taken out of it is dropped, used or woken without its lock.
#[derive(Default)]
pub(super) struct Questions {
    asked: Asked<oneshot::Sender<Result<Answer, AskError>>>,
    serving: Serving<oneshot::Sender<()>>,
    tickets: Tickets<Watched>,
}

/// What a question takes beside its bytes.
const OVERHEAD: usize = 512;

/// How many bytes of either table are left for sessions that move, which are few and short, however many polls wait.
const FOR_MOVES: usize = 2 << 20;

/// How long an answer may take that was accepted, unless the question is a poll.
const PATIENCE: Duration = Duration::from_secs(3);

/// How much longer than its session waits a poll may take that was accepted.
const POLL_SLACK: Duration = Duration::from_secs(2);

impl Cluster {
    /// Asks another node a question, for the endpoint with this index.
    ///
    /// # Errors
    /// [`AskError::Gone`] at once if the node is gone, or this one itself. Every other error comes within the time that
    /// the question may take, however the engine fails; up to 50 ms later, since the task of the node looks for them.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the question.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        node: NodeId,
        endpoint: u32,
        question: Question,
    ) -> Result<Answer, AskError> {
        let kind = question.kind();
        let mut asking = Asking { cluster: self, id: None, kind, result: "withdrawn" };
        let answer = asking.ask(node, endpoint, question).await;
        asking.result = match answer {
            Ok(_) => "answered",
            Err(AskError::Gone) => "gone",
            Err(AskError::Silent) => "silent",
            Err(AskError::Late) => "late",
            Err(AskError::Busy) => "busy",
        };
        answer
    }

    /// Tells another node something. It may be lost.
    pub(crate) fn notify(self: &Arc<Self>, node: NodeId, notice: Notice) {
        self.answer(node, Body::Notice(Notify { notice: Some(notice) }));
    }

    /// Tells the node that gave a session away that its presence, which waits under this ticket, is not needed any more.
    pub(crate) fn settle(self: &Arc<Self>, node: NodeId, ticket: u64) {
        // A session may come back to the node on which its presence waits.
        if node == self.node {
            return self.local.presence.release(ticket);
        }
        self.notify(node, Notice::Settled(ticket));
    }

    /// Another node answers a question of this one.
    pub(super) fn hear_answer(&self, from: NodeId, Answered { id, answer }: Answered) {
        let waiter = self.questions.lock().asked.answer(from, id);
        let Some(waiter) = waiter else { return ANSWERS_IGNORED.add(1) };
        // A later release may answer what this one does not know.
        let _ = waiter.send(match answer {
            Some(Answer::Busy(())) => Err(AskError::Busy),
            answer => Ok(answer.unwrap_or(Answer::NotHere(()))),
        });
    }

    /// Another node works at questions of this one.
    pub(super) fn hear_accepted(&self, from: NodeId, accepted: Ids, now: Duration) {
        let mut questions = self.questions.lock();
        accepted.ids.into_iter().for_each(|id| questions.asked.accept(from, id, now));
    }

    /// Another node does not wait for some answers any more.
    pub(super) fn hear_cancel(&self, from: NodeId, cancelled: Ids) {
        let mut questions = self.questions.lock();
        let cancel = |id| questions.serving.cancel(from, id);
        let cancels: Vec<_> = cancelled.ids.into_iter().filter_map(cancel).collect();
        drop(questions);
        drop(cancels);
    }

    pub(super) fn hear_notice(self: &Arc<Self>, from: NodeId, Notify { notice }: Notify) {
        match notice {
            Some(Notice::Took(took)) => self.hear_took(from, took),
            Some(Notice::TookHeard(took)) => self.hear_took_heard(from, took),
            Some(Notice::Settled(ticket)) => self.local.presence.release(ticket),
            // A later release may tell more.
            None => {}
        }
    }

    /// Another node is silent or gone: it answers nothing, and nobody waits for what it has asked.
    pub(super) fn end_questions(&self, node: NodeId) {
        let mut questions = self.questions.lock();
        let unanswered = questions.asked.gone(node);
        let cancels = questions.serving.gone(node);
        drop(questions);
        unanswered.into_iter().for_each(Unanswered::tell);
        drop(cancels);
    }

    /// This node leaves: it hears no answers any more. Whoever waits for one may ask again at another node.
    pub(super) fn leave_questions(&self) {
        let unanswered = self.questions.lock().asked.leave();
        unanswered.into_iter().for_each(Unanswered::tell);
    }

    /// Does what is due by the clock. To be called every 50 ms, which is the whole cost of the deadlines: one lock.
    pub(super) fn step_questions(self: &Arc<Self>, now: Duration) {
        let mut questions = self.questions.lock();
        let unanswered = questions.asked.expire(now);
        let accepted = questions.serving.due(now);
        let offers = questions.tickets.expire(now);
        drop(questions);
        for (node, ids) in accepted {
            self.answer(node, Body::Accepted(Ids { ids }));
        }
        let mut cancelled = BTreeMap::<_, Vec<_>>::new();
        for unanswered in unanswered {
            if unanswered.is_sent {
                cancelled.entry(unanswered.node).or_default().push(unanswered.id);
            }
            unanswered.tell();
        }
        for (node, ids) in cancelled {
            self.answer(node, Body::Cancel(Ids { ids }));
        }
        // The sessions stay here.
        drop(offers);
    }

    /// How many bytes of questions and answers wait.
    pub(super) fn questions_in_flight(&self) -> usize {
        let questions = self.questions.lock();
        questions.asked.bytes().saturating_add(questions.serving.bytes())
    }
}

impl Unanswered<oneshot::Sender<Result<Answer, AskError>>> {
    /// Tells who waits.
    fn tell(self) {
        let _ = self.waiter.send(Err(self.error));
    }
}

/// A question of this node, until it has an answer or nobody waits for one.
struct Asking<'a> {
    cluster: &'a Arc<Cluster>,
    id: Option<u64>,
    kind: &'static str,
    result: &'static str,
}

impl Asking<'_> {
    async fn ask(
        &mut self,
        node: NodeId,
        endpoint: u32,
        question: Question,
    ) -> Result<Answer, AskError> {
        let cluster = self.cluster;
        if node == cluster.node {
            return Err(AskError::Gone);
        }
        let patience = match question {
            Question::Poll(_) => cluster.longest_poll(endpoint).saturating_add(POLL_SLACK),
            _ => PATIENCE,
        };
        let moves = question.moves();
        let mut ask = Ask { id: 0, endpoint, question: Some(question) };
        let bytes = ask.encoded_len();
        if bytes > parts::LONGEST {
            FRAMES_LOST.increment(["too_large"], 1);
            limited!(ERROR, bytes, kind = self.kind, "a question is too long for another node");
            return Err(AskError::Busy);
        }
        let (waiter, answer) = oneshot::channel();
        let now = cluster.now();
        let room = if moves { 0 } else { FOR_MOVES };
        let id = {
            let asked = &mut cluster.questions.lock().asked;
            let taken = asked.bytes().saturating_add(bytes).saturating_add(room);
            let has_room = taken <= asked::MAX_BYTES;
            has_room.then(|| asked.ask(node, bytes, patience, now, waiter)).flatten()
        };
        let Some(id) = id else {
            limited!(WARN, kind = self.kind, "too many questions to other nodes wait for answers");
            return Err(AskError::Busy);
        };
        (self.id, ask.id) = (Some(id), id);
        // Behind the insertion, so that it ends in any case, with the other node or with this one.
        let is_away = cluster.state.lock().members.is_away(node);
        let has_left = cluster.has_left.load(Ordering::Relaxed);
        if is_away || has_left {
            cluster.questions.lock().asked.unsent(id);
            return Err(if has_left { AskError::Late } else { AskError::Gone });
        }
        cluster.send_question(node, id, ask);
        answer.await.unwrap_or(Err(AskError::Gone))
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        QUESTIONS_ASKED.increment([self.kind, self.result], 1);
        let Some(id) = self.id else { return };
        let node = self.cluster.questions.lock().asked.withdraw(id);
        if let Some(node) = node {
            self.cluster.answer(node, Body::Cancel(Ids { ids: vec![id] }));
        }
    }
}

impl Cluster {
    /// Sends a question in a task of its own, so that it goes whole even if it is withdrawn.
    fn send_question(self: &Arc<Self>, node: NodeId, id: u64, ask: Ask) {
        let cluster = Arc::downgrade(self);
        self.runtime.spawn(async move {
            let Some(cluster) = cluster.upgrade() else { return };
            if !cluster.reach(node, Body::Ask(ask)).await {
                // Others that it has accepted may still be answered, as long as it is not down.
                let waiter = cluster.questions.lock().asked.unsent(id);
                let _ = waiter.map(|waiter| waiter.send(Err(AskError::Gone)));
                return;
            }
            let is_given_up = cluster.questions.lock().asked.sent(id);
            if is_given_up {
                cluster.answer(node, Body::Cancel(Ids { ids: vec![id] }));
            }
        });
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests;
