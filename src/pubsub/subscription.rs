//! [`Subscription`]: the broadcasts of a topic, for a task.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use futures_core::Stream;
use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::task::coop::consume_budget;
use tower_channels_transports::{ByteBudget, Cost};

use crate::lagged::Lagged;
use crate::serializer::Version;
use crate::topics::broadcast::Broadcast;
use crate::topics::subscriber::{Inbox, Undelivered};
use crate::topics::{Membership, Topics};

/// The broadcasts of one topic from now on, from [`PubSub::subscribe`](crate::PubSub::subscribe).
/// Dropping it unsubscribes.
///
/// It is a [`Stream`], which never ends. It receives what clients receive, including the
/// `presence_diff` of the topic, in the same order.
///
/// A broadcast waits for no reader. If more than [`PubSubConfig::max_subscription`] waits, the oldest
/// broadcasts are dropped, and the reader is told how many: [`Lagged`] comes in their place.
///
/// [`PubSubConfig::max_subscription`]: crate::PubSubConfig::max_subscription
#[must_use = "dropping it unsubscribes"]
pub struct Subscription {
    topic: SmolStr,
    queue: Arc<Queue>,
    _membership: Membership,
}

/// The broadcasts that wait for the reader.
struct Queue {
    /// Taken under the lock of the topic. Held for a few instructions.
    state: Mutex<State>,
}

struct State {
    waiting: VecDeque<Arc<Broadcast>>,
    /// What waits, by [`cost`].
    budget: ByteBudget,
    /// How many were dropped that preceded all that wait.
    missed: u64,
    waker: Option<Waker>,
}

impl Subscription {
    pub(super) fn new(topics: &Topics, topic: SmolStr, limit: usize) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            budget: ByteBudget::within(limit, Some(topics.account())),
            missed: 0,
            waker: None,
        };
        let queue = Arc::new(Queue { state: Mutex::new(state) });
        let membership = topics.add_inbox(&topic, Arc::clone(&queue) as Arc<dyn Inbox>);
        Self { topic, queue, _membership: membership }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Waits for the next broadcast.
    ///
    /// Cancel safety: no broadcast is lost.
    ///
    /// # Errors
    /// [`Lagged`] if broadcasts were dropped because too much waited. The next call returns the oldest
    /// that is left.
    pub async fn recv(&mut self) -> Result<Arc<Broadcast>, Lagged> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<Broadcast>, Lagged>> {
        // A reader for which there is always more lets other tasks run meanwhile.
        ready!(pin!(consume_budget()).poll(cx));
        self.queue.poll_recv(cx)
    }
}

impl Stream for Subscription {
    type Item = Result<Arc<Broadcast>, Lagged>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_recv(cx).map(Some)
    }
}

impl Queue {
    fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<Result<Arc<Broadcast>, Lagged>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.missed > 0 {
            return Poll::Ready(Err(Lagged(std::mem::take(&mut state.missed))));
        }
        if let Some(broadcast) = state.waiting.pop_front() {
            state.budget.release(cost(&broadcast));
            if state.waiting.is_empty() && state.waiting.capacity() > 4 {
                state.waiting = VecDeque::new();
            }
            return Poll::Ready(Ok(broadcast));
        }
        let is_known = state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        let old = if is_known { None } else { state.waker.replace(cx.waker().clone()) };
        drop(guard);
        drop(old);
        Poll::Pending
    }
}

impl Inbox for Queue {
    fn deliver(&self, broadcast: &Arc<Broadcast>) -> Result<Option<Waker>, Undelivered> {
        let State { waiting, budget, missed, waker } = &mut *self.state.lock();
        // There is room for any broadcast once nothing waits.
        while !budget.try_acquire(cost(broadcast)) {
            let Some(oldest) = waiting.pop_front() else { break };
            budget.release(cost(&oldest));
            *missed += 1;
        }
        waiting.push_back(Arc::clone(broadcast));
        Ok(waker.take())
    }
}

/// What a broadcast that waits holds: its place, and all that it may be encoded to.
fn cost(broadcast: &Broadcast) -> Cost {
    let mut cost = broadcast.cost(Version::COUNT);
    cost += Cost::from(2 * size_of::<Arc<Broadcast>>());
    cost
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("topic", &self.topic).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
