//! [`Sender`]: the task that sends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tower_channels::adapter::{NodeId, NodeInbox, Outgoing, Reached};
use tower_channels_transports::limited;

use crate::Shared;
use crate::backoff::HOLD;
use crate::connection::{End, Ended};

/// Sends what waits in the queue over the connection that there is.
///
/// Whatever is sent is followed by a *mark*, a numbered message to the node itself: when it is heard, the server has
/// taken all that was sent before. Without a mark for two seconds the connection is given up.
pub(crate) struct Sender {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: NodeId,
    pub(crate) inbox: Arc<dyn NodeInbox>,
    pub(crate) connections: mpsc::Receiver<SendHalf>,
    pub(crate) questions: mpsc::Receiver<Question>,
    /// The number of the last mark. They go on from one connection to the next.
    pub(crate) mark: u64,
}

/// What of a connection is needed to send.
pub(crate) struct SendHalf {
    pub(crate) client: Client,
    pub(crate) marks: Subscriber,
    pub(crate) ended: Ended,
    /// Told when the task has it.
    pub(crate) taken: oneshot::Sender<()>,
}

/// A frame to one node.
pub(crate) struct Question {
    pub(crate) to: NodeId,
    pub(crate) frame: Bytes,
    pub(crate) reached: oneshot::Sender<Reached>,
}

/// What a mark stands for.
#[derive(Debug)]
enum Sent {
    Batch(Vec<Outgoing>),
    Question(oneshot::Sender<Reached>),
    /// Only that the connection is alive.
    Nothing,
}

/// How many frames share a mark.
const BATCH: usize = 64;
/// How long a frame waits for others before its mark is sent: a mark costs as much as a frame.
const DELAY: Duration = Duration::from_millis(5);
/// How many batches may wait for their marks.
const MAX_BATCHES: usize = 4;
/// How many marks may be waited for.
const MAX_WAITING: usize = 64;
/// How often the task looks after what waits, and after the connection.
const LOOK: Duration = Duration::from_secs(1);
/// The same while there is no connection.
const LOOK_AWAY: Duration = Duration::from_millis(100);
/// Counted instead of measured, so that a process which was stopped meanwhile has time to hear.
const MAX_SILENCES: u32 = 2;

impl Sender {
    pub(crate) async fn run(mut self) {
        let mut was_connected = false;
        while let Some(connection) = self.connected().await {
            if std::mem::replace(&mut was_connected, true) {
                self.shared.queue.hold(HOLD);
            }
            let mut batch = Vec::new();
            let mut marks = Marks::default();
            self.send(connection, &mut batch, &mut marks).await;
            for outgoing in marks.unconfirmed().chain(batch) {
                self.inbox.lost(outgoing.frame);
            }
            self.shared.queue.done();
        }
    }

    /// Waits for a connection.
    async fn connected(&mut self) -> Option<SendHalf> {
        let mut look = interval(LOOK_AWAY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                connection = self.connections.recv() => {
                    // What is too old is not sent.
                    self.expire();
                    return connection;
                }
                // Not answered: unknown.
                Some(question) = self.questions.recv() => drop(question),
                _ = look.tick() => {
                    self.expire();
                    self.shared.queue.done();
                }
            }
        }
    }

    fn expire(&self) {
        for outgoing in self.shared.queue.expire() {
            self.inbox.lost(outgoing.frame);
        }
    }

    /// Sends until the connection ends. What is in `batch` or `marks` then may have been sent or not.
    async fn send(&mut self, half: SendHalf, batch: &mut Vec<Outgoing>, marks: &mut Marks) {
        let SendHalf { client, marks: mut heard, ended, taken } = half;
        let _ = taken.send(());
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (end, due) = (ended.wait(), sleep(DELAY));
        tokio::pin!(end, due);
        loop {
            let before = batch.len();
            let sent = tokio::select! {
                biased;
                _ = &mut end => return,
                message = heard.next() => {
                    let Some(message) = message else { return };
                    self.hear(marks, &message);
                    if batch.is_empty() && !marks.have_batches() {
                        self.shared.queue.done();
                    }
                    continue;
                }
                () = &mut due, if before > 0 => Sent::Batch(std::mem::take(batch)),
                Some(question) = self.questions.recv(), if marks.have_room() => {
                    let Question { to, frame, reached } = question;
                    let subjects = &self.shared.subjects;
                    let (to, own) = (subjects.node(to), subjects.marks(self.id));
                    if client.publish_with_reply(to, own, frame).await.is_err() {
                        continue;
                    }
                    Sent::Question(reached)
                }
                () = self.shared.queue.take(batch, BATCH - before), if marks.have_room_for_batch() => {
                    let max_payload = client.max_payload();
                    let mut number = 0;
                    batch.retain(|outgoing| {
                        number += 1;
                        number <= before || self.fits(outgoing, max_payload)
                    });
                    for outgoing in &batch[before..] {
                        let subject = self.shared.subjects.channel(outgoing.channel());
                        if client.publish(subject, outgoing.frame.clone()).await.is_err() {
                            return;
                        }
                    }
                    if before == 0 {
                        due.as_mut().reset(Instant::now() + DELAY);
                    }
                    if batch.len() < BATCH {
                        continue;
                    }
                    Sent::Batch(std::mem::take(batch))
                }
                _ = look.tick() => {
                    self.expire();
                    if marks.is_silent() {
                        ended.end(End::Silence);
                        return;
                    }
                    if !marks.is_empty() {
                        continue;
                    }
                    Sent::Nothing
                }
            };
            self.mark += 1;
            let number = Bytes::copy_from_slice(&self.mark.to_be_bytes());
            marks.sent(self.mark, sent);
            if client.publish(self.shared.subjects.marks(self.id), number).await.is_err() {
                return;
            }
        }
    }

    /// Takes what the node has sent to itself, or what the server says to a question.
    fn hear(&self, marks: &mut Marks, message: &Message) {
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            marks.hear_nobody();
        }
        let Ok(number) = <[u8; 8]>::try_from(&message.payload[..]) else { return };
        if let Some((Sent::Question(reached), is_nobody)) = marks.hear(u64::from_be_bytes(number)) {
            let _ = reached.send(if is_nobody { Reached::Nobody } else { Reached::Someone });
        }
    }

    fn fits(&self, outgoing: &Outgoing, max_payload: usize) -> bool {
        let size = outgoing.frame.len();
        if size > max_payload {
            limited!(WARN, size, max_payload, "the server does not accept a frame of this size");
            self.inbox.lost(outgoing.frame.clone());
        }
        size <= max_payload
    }
}

