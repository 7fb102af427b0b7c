//! [`Session`]: keeps and hands over messages, over one connection.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Error, Message, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tower_channels::adapter::{Keep, Kept};
use tower_channels::history::Position;
use tower_channels_transports::limited;

use super::ack::Ack;
use super::link::Link;
use super::shared::Shared;
use super::{message, names};
use crate::backlog::Backlog;
use crate::connection::{End, Ended};
use crate::interest::Selection;
use crate::receiver::propagated;
use crate::topics::Partitions;

/// Keeps and hands over messages, over one connection.
///
/// A change of its subscriptions is followed by a mark, a message to the node itself, as is each second: when it is heard,
/// the server has made the change, and is there.
pub(crate) struct Session<'a> {
    shared: &'a Shared,
    link: Link,
    ended: Ended,
    /// What the server answers, and marks.
    answers: Subscriber,
    copies: Partitions,
    /// What is subscribed to, and the version of the interest that asks for it.
    selection: Selection,
    version: u64,
    propagation: Duration,
    /// Versions of the interest that the own server knows, and when the others of its cluster do.
    propagating: VecDeque<(Instant, u64)>,
    backlog: Backlog,
    /// How often it was time to send a mark, and none had come back since.
    silences: u32,
    /// Whether nothing is sent until the stream is there again.
    is_paused: bool,
    is_limit_told: bool,
}

/// The last token of the subject of marks.
const MARK: &str = "mark";

/// How often a mark is sent.
const LOOK: Duration = Duration::from_secs(1);
/// Counted instead of measured, so that a process which was stopped meanwhile has time to hear.
const MAX_SILENCES: u32 = 2;

/// For how long messages are handed over before other tasks get the worker.
const TURN: Duration = Duration::from_millis(5);

/// What headers and the protocol add to a message, at most.
const OVERHEAD: usize = 1024;

impl<'a> Session<'a> {
    /// Subscribes, and tells the store when everything is heard.
    pub(crate) async fn begin(shared: &'a Shared, link: Link, ended: Ended) -> Result<Self, Error> {
        let client = &link.client;
        let answers = client.subscribe(shared.subjects.answer(shared.node, "*")).await?;
        let is_cluster = client.server_info().cluster.is_some();
        let propagation = if is_cluster { shared.config.propagation } else { Duration::ZERO };
        let mut session = Self {
            shared,
            link,
            ended,
            answers,
            copies: Partitions::default(),
            selection: Selection::default(),
            version: 0,
            propagation,
            propagating: VecDeque::new(),
            backlog: Backlog::default(),
            silences: 0,
            is_paused: false,
            is_limit_told: false,
        };
        session.change().await?;
        loop {
            let Some(answer) = session.answers.next().await else { return Err("closed".into()) };
            if session.take_own(&answer) == Some(session.version) {
                break;
            }
        }
        sleep(propagation).await;
        shared.rewind();
        shared.open(&session.link, true);
        shared.applied.send_replace(session.version);
        Ok(session)
    }

    /// Keeps and hands over until the connection ends.
    pub(crate) async fn run(mut self) -> End {
        self.try_run().await.unwrap_or(End::Disconnected)
    }

