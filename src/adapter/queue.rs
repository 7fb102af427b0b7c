//! [`SendQueue`]: what waits to be sent to an engine.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{Channel, PublishError};

/// Frames that wait to be sent, for adapters: bounded in bytes and in age. A cheap clone.
///
/// While the engine is away frames wait, and those that have waited for too long are handed back instead of being
/// sent: a message that comes late is worse than one that is known to be lost.
#[derive(Clone)]
pub struct SendQueue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Wakes the task that sends.
    filled: Notify,
    /// Wakes those that wait until everything is sent.
    drained: Notify,
    max_bytes: usize,
    max_age: Duration,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Outgoing>,
    bytes: usize,
    /// Frames that were taken and are not [done](SendQueue::done).
    taken: usize,
    /// Until when frames are [held back](SendQueue::hold).
    held_until: Option<Instant>,
}

/// A frame in a [`SendQueue`].
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The topic, or `None` for all nodes.
    pub topic: Option<SmolStr>,
    /// The frame.
    pub frame: Bytes,
    since: Instant,
}

impl Outgoing {
    /// Where it goes.
    pub fn channel(&self) -> Channel<'_> {
        self.topic.as_deref().map_or(Channel::All, Channel::Topic)
    }

    fn cost(&self) -> usize {
        self.frame.len() + self.topic.as_ref().map_or(0, SmolStr::len) + OVERHEAD
    }
}

/// What a frame takes beside its bytes and its topic.
const OVERHEAD: usize = 128;

impl SendQueue {
    /// Creates a queue in which up to `max_bytes` wait, each frame for `max_age` at most.
    #[must_use]
    pub fn new(max_bytes: usize, max_age: Duration) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            filled: Notify::new(),
            drained: Notify::new(),
            max_bytes,
            max_age,
        }))
    }

    /// Appends a frame.
    ///
    /// # Errors
    /// If there is no room. An empty queue has room for any frame.
    pub fn push(&self, to: Channel<'_>, frame: Bytes) -> Result<(), PublishError> {
        let topic = match to {
            Channel::All => None,
            Channel::Topic(topic) => Some(topic.into()),
        };
        let outgoing = Outgoing { topic, frame, since: Instant::now() };
        let mut state = self.0.state.lock();
        let bytes = state.bytes + outgoing.cost();
        if bytes > self.0.max_bytes && !state.frames.is_empty() {
            return Err(PublishError::Overflow);
        }
        let was_empty = state.frames.is_empty();
        state.bytes = bytes;
        state.frames.push_back(outgoing);
        drop(state);
        if was_empty {
            self.0.filled.notify_one();
        }
        Ok(())
    }

    /// Holds all frames back for this time. To be called when the engine was away and is there again: the other nodes
    /// have to find it, too, before they hear what has waited.
    pub fn hold(&self, time: Duration) {
        self.0.state.lock().held_until = Some(Instant::now() + time);
    }

    /// Waits for frames and takes up to `count` of them, oldest first, into `batch`. They count as unsent until
    /// [`done`](Self::done). One task at a time may wait.
    ///
    /// Cancel safety: no frame is lost.
    pub async fn take(&self, batch: &mut Vec<Outgoing>, count: usize) {
        loop {
            let held_until = self.0.state.lock().held_until;
            if let Some(until) = held_until {
                sleep_until(until).await;
            }
            {
                let mut state = self.0.state.lock();
                if state.held_until == held_until {
                    state.held_until = None;
                }
                if !state.frames.is_empty() {
                    let count = count.min(state.frames.len());
                    let before = batch.len();
                    batch.extend(state.frames.drain(..count));
                    state.taken += count;
                    state.bytes -= batch[before..].iter().map(Outgoing::cost).sum::<usize>();
                    return;
                }
            }
            self.0.filled.notified().await;
        }
    }

    /// The frames taken last were sent, or are lost.
    pub fn done(&self) {
        let mut state = self.0.state.lock();
        state.taken = 0;
        let is_empty = state.frames.is_empty();
        drop(state);
        if is_empty {
            self.0.drained.notify_waiters();
        }
    }

    /// Removes the frames that have waited for too long, oldest first.
    #[must_use = "they are lost"]
    pub fn expire(&self) -> Vec<Outgoing> {
        let now = Instant::now();
        let mut state = self.0.state.lock();
        let is_old = |it: &Outgoing| now.duration_since(it.since) > self.0.max_age;
        let count = state.frames.iter().take_while(|it| is_old(it)).count();
        let expired: Vec<_> = state.frames.drain(..count).collect();
        state.bytes -= expired.iter().map(Outgoing::cost).sum::<usize>();
        let is_drained = state.frames.is_empty() && state.taken == 0;
        drop(state);
        if is_drained {
            self.0.drained.notify_waiters();
        }
        expired
    }

    /// Resolves when every frame has been sent, or is lost.
    pub async fn drained(&self) {
        loop {
            let drained = self.0.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            {
                let state = self.0.state.lock();
                if state.frames.is_empty() && state.taken == 0 {
                    return;
                }
            }
            drained.await;
        }
    }
}

