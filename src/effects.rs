//! What work under a lock leaves to do once the lock is released.

use std::sync::Arc;
use std::task::Waker;

use metrics::Counter;
use tower_channels_transports::outbox::{self, Enqueued};
use tower_channels_transports::telemetry::{MESSAGES_REPLAYED, Metric, OUTBOX_OVERFLOWS};
use tower_channels_transports::{Close, Memory, Message, limited};

use crate::telemetry::{INTERCEPTS_DROPPED, MESSAGES_SKIPPED};
use crate::topics::subscriber::Inbox;

/// Wake-ups, closes and counts, collected under a lock and carried out after it.
///
/// Wakers, metrics recorders and log subscribers are foreign code, which may call this library:
/// under one of its locks that would be a deadlock.
#[derive(Default)]
#[must_use = "the effects take place in `run`"]
pub(crate) struct Effects {
    wakeups: Vec<Waker>,
    /// The outboxes to close because the replay log could not keep all that they missed.
    overflowing: Vec<outbox::Sender>,
    /// How many messages exceeded the limit of an outbox, which closed it.
    overflows: u64,
    skipped: u64,
    intercepts_dropped: u64,
    /// The inboxes of channels that have missed a broadcast, and are to end.
    missing: Vec<Arc<dyn Inbox>>,
    replayed: u64,
    /// The memory of the endpoint, if it is exceeded.
    exceeded: Option<Memory>,
}

impl Effects {
    /// Enqueues a message for a client.
    pub(crate) fn enqueue(&mut self, outbox: &outbox::Sender, message: Message) {
        self.add(outbox.enqueue(message));
    }

    /// Leaves it to [`run`](Self::run) to finish what was enqueued.
    pub(crate) fn add(&mut self, enqueued: Enqueued) {
        self.overflows += u64::from(enqueued.overflowed);
        self.relieve(enqueued.exceeded);
        self.wake(enqueued.wakeup.into_waker());
    }

    pub(crate) fn wake(&mut self, waker: Option<Waker>) {
        self.wakeups.extend(waker);
    }

    /// Closes the outbox of a client that has missed more than was kept for it.
    pub(crate) fn overflow(&mut self, outbox: &outbox::Sender) {
        self.overflowing.push(outbox.clone());
    }

    /// Counts a message that a client's protocol version cannot carry.
    pub(crate) fn skip(&mut self) {
        self.skipped += 1;
    }

    /// Counts a broadcast that a channel would have handled itself, but has no room for.
    pub(crate) fn drop_intercept(&mut self) {
        self.intercepts_dropped += 1;
    }

    /// Ends a channel that has missed a broadcast.
    pub(crate) fn miss(&mut self, inbox: &Arc<dyn Inbox>) {
        self.missing.push(Arc::clone(inbox));
    }

    /// Relieves memory that is exceeded.
    pub(crate) fn relieve(&mut self, exceeded: Option<Memory>) {
        if exceeded.is_some() {
            self.exceeded = exceeded;
        }
    }

    /// Counts messages that were kept for a client.
    pub(crate) fn replay(&mut self, messages: u64) {
        self.replayed += messages;
    }

    /// Carries everything out. The caller holds no lock.
    pub(crate) fn run(self) {
        self.wakeups.into_iter().for_each(Waker::wake);
        self.overflowing.iter().for_each(|outbox| outbox.close(Close::Overflow));
        self.missing.iter().for_each(|inbox| inbox.miss());
        let count = |metric: &Metric<Counter>, count| {
            if count > 0 {
                metric.add(count);
            }
        };
        count(&OUTBOX_OVERFLOWS, self.overflows + self.overflowing.len() as u64);
        count(&MESSAGES_SKIPPED, self.skipped);
        count(&INTERCEPTS_DROPPED, self.intercepts_dropped);
        count(&MESSAGES_REPLAYED, self.replayed);
        if let Some(memory) = self.exceeded {
            memory.relieve();
        }
        if self.skipped > 0 {
            let count = self.skipped;
            limited!(
                DEBUG,
                count,
                "skipped messages that a client's protocol version cannot carry"
            );
        }
    }
}
