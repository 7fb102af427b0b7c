//! [`Nats`]: the adapter.

use std::fmt;
use std::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::ServerAddr;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, unconstrained};
use tokio::time::timeout;
use tower_channels::adapter::{
    Adapter, AdapterLimits, BoxFuture, Channel, HistoryStore, NodeId, NodeInbox, PublishError,
    Reached, SendQueue, Store,
};

use crate::backoff;
use crate::config::NatsConfig;
use crate::connection::{Connection, End, Ended};
use crate::error::ConnectError;
use crate::hearing::Hearing;
use crate::history::History;
use crate::interest::{Interest, Selection};
use crate::records::Records;
use crate::sender::{Question, Sender};
use crate::subjects::Subjects;

/// Carries frames between nodes over NATS. See the [crate](crate) for what it needs and guarantees.
pub struct Nats {
    shared: Arc<Shared>,
    history: Arc<History>,
    questions: mpsc::Sender<Question>,
    /// Until the start.
    asked: Mutex<Option<mpsc::Receiver<Question>>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// What the tasks of an adapter share with it.
pub(crate) struct Shared {
    pub(crate) config: NatsConfig,
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) subjects: Subjects,
    pub(crate) queue: SendQueue,
    pub(crate) records: Records,
    pub(crate) interest: Mutex<Interest>,
    /// The interest has changed.
    pub(crate) changed: Notify,
    /// The version of the interest up to which everything is heard. The highest without a connection: nobody waits.
    pub(crate) applied: watch::Sender<u64>,
    /// Ends the connection, if there is one.
    pub(crate) connection: Mutex<Option<Ended>>,
    /// Whether frames to topics may have come in another order since the connection was opened. Set under the lock of
    /// the interest.
    pub(crate) is_unordered: AtomicBool,
    /// The longest payload that the server accepts.
    pub(crate) max_payload: AtomicUsize,
}

/// The longest frame, whatever the server accepts: a long one keeps those behind it waiting.
const MAX_FRAME: usize = 1 << 20;

/// For how long the server's answer to a frame for one node is waited for.
const ANSWER: Duration = Duration::from_secs(1);

/// How many frames to one node may wait to be sent; who wants to send another one waits itself.
const MAX_QUESTIONS: usize = 32;

impl Nats {
    /// Connects to a server, to see whether it can be used: that it is reachable, accepts the credentials, knows what
    /// is needed, and permits the subjects that are needed.
    ///
    /// # Errors
    /// If the configuration is not valid, or no server can be used. Of several servers one suffices.
    pub async fn connect(config: NatsConfig) -> Result<Self, ConnectError> {
        let servers = config.servers()?;
        let subjects = Subjects::new(&config.app);
        let interest = Interest::new();
        let id = NodeId(backoff::random());
        let mut unreachable = None;
        for server in &servers {
            match Connection::open(server, &config, &subjects, id, interest.wanted()).await {
                Ok(connection) => {
                    let max_payload = connection.client.max_payload();
                    return Ok(Self::new(config, servers, subjects, interest, max_payload));
                }
                Err(error) if error.is_unreachable() => drop(unreachable.insert(error)),
                Err(error) => return Err(error),
            }
        }
        Err(unreachable.unwrap_or_else(|| ConnectError::Config("there is no server".into())))
    }

    fn new(
        config: NatsConfig,
        servers: Vec<ServerAddr>,
        subjects: Subjects,
        interest: Interest,
        max_payload: usize,
    ) -> Self {
        let (questions, asked) = mpsc::channel(MAX_QUESTIONS);
        let history = Arc::new(History::new(&config, servers.clone()));
        let shared = Arc::new(Shared {
            queue: SendQueue::new(config.max_queue, config.max_age),
            records: Records::new(config.records()),
            config,
            servers,
            subjects,
            interest: Mutex::new(interest),
            changed: Notify::new(),
            applied: watch::Sender::new(u64::MAX),
            connection: Mutex::default(),
            is_unordered: AtomicBool::new(false),
            max_payload: AtomicUsize::new(max_payload),
        });
        Self { shared, history, questions, asked: Mutex::new(Some(asked)), tasks: Mutex::default() }
    }

