//! The task that hears: it connects, subscribes and watches over the connection, for ever.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::{PushInfo, PushKind, RedisError, Value};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tower_channels::adapter::{BoxFuture, Link, NodeInbox};
use tower_channels_transports::limited;

use crate::backoff::{Backoff, random};
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
        let mut backoff = Backoff::new();
        loop {
            let begun = Instant::now();
            let reason = self.connect().await;
            limited!(WARN, ?reason, "hears no other node: the connection to Redis failed");
            backoff.lasted(begun.elapsed());
            sleep(backoff.pause(random())).await;
        }
    }

    /// Connects and hears until the connection ends.
    async fn connect(&self) -> End {
        let mut renewals = self.renewals.subscribe();
        let ear = Arc::new(Ear::new(self.names.clone(), self.inbox.clone()));
        let receive = {
            let ear = ear.clone();
            move |push| ear.take(push)
        };
        let connection = match self.connector.open(receive).await {
            Ok(connection) => connection,
            Err(error) => return End::Refused(error),
        };
        let mut session = Session { hearing: self, connection, ear, is_up: false };
        let Err(end) = session.hear(&mut renewals).await;
        if matches!(end, End::Refused(_)) {
            // The other connection leads to the same server.
            self.renewals.send_modify(|count| *count = count.wrapping_add(1));
        }
        let Session { connection, is_up, .. } = session;
        // What the old connection still hands over must not mix with what the next one does.
        connection.close().await;
        if is_up {
            self.interest.with(Listening::disconnected);
            self.inbox.link(Link::Down);
        }
        end
    }
}

/// One connection on which the node hears.
struct Session<'a> {
    hearing: &'a Hearing,
    connection: Connection,
    ear: Arc<Ear>,
    is_up: bool,
}

impl Session<'_> {
    async fn hear(&mut self, renewals: &mut watch::Receiver<u64>) -> Result<Infallible, End> {
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
        self.is_up = true;
        inbox.link(Link::Up);
        limited!(INFO, "hears the other nodes: connected to Redis");

        let mut check = interval_at(Instant::now() + CHECK, CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if renewals.has_changed().unwrap_or(false) {
                return Err(End::Renewed);
            }
            if let Some(step) = interest.with(Listening::next) {
                self.take(step).await?;
                continue;
            }
            tokio::select! {
                () = interest.changed.notified() => {}
                () = self.connection.closed() => return Err(End::Closed),
                _ = renewals.changed() => return Err(End::Renewed),
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
            tokio::select! {
                answer = &mut answer => return Ok(answer),
                () = self.connection.closed() => return Err(End::Closed),
                () = sleep(CHECK) => {
                    if !self.ear.has_heard.swap(false, Ordering::Relaxed) {
                        return Err(End::Silent);
                    }
                }
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
            // An empty one is from a node that tries what it may do.
            Some(Value::BulkString(frame)) if !frame.is_empty() => Some(frame),
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
