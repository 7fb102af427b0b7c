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
use crate::history::Delivery;
use crate::listening::{Listening, Step};
use crate::names::{Family, Names};

/// How often a server is asked whether it is there, and is not a replica; and how long it may be silent while
/// something is asked of it.
const CHECK: Duration = Duration::from_secs(2);

/// What the task shares with the adapter: which topics of a family the node wants to hear.
#[derive(Debug)]
pub(crate) struct Interest {
    listening: Mutex<Listening<Waiter>>,
    pub(crate) changed: Notify,
}

type Waiter = oneshot::Sender<Infallible>;

impl Interest {
    pub(crate) fn new() -> Self {
        Self { listening: Mutex::new(Listening::new()), changed: Notify::new() }
    }

    /// That of a node that wants to hear the topics of [`Listening::listen`] alone.
    pub(crate) fn in_some() -> Self {
        let interest = Self::new();
        drop(interest.wait(|listening, waiter| listening.hear_all(false, waiter)));
        interest
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
    /// Where what is kept of topics goes.
    pub(crate) history: Arc<Delivery>,
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
        let ear = Arc::new(Ear::new(self.names.clone(), self.inbox.clone(), self.history.clone()));
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
            self.history.interest.with(Listening::disconnected);
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
        let Hearing { names, own, inbox, interest, history, .. } = self.hearing;
        let (mut exact, mut pattern) =
            (self.connection.redis.clone(), self.connection.redis.clone());
        let channels = [names.all.as_str(), own];
        let subscribed = async {
            tokio::try_join!(pattern.psubscribe(&names.topics.pattern), exact.subscribe(&channels))
        };
        self.answer(subscribed).await?.map_err(End::Failed)?;
        drop((exact, pattern));

        interest.with(Listening::connected);
        self.up_since.get_or_init(Instant::now);
        self.hearing.retries.sending.now();
        self.hearing.retries.keeping.now();
        inbox.link(Link::Up);
        limited!(INFO, "connected to Redis: the other nodes are heard");

        let mut check = interval_at(Instant::now() + CHECK, CHECK);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hears_kept = false;
        loop {
            if !hears_kept && history.is_started() {
                self.hear_kept().await?;
                hears_kept = true;
            }
            if let Some(step) = interest.with(Listening::next) {
                self.take(step, interest, &names.topics).await?;
                continue;
            }
            if let Some(step) = history.interest.with(Listening::next) {
                self.take(step, &history.interest, &names.kept).await?;
                continue;
            }
            tokio::select! {
                () = interest.changed.notified() => {}
                () = history.interest.changed.notified() => {}
                _ = check.tick() => {
                    let mut redis = self.connection.redis.clone();
                    self.answer(ask_for_server(&mut redis)).await?.map_err(End::Refused)?;
                }
            }
        }
    }

    /// Hears what is kept of topics from now on.
    async fn hear_kept(&self) -> Result<(), End> {
        let Hearing { names, history, .. } = self.hearing;
        let mut redis = self.connection.redis.clone();
        let subscribed = redis.psubscribe(&names.kept.pattern);
        self.answer(subscribed).await?.map_err(End::Failed)?;
        history.interest.with(Listening::connected);
        history.interrupted();
        Ok(())
    }

    /// Takes a step towards hearing what is wanted of a family.
    async fn take(
        &self,
        step: Step<Waiter>,
        interest: &Interest,
        family: &Family,
    ) -> Result<(), End> {
        let mut redis = self.connection.redis.clone();
        let confirmed = async {
            match &step {
                Step::AddPattern => redis.psubscribe(&family.pattern).await,
                Step::RemovePattern => redis.punsubscribe(&family.pattern).await,
                Step::Topics { add, remove, .. } => {
                    if !add.is_empty() {
                        redis.subscribe(family.all(add)).await?;
                    }
                    if !remove.is_empty() {
                        redis.unsubscribe(family.all(remove)).await?;
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
    history: Arc<Delivery>,
    /// Whether something was heard since it was last asked.
    has_heard: AtomicBool,
    /// Whether the server delivers every topic of a family by the pattern, as its last confirmation says.
    topics_by_pattern: AtomicBool,
    kept_by_pattern: AtomicBool,
}

/// What a push brings.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Frame(Vec<u8>),
    /// What was kept of a topic, whose name is that of the channel less its family.
    Kept(Vec<u8>, Vec<u8>),
}

impl Ear {
    fn new(names: Arc<Names>, inbox: Arc<dyn NodeInbox>, history: Arc<Delivery>) -> Self {
        let no = || AtomicBool::new(false);
        Self {
            names,
            inbox,
            history,
            has_heard: no(),
            topics_by_pattern: no(),
            kept_by_pattern: no(),
        }
    }

    fn take(&self, push: PushInfo) {
        self.has_heard.store(true, Ordering::Relaxed);
        match self.heard(push) {
            Some(Heard::Frame(frame)) => self.inbox.receive(frame.into()),
            Some(Heard::Kept(topic, message)) => self.history.take(&topic, message),
            None => {}
        }
    }

    /// Returns what is in a push. A topic that is delivered by the pattern and by its name is taken by the pattern
    /// alone: from the confirmation that the pattern is subscribed to the one that it is not, which
    /// stand in the same order as the messages, so that each message is taken once.
    fn heard(&self, push: PushInfo) -> Option<Heard> {
        let PushInfo { kind, mut data } = push;
        match kind {
            PushKind::PMessage | PushKind::Message => {}
            PushKind::PSubscribe | PushKind::PUnsubscribe => {
                if let Some(Value::BulkString(pattern)) = data.first()
                    && let Some((by_pattern, _)) = self.family(pattern)
                {
                    by_pattern.store(kind == PushKind::PSubscribe, Ordering::Relaxed);
                }
                return None;
            }
            _ => return None,
        }
        let (Some(Value::BulkString(message)), Some(Value::BulkString(channel))) =
            (data.pop(), data.pop())
        else {
            return None;
        };
        let family = self.family(&channel);
        if let Some((by_pattern, _)) = family
            && kind == PushKind::Message
            && by_pattern.load(Ordering::Relaxed)
        {
            return None;
        }
        Some(match family {
            Some((_, Some(topic))) => Heard::Kept(topic.to_vec(), message),
            _ => Heard::Frame(message),
        })
    }

    /// Returns whether the family of a channel or a pattern, if it has one, is delivered by its pattern; and the topic of
    /// which something was kept.
    fn family<'a>(&self, channel: &'a [u8]) -> Option<(&AtomicBool, Option<&'a [u8]>)> {
        if let Some(topic) = self.names.kept.topic(channel) {
            return Some((&self.kept_by_pattern, Some(topic)));
        }
        self.names.topics.topic(channel).map(|_| (&self.topics_by_pattern, None))
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