    async fn try_run(&mut self) -> Result<End, Error> {
        let shared = self.shared;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let closed = shared.closed();
        tokio::pin!(closed);
        let mut is_closed = false;
        loop {
            tokio::select! {
                biased;
                answer = self.answers.next() => {
                    let Some(answer) = answer else { return Ok(End::Disconnected) };
                    if let Some(version) = self.take_own(&answer) {
                        self.applied(version);
                    }
                }
                () = shared.filled.notified(), if !self.is_paused => {}
                () = shared.changed.notified(), if !is_closed => self.change().await?,
                version = propagated(&mut self.propagating), if !self.propagating.is_empty() => {
                    shared.applied.send_replace(version);
                }
                copy = self.copies.next(), if !self.copies.is_empty() => {
                    if let Some(copy) = copy {
                        self.deliver(copy);
                    }
                }
                () = shared.settled.notified() => {
                    self.is_paused = false;
                    shared.rewind();
                }
                () = &mut closed, if !is_closed => {
                    is_closed = true;
                    self.copies = Partitions::default();
                }
                _ = look.tick() => {
                    self.silences += 1;
                    if self.silences > MAX_SILENCES {
                        return Ok(End::Silence);
                    }
                    self.publish_mark().await?;
                }
            }
            if !self.is_paused {
                self.send().await?;
            }
            if !self.deliver_waiting() {
                if self.backlog.is_exceeded(self.read()) {
                    self.ended.end(End::Backlog);
                    return Ok(End::Backlog);
                }
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes what the server answers to a message; or a mark, whose version is returned.
    fn take_own(&mut self, answer: &Message) -> Option<u64> {
        self.backlog.delivered(answer.length);
        let number = answer.subject.rsplit('.').next()?;
        if number == MARK {
            self.silences = 0;
            return Some(u64::from_be_bytes(answer.payload[..].try_into().ok()?));
        }
        let own = number.parse().ok()?;
        match Ack::of(answer) {
            Ack::Kept(number) => self.shared.kept(own, number),
            Ack::Refused(reason) => self.shared.failed(own, &reason),
            Ack::Away(_) => {
                self.is_paused = true;
                self.shared.refused(own);
            }
        }
        None
    }

    /// Sends what waits.
    async fn send(&mut self) -> Result<(), Error> {
        let max_payload = self.link.client.max_payload();
        while let Some((own, (subject, content, keep))) = self.shared.next() {
            if content.len() + OVERHEAD > max_payload {
                let reason = format!("the server takes no more than {max_payload} bytes");
                self.shared.failed(own, &reason);
                continue;
            }
            self.look_at(keep);
            let headers = message::headers(self.shared.node, own, keep);
            let answer = self.shared.subjects.answer(self.shared.node, own);
            let client = &self.link.client;
            client.publish_with_reply_and_headers(subject, answer, headers, content).await?;
        }
        Ok(())
    }

    /// Tells once that a history asks for more than the stream keeps.
    fn look_at(&mut self, keep: Keep) {
        let limits = self.link.found.limits;
        let is_more = keep.messages as u64 > limits.messages
            || keep.bytes as u64 > limits.bytes
            || keep.within > limits.within;
        if is_more && !std::mem::replace(&mut self.is_limit_told, true) {
            limited!(
                WARN,
                wanted = ?keep,
                ?limits,
                "NATS keeps less than a history asks for: see HistoryConfig, and the limits of the stream"
            );
        }
    }

    /// Hands over the copies that wait. Returns `false` if it is others' turn before all are.
    fn deliver_waiting(&mut self) -> bool {
        let mut begin = None;
        for number in 1_u32.. {
            let copy = unconstrained(self.copies.next()).now_or_never().flatten();
            let Some(copy) = copy else {
                self.backlog.emptied(self.read());
                return true;
            };
            self.deliver(copy);
            if number.is_multiple_of(16) && begin.get_or_insert_with(Instant::now).elapsed() > TURN
            {
                break;
            }
        }
        false
    }

    /// Hands over a message that is kept.
    fn deliver(&mut self, copy: Message) {
        self.backlog.delivered(copy.length);
        let Some((number, previous)) = message::place(&copy) else { return };
        if let Some(own) = message::own_number(&copy, self.shared.node) {
            // The server answers later.
            self.shared.kept(own, number);
        }
        self.shared.saw(number);
        let is_message = copy.headers.as_ref().is_some_and(|it| message::keep(it).is_some());
        let topic = copy.subject.rsplit('.').next().and_then(names::decode);
        let Some(topic) = topic.filter(|topic| is_message && self.shared.listens(topic)) else {
            return;
        };
        let Some(inbox) = self.shared.inbox() else { return };
        let epoch = self.shared.epoch.load(Ordering::Relaxed);
        // Without one before it nothing is known of what was there.
        let previous = if previous == 0 { number.saturating_sub(1) } else { previous };
        let position = Position { epoch, number };
        inbox.kept(&topic, Kept { position, previous, content: message::content(copy.payload) });
    }

    /// Subscribes to what is wanted now.
    async fn change(&mut self) -> Result<(), Error> {
        let (wanted, version) = self.shared.wanted();
        for partition in wanted.beyond(self.selection) {
            let subject = self.shared.subjects.copies(partition);
            self.copies.add(&self.link.client, partition, subject).await?;
        }
        for partition in self.selection.beyond(wanted) {
            self.copies.remove(partition).await?;
        }
        (self.selection, self.version) = (wanted, version);
        self.publish_mark().await
    }

    async fn publish_mark(&self) -> Result<(), Error> {
        let subject = self.shared.subjects.answer(self.shared.node, MARK);
        let version = Bytes::copy_from_slice(&self.version.to_be_bytes());
        Ok(self.link.client.publish(subject, version).await?)
    }

    /// The server has made the changes up to this version.
    fn applied(&mut self, version: u64) {
        if self.propagation.is_zero() {
            self.shared.applied.send_replace(version);
        } else {
            self.propagating.push_back((Instant::now() + self.propagation, version));
        }
    }

    /// How many bytes were read from the connection, but for what reads have taken.
    fn read(&self) -> u64 {
        let read = self.link.client.statistics().in_bytes.load(Ordering::Relaxed);
        read.saturating_sub(self.link.read.load(Ordering::Relaxed))
    }
}
