//! What this node does for a question of another.

use std::future::{Future, poll_fn, ready};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use prost::Message;
use tokio::sync::oneshot;
use tower_channels_transports::limited;
use tower_channels_transports::panics::{self, Panicked};
use tower_channels_transports::peers::{self, BoxFuture, Offering, Wanted};

use super::serving::Begun;
use super::{Answer, FOR_MOVES, Question};
use crate::adapter::NodeId;
use crate::cluster::claims::Watched;
use crate::cluster::wire::Body;
use crate::cluster::wire::questions::{Answered, Ask, Offered, Relayed};
use crate::cluster::{Cluster, WeakCluster, parts};
use crate::telemetry::{FRAMES_LOST, QUESTIONS_SERVED};

impl Cluster {
    /// Takes a question of another node, and answers it from a task of its own.
    pub(in crate::cluster) fn hear_question(
        self: &Arc<Self>,
        from: NodeId,
        ask: Ask,
        now: Duration,
    ) {
        let bytes = ask.encoded_len();
        let Ask { id, endpoint, question } = ask;
        let Some(question) = question else {
            return self.answer(from, answered(id, Answer::NotHere(())));
        };
        let kind = question.kind();
        let (cancel, cancelled) = oneshot::channel();
        // A session that is packed has ended here: it is packed to the end.
        let (cancel, kept) = match question {
            Question::Take(_) => (None, Some(cancel)),
            _ => (Some(cancel), None),
        };
        let room = if question.moves() { 0 } else { FOR_MOVES };
        let begun = {
            let serving = &mut self.questions.lock().serving;
            match serving.has_room(from, bytes.saturating_add(room)) {
                true => serving.begin(from, id, bytes, now, cancel),
                false => Begun::Busy,
            }
        };
        match begun {
            Begun::Yes => {}
            Begun::Repeated => return,
            Begun::Busy => {
                QUESTIONS_SERVED.increment([kind, "busy"], 1);
                limited!(WARN, node = ?from, kind, "another node asks too much");
                return self.answer(from, answered(id, Answer::Busy(())));
            }
        }
        let cluster = Arc::downgrade(self);
        let serving = Serving { cluster, from, id, kind, result: "panicked" };
        self.runtime.spawn(async move {
            let _kept = kept;
            serving.serve(endpoint, question, cancelled).await;
        });
    }

    /// Begins to work at a question.
    fn work(
        self: &Arc<Self>,
        from: NodeId,
        endpoint: u32,
        question: Question,
    ) -> BoxFuture<Answer> {
        let index = endpoint;
        let Some(endpoint) = self.endpoint(index) else { return now(Answer::NotHere(())) };
        let request = match question {
            Question::Poll(poll) => peers::Relayed::Poll { token: poll.token },
            Question::Post(post) => {
                let (token, ndjson, body) = (post.token, post.is_ndjson, post.body);
                peers::Relayed::Post { token, ndjson, body }
            }
            Question::Offer(offer) => {
                if self.questions.lock().tickets.is_full() {
                    return now(Answer::Busy(()));
                }
                let wanted = Wanted::from(offer);
                if self.is_moving(index, &wanted.id) {
                    return now(Answer::Busy(()));
                }
                return now(match endpoint.offer(&wanted) {
                    Offering::Offered(session) => {
                        let (cluster, endpoint, id) = (Arc::downgrade(self), index, wanted.id);
                        self.offer(Watched { session, cluster, endpoint, id, to: from })
                    }
                    Offering::Taken => Answer::InUse(()),
                    Offering::Busy => Answer::Busy(()),
                    _ => Answer::NotHere(()),
                });
            }
            Question::Take(take) => {
                let session = self.questions.lock().tickets.take(from, take.ticket);
                let Some(session) = session else { return now(Answer::NotHere(())) };
                return Box::pin(session.give(take.prepared));
            }
        };
        let Some(answer) = endpoint.relayed(request) else { return now(Answer::NotHere(())) };
        Box::pin(async {
            let peers::RelayedAnswer { status, retry_after, body } = answer.await;
            Answer::Relayed(Relayed { status: status.into(), retry_after, body })
        })
    }

    /// Keeps a session for the node that may take it.
    fn offer(&self, session: Watched) -> Answer {
        let (outline, to) = (session.outline(), session.to);
        let now = self.now();
        let ticket = self.questions.lock().tickets.offer(to, session, now);
        Answer::Offered(Offered { ticket, outline })
    }
}

/// A question of another node, for as long as this one works at it.
struct Serving {
    cluster: WeakCluster,
    from: NodeId,
    id: u64,
    kind: &'static str,
    result: &'static str,
}

impl Serving {
    async fn serve(mut self, endpoint: u32, question: Question, cancelled: oneshot::Receiver<()>) {
        let from = self.from;
        let begin = || Some(self.cluster.upgrade()?.work(from, endpoint, question));
        let Ok(work) = panics::catch("session", begin) else { return };
        let Some(work) = work else { return self.result = "cancelled" };
        match until_cancelled(work, cancelled).await {
            Ok(Some(answer)) => self.send(answer).await,
            Ok(None) => self.result = "cancelled",
            // The other node hears nothing, and does not ask again.
            Err(Panicked) => {}
        }
    }

    async fn send(&mut self, mut answer: Answer) {
        self.result = "answered";
        let Some(cluster) = self.cluster.upgrade() else { return };
        let mut bytes = answer.encoded_len();
        if bytes > parts::LONGEST {
            FRAMES_LOST.increment(["too_large"], 1);
            limited!(ERROR, bytes, kind = self.kind, "an answer is too long for another node");
            (answer, bytes) = (Answer::NotHere(()), 0);
        }
        let has_room = cluster.questions.lock().serving.answer(self.from, self.id, bytes);
        // A request is made again; a session that was packed is nowhere else.
        if !has_room && matches!(answer, Answer::Relayed(_)) {
            limited!(WARN, node = ?self.from, "too many answers to another node wait");
            self.result = "busy";
            answer = Answer::Busy(());
        }
        cluster.reach(self.from, answered(self.id, answer)).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        QUESTIONS_SERVED.increment([self.kind, self.result], 1);
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.questions.lock().serving.end(self.from, self.id);
        }
    }
}

/// Awaits an answer. `None` if it is not wanted any more.
async fn until_cancelled(
    work: BoxFuture<Answer>,
    cancelled: oneshot::Receiver<()>,
) -> Result<Option<Answer>, Panicked> {
    let (mut work, mut cancelled) = (work, pin!(cancelled));
    poll_fn(|cx| {
        if cancelled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(None));
        }
        match panics::catch("session", || work.as_mut().poll(cx)) {
            Ok(polled) => polled.map(|answer| Ok(Some(answer))),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    })
    .await
}

fn answered(id: u64, answer: Answer) -> Body {
    Body::Answer(Answered { id, answer: Some(answer) })
}

/// An answer that is there.
fn now(answer: Answer) -> BoxFuture<Answer> {
    Box::pin(ready(answer))
}
