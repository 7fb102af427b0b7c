//! [`History`]: keeps the messages of topics in the server.
//!
//! A topic is two keys, which the script `append` describes, and a channel on which each message is published in the
//! moment in which it is kept. All of it happens in scripts, so that it is done as a whole or not at all.

mod delivery;
mod door;
mod entry;
mod keeping;
mod queue;
mod reading;
mod script;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::Instant;
use tower_channels::adapter::{
    Append, BoxFuture, HistoryInbox, HistoryStore, Page, PublishError, Since, StoreError,
};
use tower_channels::history::Position;

pub(crate) use self::delivery::Delivery;
use self::door::Access;
pub(crate) use self::door::Door;
use self::keeping::Keeping;
pub(crate) use self::queue::Queue;
pub(crate) use self::script::Scripts;
use crate::backoff::Retries;

/// How long the server may take to answer: a little less than the two seconds for which somebody waits.
const PATIENCE: Duration = Duration::from_millis(1800);

/// The longest time for which a message is tried: what was kept of a sender is searched for a minute.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(30);

/// How many reads may wait for the server. Others wait for them, within their time.
const MAX_READS: usize = 64;

/// A [`HistoryStore`] in a Redis server. It has a connection of its own, on which it keeps and reads.
pub(crate) struct History {
    door: Door,
    shared: Arc<Shared>,
    renewals: watch::Sender<u64>,
    retries: Arc<Retries>,
}

/// What the store shares with its task.
struct Shared {
    queue: Mutex<Queue>,
    /// Wakes the task.
    filled: Notify,
    /// The connection, while there is one.
    access: watch::Sender<Option<Access>>,
    /// The server has nothing to say about the keys any more.
    moved: Notify,
    room: Semaphore,
    delivery: Arc<Delivery>,
}

impl History {
    pub(crate) fn new(
        door: Door,
        queue: Queue,
        delivery: Arc<Delivery>,
        renewals: watch::Sender<u64>,
        retries: Arc<Retries>,
    ) -> Self {
        let shared = Shared {
            queue: Mutex::new(queue),
            filled: Notify::new(),
            access: watch::Sender::new(None),
            moved: Notify::new(),
            room: Semaphore::new(MAX_READS),
            delivery,
        };
        Self { door, shared: Arc::new(shared), renewals, retries }
    }
}

impl HistoryStore for History {
    fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        self.shared.delivery.start(inbox);
        let keeping = Keeping {
            door: self.door.clone(),
            shared: self.shared.clone(),
            renewals: self.renewals.subscribe(),
            retries: self.retries.clone(),
            generation: 0,
        };
        tokio::spawn(keeping.run());
    }

    fn listen(&self, topic: &str) -> BoxFuture<'static, ()> {
        self.shared.delivery.interest.wait(|listening, waiter| listening.listen(topic, waiter))
    }

    fn ignore(&self, topic: &str) {
        self.shared.delivery.interest.with(|listening| listening.ignore(topic));
    }

    fn append(&self, message: Append) -> Result<(), PublishError> {
        self.shared.queue.lock().push(message, Instant::now())?;
        self.shared.filled.notify_one();
        Ok(())
    }

    fn read<'a>(
        &'a self,
        topic: &'a str,
        since: Since,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(reading::read(&self.door, &self.shared, topic, since, limit))
    }
}

impl Shared {
    /// Waits until something waits to be kept; false once the store was dropped, and nothing does.
    async fn filled(&self) -> bool {
        loop {
            {
                let queue = self.queue.lock();
                if !queue.is_empty() || queue.is_closed {
                    return !queue.is_empty();
                }
            }
            self.filled.notified().await;
        }
    }

    fn is_done(&self) -> bool {
        let queue = self.queue.lock();
        queue.is_closed && queue.is_empty()
    }

    /// A message that was sent has got its answer.
    fn answered(&self, number: u64, answer: Result<Position, StoreError>) {
        let message = self.queue.lock().answered(number);
        if let Some(message) = message {
            self.tell(message, answer);
        }
    }

    /// Gives up the messages that have waited for too long.
    fn expire(&self) {
        let expired = self.queue.lock().expire(Instant::now());
        for message in expired {
            self.tell(message, Err(StoreError::new("Redis has not answered in time")));
        }
    }

    fn tell(&self, message: Append, answer: Result<Position, StoreError>) {
        match (message.done, answer) {
            (Some(done), answer) => {
                // Nobody may wait any more.
                let _ = oneshot::Sender::send(done, answer);
            }
            (None, Err(error)) => {
                if let Some(inbox) = self.delivery.inbox() {
                    inbox.lost(&message.topic, &error);
                }
            }
            (None, Ok(_)) => {}
        }
    }
}

/// Keeps what waits, and lets go of the inbox.
impl Drop for History {
    fn drop(&mut self) {
        self.shared.queue.lock().is_closed = true;
        self.shared.filled.notify_one();
        self.shared.delivery.end();
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("door", &self.door).finish_non_exhaustive()
    }
}