    /// Changes the interest, and resolves when what is wanted then is heard.
    fn change(&self, change: impl FnOnce(&mut Interest) -> bool) -> BoxFuture<'static, ()> {
        let (is_changed, version) = {
            let mut interest = self.shared.interest.lock();
            (change(&mut interest), interest.version())
        };
        let mut applied = self.shared.applied.subscribe();
        if is_changed {
            self.shared.changed.notify_one();
        }
        if *applied.borrow() >= version {
            return Box::pin(future::ready(()));
        }
        Box::pin(async move {
            // An error: the adapter is gone.
            let _ = applied.wait_for(|applied| *applied >= version).await;
        })
    }
}

impl Adapter for Nats {
    fn start(&self, node: NodeId, inbox: Arc<dyn NodeInbox>) {
        let Some(questions) = self.asked.lock().take() else { return };
        let shared = &self.shared;
        let (sender, connections) = mpsc::channel(1);
        let hearing = Hearing { shared: shared.clone(), id: node, inbox: inbox.clone(), sender };
        let shared = shared.clone();
        let sender = Sender { shared, id: node, inbox, connections, questions, mark: 0 };
        // The receiver yields by itself: it has to know whether a queue is empty.
        let hearing = tokio::spawn(unconstrained(hearing.run()));
        let sender = tokio::spawn(sender.run());
        self.tasks.lock().extend([hearing.abort_handle(), sender.abort_handle()]);
    }

    fn publish(&self, to: Channel<'_>, frame: Bytes) -> Result<(), PublishError> {
        self.shared.queue.push(to, frame)
    }

    fn reach(&self, node: NodeId, frame: Bytes) -> BoxFuture<'_, Reached> {
        Box::pin(async move {
            let answer = async {
                let (reached, answer) = oneshot::channel();
                self.questions.send(Question { to: node, frame, reached }).await.ok()?;
                answer.await.ok()
            };
            timeout(ANSWER, answer).await.ok().flatten().unwrap_or(Reached::Unknown)
        })
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.shared.queue.drained())
    }

    fn listen(&self, topic: &str) -> BoxFuture<'static, ()> {
        self.change(|interest| interest.listen(topic))
    }

    fn ignore(&self, topic: &str) {
        drop(self.change(|interest| interest.ignore(topic)));
    }

    fn hear_all(&self, all: bool) -> BoxFuture<'static, ()> {
        self.change(|interest| {
            if !all {
                self.shared.is_unordered.store(true, Ordering::Relaxed);
            }
            interest.hear_all(all)
        })
    }

    fn reconnect(&self) {
        let connection = self.shared.connection.lock().take();
        if let Some(connection) = connection {
            connection.end(End::Renewed);
        }
    }

    fn limits(&self) -> AdapterLimits {
        let limits =
            AdapterLimits::new(self.shared.max_payload.load(Ordering::Relaxed).min(MAX_FRAME));
        if self.shared.is_unordered.load(Ordering::Relaxed) { limits.unordered() } else { limits }
    }

    fn store(&self) -> Option<&dyn Store> {
        Some(&self.shared.records)
    }

    fn history(&self) -> Option<Arc<dyn HistoryStore>> {
        Some(self.history.clone())
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Shared {
    /// A connection was opened: its frames come in order if all topics are heard.
    pub(crate) fn is_ordered_again(&self) {
        let interest = self.interest.lock();
        self.is_unordered.store(!interest.wanted().is_all, Ordering::Relaxed);
    }

    /// What to subscribe to, and the version of that.
    pub(crate) fn wanted(&self) -> (Selection, u64) {
        let interest = self.interest.lock();
        (interest.wanted(), interest.version())
    }
}
