//! The task that keeps messages: it connects, sends what waits in bulk, and tells what has become of it, for ever.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, ErrorKind, Pipeline, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tower_channels::adapter::{Append, StoreError};
use tower_channels::history::Position;
use tower_channels_transports::limited;

use super::door::{Access, Door, Opened};
use super::queue::Sent;
use super::{PATIENCE, Shared, entry, script};
use crate::backoff::{Attempts, Retries, random};
use crate::error::ConnectError;

/// How often the queue is searched for messages that have waited for too long, while something is waited for.
const EXPIRY: Duration = Duration::from_millis(100);

/// How often the topics that are listened to are kept from being forgotten, for a day from then on.
const REFRESH: Duration = Duration::from_secs(12 * 3600);

/// How many topics are refreshed at once.
const REFRESHED: usize = 512;

/// How many messages one script keeps. The server does nothing else meanwhile.
const TOGETHER: usize = 32;

/// The task that keeps messages.
pub(super) struct Keeping {
    pub(super) door: Door,
    pub(super) shared: Arc<Shared>,
    /// Counts the wishes for new connections.
    pub(super) renewals: watch::Receiver<u64>,
    pub(super) retries: Arc<Retries>,
    pub(super) generation: u64,
}

/// Why a connection ended.
enum End {
    Refused(ConnectError),
    Closed,
    Silent,
    Failed(RedisError),
    Renewed,
    /// The store was dropped, and nothing waits.
    Done,
}

impl Keeping {
    pub(super) async fn run(mut self) {
        let mut attempts = Attempts::new();
        loop {
            let (reason, lasted) = self.connect().await;
            self.shared.access.send_replace(None);
            if matches!(reason, End::Done) || self.shared.is_done() {
                return;
            }
            if attempts.ended(&reason, lasted) {
                limited!(WARN, ?reason, "not connected to Redis: no history is kept or read");
            }
            let (retries, pause) = (self.retries.clone(), attempts.pause(random()));
            self.expiring(retries.keeping.wait(pause)).await;
        }
    }

    /// Connects and keeps messages until the connection ends. Returns why, and how long it lasted.
    async fn connect(&mut self) -> (End, Option<Duration>) {
        self.generation += 1;
        let door = self.door.clone();
        let opened = match self.expiring(door.open(self.generation)).await {
            Ok(opened) => opened,
            Err(error) => return (End::Refused(error), None),
        };
        // What was asked for until now has been done.
        self.renewals.mark_unchanged();
        let begun = Instant::now();
        let Err(end) = self.keep_all(opened).await;
        (end, Some(begun.elapsed()))
    }