impl fmt::Debug for SendQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendQueue")
            .field("bytes", &self.0.state.lock().bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn take(queue: &SendQueue, count: usize) -> Vec<Bytes> {
        let mut batch = Vec::new();
        queue.take(&mut batch, count).await;
        batch.into_iter().map(|outgoing| outgoing.frame).collect()
    }

    #[tokio::test]
    async fn frames_are_taken_in_order_and_in_batches() {
        let queue = SendQueue::new(1000, SECOND);
        for frame in ["a", "b", "c"] {
            queue.push(Channel::Topic("t"), frame.into()).unwrap();
        }
        assert_eq!(take(&queue, 2).await, ["a", "b"]);
        assert_eq!(take(&queue, 2).await, ["c"]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_frames_until_some_are_taken() {
        let queue = SendQueue::new(2 * (OVERHEAD + 10), SECOND);
        let frame = Bytes::from_static(&[0; 10]);
        let push = || queue.push(Channel::All, frame.clone());
        assert_eq!([push(), push(), push()], [Ok(()), Ok(()), Err(PublishError::Overflow)]);
        take(&queue, 1).await;
        assert_eq!([push(), push()], [Ok(()), Err(PublishError::Overflow)]);
    }

    #[tokio::test]
    async fn an_empty_queue_has_room_for_any_frame() {
        let queue = SendQueue::new(1, SECOND);
        assert_eq!(queue.push(Channel::All, vec![0; 100_000].into()), Ok(()));
        assert_eq!(queue.push(Channel::All, Bytes::new()), Err(PublishError::Overflow));
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_have_waited_for_too_long_are_handed_back() {
        let queue = SendQueue::new(1000, SECOND);
        queue.push(Channel::Topic("t"), "old".into()).unwrap();
        tokio::time::advance(SECOND).await;
        assert!(queue.expire().is_empty());
        queue.push(Channel::All, "new".into()).unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
        let expired = queue.expire();
        assert_eq!(
            expired.iter().map(Outgoing::channel).collect::<Vec<_>>(),
            [Channel::Topic("t")]
        );
        assert_eq!(take(&queue, 9).await, ["new"]);
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_held_back_for_a_while() {
        let queue = SendQueue::new(1000, SECOND);
        queue.push(Channel::All, "a".into()).unwrap();
        queue.hold(SECOND);
        let begun = Instant::now();
        assert_eq!(take(&queue, 9).await, ["a"]);
        assert_eq!(begun.elapsed(), SECOND);
        queue.push(Channel::All, "b".into()).unwrap();
        assert_eq!(take(&queue, 9).await, ["b"]);
        assert_eq!(begun.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_drained_when_what_was_taken_is_done() {
        let queue = SendQueue::new(1000, SECOND);
        queue.drained().await;
        queue.push(Channel::All, "a".into()).unwrap();
        take(&queue, 1).await;
        let is_drained = async || tokio::time::timeout(SECOND, queue.drained()).await.is_ok();
        assert!(!is_drained().await);
        queue.done();
        assert!(is_drained().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_waits_is_woken_by_the_first_frame() {
        let queue = SendQueue::new(1000, SECOND);
        let taken = tokio::spawn({
            let queue = queue.clone();
            async move { take(&queue, 9).await }
        });
        tokio::task::yield_now().await;
        queue.push(Channel::All, "a".into()).unwrap();
        assert_eq!(taken.await.unwrap(), ["a"]);
    }
}