/// What was sent over a connection and is not confirmed. Plain code.
#[derive(Debug, Default)]
struct Marks {
    waiting: VecDeque<(u64, Sent)>,
    batches: usize,
    /// Whether the server has said that nobody listens, to what is before the next mark.
    is_nobody: bool,
    /// How often it was time to look, and nothing had been heard since.
    silences: u32,
}

impl Marks {
    /// Something was sent, and behind it the mark with this number.
    fn sent(&mut self, number: u64, sent: Sent) {
        self.batches += usize::from(matches!(sent, Sent::Batch(_)));
        self.waiting.push_back((number, sent));
    }

    fn hear_nobody(&mut self) {
        self.is_nobody = true;
    }

    /// A mark was heard. Returns what it stands for, and whether nobody listens there.
    fn hear(&mut self, number: u64) -> Option<(Sent, bool)> {
        // That of an older connection.
        if self.waiting.front()?.0 != number {
            return None;
        }
        let (_, sent) = self.waiting.pop_front()?;
        self.batches -= usize::from(matches!(sent, Sent::Batch(_)));
        self.silences = 0;
        Some((sent, std::mem::take(&mut self.is_nobody)))
    }

    /// Looks whether something was heard since the last look, or nothing was to be. To be called regularly.
    fn is_silent(&mut self) -> bool {
        self.silences = if self.waiting.is_empty() { 0 } else { self.silences.saturating_add(1) };
        self.silences > MAX_SILENCES
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn have_batches(&self) -> bool {
        self.batches > 0
    }

    fn have_room(&self) -> bool {
        self.waiting.len() < MAX_WAITING
    }

    fn have_room_for_batch(&self) -> bool {
        self.have_room() && self.batches < MAX_BATCHES
    }

    /// The frames of which it is not known whether the server has taken them.
    fn unconfirmed(self) -> impl Iterator<Item = Outgoing> {
        self.waiting.into_iter().flat_map(|(_, sent)| match sent {
            Sent::Batch(batch) => batch,
            Sent::Question(_) | Sent::Nothing => Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Sent {
        Sent::Question(oneshot::channel().0)
    }

    #[test]
    fn nobody_belongs_to_the_question_before_the_next_mark() {
        let mut marks = Marks::default();
        marks.sent(1, question());
        marks.sent(2, question());
        marks.sent(3, question());
        let mut heard = Vec::new();
        for number in 1..=3 {
            if number == 2 {
                marks.hear_nobody();
            }
            heard.extend(marks.hear(number).map(|(_, is_nobody)| is_nobody));
        }
        assert_eq!(heard, [false, true, false]);
    }

    #[test]
    fn marks_of_an_older_connection_are_ignored() {
        let mut marks = Marks::default();
        assert!(marks.hear(7).is_none());
        marks.sent(9, Sent::Nothing);
        assert!(marks.hear(7).is_none());
        assert!(marks.hear(9).is_some());
        assert!(marks.hear(9).is_none());
    }

    #[test]
    fn batches_are_unconfirmed_until_their_mark_is_heard() {
        let mut marks = Marks::default();
        for number in 1..=MAX_BATCHES as u64 {
            assert!(marks.have_room_for_batch());
            marks.sent(number, Sent::Batch(Vec::new()));
        }
        assert!(!marks.have_room_for_batch() && marks.have_room());
        marks.hear(1);
        assert!(marks.have_room_for_batch() && marks.have_batches());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut marks = Marks::default();
        for number in 0..MAX_WAITING as u64 {
            assert!(marks.have_room());
            marks.sent(number, question());
        }
        assert!(!marks.have_room() && !marks.have_room_for_batch());
    }

    #[test]
    fn a_connection_is_silent_if_a_mark_does_not_come_back() {
        let mut marks = Marks::default();
        assert!(!(0..9).any(|_| marks.is_silent()), "nothing is waited for");
        marks.sent(1, Sent::Nothing);
        marks.sent(2, Sent::Nothing);
        assert_eq!([marks.is_silent(), marks.is_silent()], [false, false]);
        marks.hear(1);
        assert_eq!([marks.is_silent(), marks.is_silent(), marks.is_silent()], [false, false, true]);
    }
}