    async fn keep_all(&mut self, opened: Opened) -> Result<Infallible, End> {
        let Opened { connection, mut access } = opened;
        self.find_sent(&mut access).await?;
        self.shared.access.send_replace(Some(access.clone()));
        self.retries.hearing.now();
        self.retries.sending.now();
        let mut refresh = interval_at(Instant::now() + REFRESH, REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shared = self.shared.clone();
        loop {
            tokio::select! {
                biased;
                () = connection.closed() => return Err(End::Closed),
                // The adapter may have ended before this.
                Ok(()) = self.renewals.changed() => return Err(End::Renewed),
                () = shared.moved.notified() => return Err(End::Renewed),
                has_some = shared.filled() => {
                    if !has_some {
                        return Err(End::Done);
                    }
                    self.keep_some(&mut access).await?;
                }
                _ = refresh.tick() => self.refresh(&mut access).await?,
            }
        }
    }

    /// Sends a batch, and tells what has become of it.
    async fn keep_some(&self, access: &mut Access) -> Result<(), End> {
        let sent = self.shared.queue.lock().send();
        let calls = sent.len().div_ceil(TOGETHER);
        let mut pipeline = Pipeline::with_capacity(calls);
        for together in sent.chunks(TOGETHER) {
            pipeline.add_command(self.append(access, together));
        }
        let answers = access.redis.send_packed_commands(&pipeline, 0, calls);
        let answers = self.answer(answers).await?;
        let of_each = |(together, answer): (&[Sent], Value)| match answer {
            Value::Array(answers) if answers.len() == together.len() => answers,
            // An error concerns all of them.
            answer => vec![answer; together.len()],
        };
        let answers = sent.chunks(TOGETHER).zip(answers).flat_map(of_each);
        let mut failed = None;
        for (&Sent { number, .. }, answer) in sent.iter().zip(answers) {
            match answer.extract_error() {
                Ok(Value::BulkString(answer)) => {
                    let position = entry::position(&answer).ok_or_else(entry::unexpected);
                    self.shared.answered(number, position);
                }
                Ok(_) => self.shared.answered(number, Err(entry::unexpected())),
                // It is sent again.
                Err(error) if is_passing(&error) => failed = Some(error),
                Err(error) => self.shared.answered(number, Err(StoreError::new(error.to_string()))),
            }
        }
        failed.map_or(Ok(()), |error| Err(End::Failed(error)))
    }

    /// Finds out what was kept of what was sent on the connection before, which has got no answer. The rest waits again.
    async fn find_sent(&self, access: &mut Access) -> Result<(), End> {
        let mut topics = HashMap::new();
        for message in self.shared.queue.lock().sent() {
            topics.entry(message.append.topic.clone()).or_insert(message.number);
        }
        let topics: Vec<_> = topics.into_iter().collect();
        let Door { names, scripts, sender, .. } = &self.door;
        for some in topics.chunks(REFRESHED) {
            let mut pipeline = Pipeline::with_capacity(some.len());
            for (topic, first) in some {
                let mut find = script::run(&scripts.find, 2, 2 * topic.len());
                find.arg(names.topic_key(topic)).arg(names.message_key(topic));
                find.arg(&sender.to_be_bytes()).arg(first);
                pipeline.add_command(find);
            }
            let found = access.redis.send_packed_commands(&pipeline, 0, some.len());
            for found in self.answer(found).await? {
                for (number, position) in parse_found(found.extract_error().map_err(End::Failed)?) {
                    self.shared.answered(number, Ok(position));
                }
            }
        }
        self.shared.queue.lock().send_again();
        Ok(())
    }

    /// Keeps the topics that are listened to from being forgotten: as long as somebody listens, their epoch goes on.
    async fn refresh(&self, access: &mut Access) -> Result<(), End> {
        const DAY_AND_HOUR_MS: u64 = 25 * 3_600_000;
        let names = &self.door.names;
        let topics = self.shared.delivery.interest.with(|listening| listening.wanted());
        for some in topics.chunks(REFRESHED) {
            let mut pipeline = Pipeline::with_capacity(2 * some.len());
            for topic in some {
                for key in [names.topic_key(topic), names.message_key(topic)] {
                    pipeline.cmd("PEXPIRE").arg(key).arg(DAY_AND_HOUR_MS).arg("GT");
                }
            }
            self.answer(access.redis.send_packed_commands(&pipeline, 0, 2 * some.len())).await?;
        }
        Ok(())
    }

    /// Writes the command that keeps messages.
    fn append(&self, access: &Access, messages: &[Sent]) -> Cmd {
        let Door { names, scripts, sender, .. } = &self.door;
        let mut topics: Vec<&str> = Vec::with_capacity(messages.len());
        let mut place = |topic| {
            let known = topics.iter().position(|it| *it == topic);
            known.unwrap_or_else(|| {
                topics.push(topic);
                topics.len() - 1
            })
        };
        let places: Vec<_> = messages.iter().map(|it| place(it.append.topic.as_str())).collect();
        let bytes = messages.iter().map(|it| 4 * it.append.topic.len() + it.append.content.len());
        let mut command = script::run(&scripts.append, 1 + 2 * topics.len(), bytes.sum());
        command.arg(names.sender(*sender));
        for topic in topics {
            command.arg(names.topic_key(topic)).arg(names.message_key(topic));
        }
        command.arg(access.generation).arg(&random().to_be_bytes());
        for (Sent { number, append: Append { topic, content, keep, .. } }, place) in
            messages.iter().zip(places)
        {
            let head = entry::head(place, [*sender, *number], keep);
            command.arg(&head[..]).arg(names.kept.of(topic)).arg(&content[..]);
        }
        command
    }

    /// Waits for an answer of the server.
    async fn answer<T>(&self, answer: impl Future<Output = RedisResult<T>>) -> Result<T, End> {
        let answer = self.expiring(timeout(PATIENCE, answer)).await;
        answer.map_err(|_| End::Silent)?.map_err(End::Failed)
    }

    /// Waits for something. Messages that have waited for too long meanwhile are given up.
    async fn expiring<T>(&self, wait: impl Future<Output = T>) -> T {
        tokio::pin!(wait);
        loop {
            if let Ok(done) = timeout(EXPIRY, &mut wait).await {
                return done;
            }
            self.shared.expire();
        }
    }
}

/// Whether a message that was refused in this way can be sent again, to another server or to the same one in another state.
pub(super) fn is_passing(error: &RedisError) -> bool {
    let ErrorKind::Server(kind) = error.kind() else {
        return error.is_io_error() || error.code() == Some("STALE");
    };
    matches!(
        kind,
        ServerErrorKind::NoScript
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::MasterDown
            | ServerErrorKind::BusyLoading
    )
}

/// The messages of a sender that were found, with the numbers that it has given them.
fn parse_found(found: Value) -> Vec<(u64, Position)> {
    let Value::Array(found) = found else { return Vec::new() };
    let mut texts = found.iter().map(|it| match it {
        Value::BulkString(text) => &text[..],
        _ => &[],
    });
    let Some(epoch) = texts.next().and_then(|mut text| entry::take_u64(&mut text)) else {
        return Vec::new();
    };
    texts
        .filter_map(|mut text| {
            let number = entry::take_u64(&mut text)?;
            Some((number, Position { epoch, number: entry::number(text)? }))
        })
        .collect()
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => fmt::Display::fmt(error, f),
            Self::Closed => f.write_str("the connection was closed"),
            Self::Silent => f.write_str("the server did not answer"),
            Self::Failed(error) => fmt::Display::fmt(error, f),
            Self::Renewed => f.write_str("a new connection was needed"),
            Self::Done => f.write_str("it is not needed any more"),
        }
    }
}

#[cfg(test)]
mod tests;
