//! [`Shared`]: what a store shares with its task.

use std::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_nats::ServerAddr;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tower_channels::adapter::{
    Append, BoxFuture, HistoryInbox, Keep, NodeId, Page, PublishError, Since, StoreError,
};
use tower_channels::history::Position;
use tower_channels_transports::limited;

use super::link::{Access, Link};
use super::pending::Pending;
use super::reading;
use super::stream::{Found, Settings, found};
use crate::backoff;
use crate::config::NatsConfig;
use crate::interest::{Interest, Selection};
use crate::subjects::Subjects;

/// What a store shares with its task.
pub(crate) struct Shared {
    pub(crate) config: NatsConfig,
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) subjects: Subjects,
    pub(crate) settings: Settings,
    /// Identifies this store: of its messages, and where it is answered.
    pub(crate) node: NodeId,
    pending: Mutex<Pending>,
    /// There is something to send.
    pub(crate) filled: Notify,
    /// There is something to wait for.
    waits: Notify,
    interest: Mutex<Interest>,
    /// The interest has changed.
    pub(crate) changed: Notify,
    /// The version of the interest up to which everything is heard. The highest without a connection: nobody waits.
    pub(crate) applied: watch::Sender<u64>,
    access: watch::Sender<Access>,
    /// Something was refused: the stream may be gone.
    pub(crate) trouble: Notify,
    /// The stream is there, after trouble.
    pub(crate) settled: Notify,
    pub(crate) epoch: AtomicU64,
    /// The highest number of the epoch that is known.
    pub(crate) seen: AtomicU64,
    /// `None` before the start and after the drop.
    inbox: Mutex<Option<Arc<dyn HistoryInbox>>>,
    is_closed: watch::Sender<bool>,
    room: Semaphore,
}

/// How long a read may take.
const PATIENCE: Duration = Duration::from_millis(1900);

/// How long a read that has failed waits before it is tried again, within its time.
const AGAIN: Duration = Duration::from_millis(100);

/// How many reads may wait for the server. Others wait for them, within their time.
const MAX_READS: usize = 32;

/// How often it is looked which messages have waited for too long.
const LOOK: Duration = Duration::from_millis(100);

impl Shared {
    pub(crate) fn new(config: NatsConfig, servers: Vec<ServerAddr>) -> Self {
        let subjects = Subjects::new(&config.app);
        let mut interest = Interest::new();
        interest.hear_all(false);
        Self {
            settings: Settings::new(&config.app, &subjects, &config.history),
            pending: Mutex::new(Pending::new(config.history.max_queue)),
            node: NodeId(backoff::random()),
            config,
            servers,
            subjects,
            filled: Notify::new(),
            waits: Notify::new(),
            interest: Mutex::new(interest),
            changed: Notify::new(),
            applied: watch::Sender::new(u64::MAX),
            access: watch::Sender::new(Access::Waiting),
            trouble: Notify::new(),
            settled: Notify::new(),
            epoch: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            inbox: Mutex::default(),
            is_closed: watch::Sender::new(false),
            room: Semaphore::new(MAX_READS),
        }
    }

