//! The task that hears: it connects, subscribes and watches over the connection, for ever.

use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{PushInfo, PushKind, RedisError, Value};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tower_channels::adapter::{BoxFuture, Link, NodeInbox};
use tower_channels_transports::limited;

use crate::backoff::{Attempts, Retries, random};
use crate::connector::{Connection, Connector, ask_for_server};
use crate::error::ConnectError;
use crate::listening::{Listening, Step};
use crate::names::Names;

/// How often a server is asked whether it is there, and is not a replica; and how long it may be silent while
/// something is asked of it.
const CHECK: Duration = Duration::from_secs(2);

/// What the task shares with the adapter: what the node wants to hear.
#[derive(Debug)]
pub(crate) struct Interest {
    listening: Mutex<Listening<Waiter>>,
    changed: Notify,
}

type Waiter = oneshot::Sender<Infallible>;

impl Interest {
    pub(crate) fn new() -> Self {
        Self { listening: Mutex::new(Listening::new()), changed: Notify::new() }
    }

    /// Changes something, and resolves when the waiter that `change` was given is released.
    pub(crate) fn wait(
        &self,
        change: impl FnOnce(&mut Listening<Waiter>, Waiter),
    ) -> BoxFuture<'static, ()> {
        let (waiter, released) = oneshot::channel();
        self.with(|listening| change(listening, waiter));
        Box::pin(async move {
            let _ = released.await;
        })
    }

    /// Changes something, and wakes whom that concerns.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Listening<Waiter>) -> T) -> T {
        let mut listening = self.listening.lock();
        let result = change(&mut listening);
        let released = listening.take_released();
        let has_step = listening.has_step();
        drop(listening);
        drop(released);
        if has_step {
            self.changed.notify_one();
        }
        result
    }
}

/// The task that hears.
pub(crate) struct Hearing {
    pub(crate) connector: Connector,
    pub(crate) names: Arc<Names>,
    /// The channel of this node.
    pub(crate) own: String,
    pub(crate) inbox: Arc<dyn NodeInbox>,
    pub(crate) interest: Arc<Interest>,
    /// Counts the wishes for new connections.
    pub(crate) renewals: watch::Sender<u64>,
    pub(crate) retries: Arc<Retries>,
}

/// Why a connection ended.
enum End {
    /// It could not be opened, or the server is one that cannot be used.
    Refused(ConnectError),
    Closed,
    /// Nothing was heard for as long as the server may be silent.
    Silent,
    Failed(RedisError),
    /// A new connection was asked for.
    Renewed,
}

impl Hearing {
    pub(crate) async fn run(self) {
        let mut attempts = Attempts::new();
        loop {
            let (reason, lasted) = self.connect().await;
            if attempts.ended(&reason, lasted) {
                limited!(WARN, ?reason, "not connected to Redis: no other node is heard");
            }
            self.retries.hearing.wait(attempts.pause(random())).await;
        }
    }

    /// Connects and hears until the connection ends. Returns why, and how long it heard.
    async fn connect(&self) -> (End, Option<Duration>) {
        let mut renewals = self.renewals.subscribe();
        let ear = Arc::new(Ear::new(self.names.clone(), self.inbox.clone()));
        let receive = {
            let ear = ear.clone();
            move |push| ear.take(push)
        };
        let connection = match self.connector.open(receive).await {
            Ok(connection) => connection,
            Err(error) => return (End::Refused(error), None),
        };
        // What was asked for until now has been done.
        renewals.mark_unchanged();
        let session = Session { hearing: self, connection, ear, up_since: OnceLock::new() };
        let end = tokio::select! {
            Err(end) = session.hear() => end,
            () = session.connection.closed() => End::Closed,
            _ = renewals.changed() => End::Renewed,
        };
        if matches!(end, End::Refused(ConnectError::Unsupported(_))) {
            // The other connection leads to the same server.
            self.renewals.send_modify(|count| *count = count.wrapping_add(1));
        }
        let Session { connection, up_since, .. } = session;
        // What the old connection still hands over must not mix with what the next one does.
        connection.close().await;
        let lasted = up_since.get().map(Instant::elapsed);
        if lasted.is_some() {
            self.interest.with(Listening::disconnected);
            self.inbox.link(Link::Down);
        }
        (end, lasted)
    }
}

/// One connection on which the node hears.
struct Session<'a> {
    hearing: &'a Hearing,
    connection: Connection,
    ear: Arc<Ear>,
    /// Since when the other nodes are heard.
    up_since: OnceLock<Instant>,
}