    pub(crate) fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        *self.inbox.lock() = Some(inbox);
    }

    /// Hands over nothing any more. What waits is kept all the same.
    pub(crate) fn close(&self) {
        let inbox = self.inbox.lock().take();
        drop(inbox);
        self.is_closed.send_replace(true);
    }

    /// Resolves when it is closed.
    pub(crate) async fn closed(&self) {
        // It is not an error: the sender is borrowed.
        let _ = self.is_closed.subscribe().wait_for(|is_closed| *is_closed).await;
    }

    pub(crate) fn inbox(&self) -> Option<Arc<dyn HistoryInbox>> {
        self.inbox.lock().clone()
    }

    /// Changes the interest, and resolves when what is wanted then is heard.
    pub(crate) fn change(
        &self,
        change: impl FnOnce(&mut Interest) -> bool,
    ) -> BoxFuture<'static, ()> {
        let (is_changed, version) = {
            let mut interest = self.interest.lock();
            (change(&mut interest), interest.version())
        };
        let mut applied = self.applied.subscribe();
        if is_changed {
            self.changed.notify_one();
        }
        if *applied.borrow() >= version {
            return Box::pin(future::ready(()));
        }
        Box::pin(async move {
            // An error: the store is gone.
            let _ = applied.wait_for(|applied| *applied >= version).await;
        })
    }

    /// What to subscribe to, and the version of that.
    pub(crate) fn wanted(&self) -> (Selection, u64) {
        let interest = self.interest.lock();
        (interest.wanted(), interest.version())
    }

    pub(crate) fn listens(&self, topic: &str) -> bool {
        self.interest.lock().listens(topic)
    }

    pub(crate) fn append(&self, message: Append) -> Result<(), PublishError> {
        let pushed = self.pending.lock().push(message, Instant::now());
        // It is dropped here, as it may wake somebody.
        pushed.map_err(|_| PublishError::Overflow)?;
        self.filled.notify_one();
        self.waits.notify_one();
        Ok(())
    }

    /// The next message to send: its number, where to, its content, and how much is kept of its topic.
    pub(crate) fn next(&self) -> Option<(u64, (String, Bytes, Keep))> {
        let take = |append: &Append| {
            (self.subjects.kept(&append.topic), append.content.clone(), append.keep)
        };
        self.pending.lock().next(take)
    }

    /// All that has no answer is sent again.
    pub(crate) fn rewind(&self) {
        self.pending.lock().rewind();
    }

    /// Completes a publish: its message is kept.
    pub(crate) fn kept(&self, own: u64, number: u64) {
        self.saw(number);
        let (kept, overtaken) = self.pending.lock().kept(own);
        let epoch = self.epoch.load(Ordering::Relaxed);
        if let Some(done) = kept.and_then(|append| append.done) {
            let _ = done.send(Ok(Position { epoch, number }));
        }
        self.lost(overtaken, "it was refused, and a later one was kept");
    }

    /// A message is not kept now, and will be sent again.
    pub(crate) fn refused(&self, own: u64) {
        self.pending.lock().refused(own);
        self.trouble.notify_one();
    }

    /// A message is not kept.
    pub(crate) fn failed(&self, own: u64, reason: &str) {
        let failed = self.pending.lock().answered(own);
        self.lost(failed.into_iter().collect(), reason);
    }

    fn lost(&self, appends: Vec<Append>, reason: &str) {
        let inbox = if appends.is_empty() { None } else { self.inbox() };
        for Append { topic, done, .. } in appends {
            let error = StoreError::new(reason);
            match (done, &inbox) {
                (Some(done), _) => drop(done.send(Err(error))),
                (None, Some(inbox)) => inbox.lost(&topic, &error),
                (None, None) => {}
            }
        }
    }

    /// Gives up messages that have waited for too long. Returns when the store is closed and nothing waits.
    pub(crate) async fn expire(&self) {
        loop {
            if self.pending.lock().is_empty() {
                if *self.is_closed.borrow() {
                    return;
                }
                tokio::select! {
                    () = self.waits.notified() => {}
                    () = self.closed() => {}
                }
                continue;
            }
            sleep(LOOK).await;
            let expired = self.pending.lock().expire(Instant::now());
            self.lost(expired, "NATS has not answered within five seconds");
        }
    }

    /// A message with this number is kept.
    pub(crate) fn saw(&self, number: u64) {
        self.seen.fetch_max(number, Ordering::Relaxed);
    }

    /// Asks for the stream.
    pub(crate) async fn look(&self, link: &Link) -> Result<Found, StoreError> {
        let info = self.settings.info(&link.context).await.map_err(StoreError::new)?;
        let info = info.ok_or_else(|| StoreError::new("the stream is gone"))?;
        Ok(found(&info))
    }

    /// Histories can be kept and read.
    pub(crate) fn open(&self, link: &Link, is_interrupted: bool) {
        let Found { epoch, last, .. } = link.found;
        if self.epoch.swap(epoch, Ordering::Relaxed) == epoch {
            self.saw(last);
        } else {
            self.seen.store(last, Ordering::Relaxed);
        }
        self.set_access(Access::Open(Box::new(link.clone())));
        if let Some(inbox) = self.inbox().filter(|_| is_interrupted) {
            inbox.interrupted();
        }
    }

    /// Histories can be kept and read, or not. The reason why not is logged once.
    pub(crate) fn set_access(&self, access: Access) {
        let before = self.access.send_replace(access.clone());
        match (before, access) {
            (Access::Unusable(before), Access::Unusable(reason)) if before == reason => {}
            (_, Access::Unusable(reason)) => {
                limited!(WARN, ?reason, "NATS keeps no histories");
            }
            (Access::Unusable(_), Access::Open(_)) => limited!(INFO, "NATS keeps histories again"),
            _ => {}
        }
    }

    /// The connection has ended: reads wait for the next one.
    pub(crate) fn disconnected(&self) {
        self.access.send_if_modified(|access| {
            let was_open = matches!(access, Access::Open(_));
            if was_open {
                *access = Access::Waiting;
            }
            was_open
        });
        self.applied.send_replace(u64::MAX);
    }

    async fn link(&self) -> Result<Link, StoreError> {
        let mut access = self.access.subscribe();
        let access = access.wait_for(|access| !matches!(access, Access::Waiting)).await;
        match access.as_deref() {
            Ok(Access::Open(link)) => Ok(Link::clone(link)),
            Ok(Access::Unusable(reason)) => Err(StoreError::new(reason)),
            _ => Err(StoreError::new("NATS is not connected")),
        }
    }

    pub(crate) async fn read(
        &self,
        topic: &str,
        since: Since,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let mut failed = None;
        let reading = async {
            let _room = self.room.acquire().await.expect("it is never closed");
            loop {
                let link = self.link().await?;
                match reading::read(self, &link, topic, since, limit).await {
                    Ok(page) => return Ok(page),
                    Err(error) => failed = Some(error),
                }
                self.trouble.notify_one();
                sleep(AGAIN).await;
            }
        };
        let read = timeout(PATIENCE, reading).await;
        read.unwrap_or_else(|_| {
            Err(failed.unwrap_or_else(|| StoreError::new("NATS has not answered")))
        })
    }
}