impl Session<'_> {
    /// Subscribes and watches over the connection until that fails.
    async fn hear(&self) -> Result<Infallible, End> {
        let Hearing { names, own, inbox, interest, .. } = self.hearing;
        let (mut exact, mut pattern) =
            (self.connection.redis.clone(), self.connection.redis.clone());
        let channels = [names.all.as_str(), own];
        let subscribed = async {
            tokio::try_join!(pattern.psubscribe(&names.pattern), exact.subscribe(&channels))
        };
        self.answer(subscribed).await?.map_err(End::Failed)?;
        drop((exact, pattern));

        interest.with(Listening::connected);
        self.up_since.get_or_init(Instant::now);
        self.hearing.retries.sending.now();
        inbox.link(Link::Up);
        limited!(INFO, "connected to Redis: the other nodes are heard");

        let mut check = interval_at(Instant::now() + CHECK, CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(step) = interest.with(Listening::next) {
                self.take(step).await?;
            }
            tokio::select! {
                () = interest.changed.notified() => {}
                _ = check.tick() => {
                    let mut redis = self.connection.redis.clone();
                    self.answer(ask_for_server(&mut redis)).await?.map_err(End::Refused)?;
                }
            }
        }
    }

    /// Takes a step towards hearing what is wanted.
    async fn take(&self, step: Step<Waiter>) -> Result<(), End> {
        let Hearing { names, interest, .. } = self.hearing;
        let mut redis = self.connection.redis.clone();
        let confirmed = async {
            match &step {
                Step::AddPattern => redis.psubscribe(&names.pattern).await,
                Step::RemovePattern => redis.punsubscribe(&names.pattern).await,
                Step::Topics { add, remove, .. } => {
                    if !add.is_empty() {
                        redis.subscribe(names.topics(add)).await?;
                    }
                    if !remove.is_empty() {
                        redis.unsubscribe(names.topics(remove)).await?;
                    }
                    Ok(())
                }
            }
        };
        self.answer(confirmed).await?.map_err(End::Failed)?;
        interest.with(|listening| listening.done(step));
        Ok(())
    }

    /// Waits for an answer for as long as anything is heard: what is published before the answer may be much.
    async fn answer<T>(&self, answer: impl Future<Output = T>) -> Result<T, End> {
        tokio::pin!(answer);
        self.ear.has_heard.store(false, Ordering::Relaxed);
        loop {
            match timeout(CHECK, &mut answer).await {
                Ok(answer) => return Ok(answer),
                Err(_) if self.ear.has_heard.swap(false, Ordering::Relaxed) => {}
                Err(_) => return Err(End::Silent),
            }
        }
    }
}

/// Takes what a connection hears, in the task that reads from it.
struct Ear {
    names: Arc<Names>,
    inbox: Arc<dyn NodeInbox>,
    /// Whether something was heard since it was last asked.
    has_heard: AtomicBool,
    /// Whether the server delivers every topic by the pattern, as its last confirmation says.
    by_pattern: AtomicBool,
}

impl Ear {
    fn new(names: Arc<Names>, inbox: Arc<dyn NodeInbox>) -> Self {
        let no = || AtomicBool::new(false);
        Self { names, inbox, has_heard: no(), by_pattern: no() }
    }

    fn take(&self, push: PushInfo) {
        self.has_heard.store(true, Ordering::Relaxed);
        if let Some(frame) = self.frame(push) {
            self.inbox.receive(frame.into());
        }
    }

    /// Returns the frame in a push. A topic that is delivered by the pattern and by its name is taken by the pattern
    /// alone: from the confirmation that the pattern is subscribed to the one that it is not, which
    /// stand in the same order as the messages, so that each frame is taken once.
    fn frame(&self, push: PushInfo) -> Option<Vec<u8>> {
        let PushInfo { kind, mut data } = push;
        match kind {
            PushKind::PMessage => {}
            PushKind::Message => {
                if self.by_pattern.load(Ordering::Relaxed)
                    && matches!(data.first(), Some(Value::BulkString(name)) if self.names.is_topic(name))
                {
                    return None;
                }
            }
            PushKind::PSubscribe => {
                self.by_pattern.store(true, Ordering::Relaxed);
                return None;
            }
            PushKind::PUnsubscribe => {
                self.by_pattern.store(false, Ordering::Relaxed);
                return None;
            }
            _ => return None,
        }
        match data.pop() {
            Some(Value::BulkString(frame)) => Some(frame),
            _ => None,
        }
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => fmt::Display::fmt(error, f),
            Self::Closed => f.write_str("the connection was closed"),
            Self::Silent => f.write_str("the server did not answer"),
            Self::Failed(error) => fmt::Display::fmt(error, f),
            Self::Renewed => f.write_str("a new connection was asked for"),
        }
    }
}

#[cfg(test)]
mod tests;
