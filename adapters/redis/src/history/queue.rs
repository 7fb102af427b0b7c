//! [`Queue`]: messages that wait to be kept, and those that are on their way.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use tower_channels::adapter::{Append, PublishError};

/// What a message takes beside its bytes and its topic.
const OVERHEAD: usize = 128;

/// How much is sent at once, and answered before there is more; unless one message is larger.
const BATCH_MESSAGES: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// Messages in their order: first those that were sent and are not answered, then those that wait. Bounded in bytes.
#[derive(Debug)]
pub(crate) struct Queue {
    messages: VecDeque<Message>,
    /// How many were sent.
    sent: usize,
    bytes: usize,
    next: u64,
    max_bytes: usize,
    patience: Duration,
    pub(super) is_closed: bool,
}

/// A message in a [`Queue`].
#[derive(Debug)]
pub(super) struct Message {
    /// Its number among those of this sender.
    pub(super) number: u64,
    pub(super) append: Append,
    /// When nobody waits for it any more.
    deadline: Instant,
}

/// What is sent of a [`Message`].
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) number: u64,
    /// Nobody waits for this one.
    pub(super) append: Append,
}

impl Message {
    fn sent(&self) -> Sent {
        let Append { topic, content, keep, .. } = &self.append;
        let append =
            Append { topic: topic.clone(), content: content.clone(), keep: *keep, done: None };
        Sent { number: self.number, append }
    }
}

fn cost(append: &Append) -> usize {
    append.content.len().saturating_add(append.topic.len()).saturating_add(OVERHEAD)
}

impl Queue {
    /// Creates a queue in which messages wait for their answer for as long as `patience`.
    pub(crate) fn new(max_bytes: usize, patience: Duration) -> Self {
        Self {
            messages: VecDeque::new(),
            sent: 0,
            bytes: 0,
            next: 0,
            max_bytes,
            patience,
            is_closed: false,
        }
    }

    /// Appends a message. An empty queue has room for any.
    pub(super) fn push(&mut self, append: Append, now: Instant) -> Result<(), PublishError> {
        let bytes = self.bytes.saturating_add(cost(&append));
        if self.is_closed || (bytes > self.max_bytes && !self.messages.is_empty()) {
            return Err(PublishError::Overflow);
        }
        self.bytes = bytes;
        let (number, deadline) = (self.next, now + self.patience);
        self.next += 1;
        self.messages.push_back(Message { number, append, deadline });
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns what is to be sent next, and counts as sent from now on. Everything sent before must be answered.
    pub(super) fn send(&mut self) -> Vec<Sent> {
        let mut bytes = 0_usize;
        let waiting = self.messages.iter().take(BATCH_MESSAGES).take_while(|message| {
            bytes = bytes.saturating_add(cost(&message.append));
            bytes <= BATCH_BYTES
        });
        self.sent = waiting.count().max(1).min(self.messages.len());
        self.sent().map(Message::sent).collect()
    }

    /// The messages that were sent and are not answered.
    pub(super) fn sent(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().take(self.sent)
    }

    /// What was sent and is not answered was not kept, and is sent again.
    pub(super) fn send_again(&mut self) {
        self.sent = 0;
    }

    /// Removes a message that was sent: it is answered.
    pub(super) fn answered(&mut self, number: u64) -> Option<Append> {
        let at = self.messages.binary_search_by_key(&number, |message| message.number).ok()?;
        let message = self.messages.remove(at)?;
        self.sent -= usize::from(at < self.sent);
        self.bytes -= cost(&message.append);
        Some(message.append)
    }

    /// Removes the messages that have waited for too long, sent or not.
    #[must_use = "they may be lost"]
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Append> {
        let expired = self.messages.iter().take_while(|message| message.deadline <= now).count();
        self.sent = self.sent.saturating_sub(expired);
        let expired: Vec<_> = self.messages.drain(..expired).map(|it| it.append).collect();
        self.bytes -= expired.iter().map(cost).sum::<usize>();
        expired
    }
}

#[cfg(test)]
mod tests {
    use tower_channels::adapter::Keep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn message(size: usize) -> Append {
        let keep = Keep { messages: 1, bytes: 1, within: SECOND };
        Append { topic: "t".into(), content: vec![0; size].into(), keep, done: None }
    }

    fn queue(max_bytes: usize, sizes: &[usize]) -> Queue {
        let mut queue = Queue::new(max_bytes, SECOND);
        for size in sizes {
            queue.push(message(*size), Instant::now()).unwrap();
        }
        queue
    }

    fn send(queue: &mut Queue) -> Vec<u64> {
        queue.send().into_iter().map(|message| message.number).collect()
    }

    #[test]
    fn what_waits_or_is_on_its_way_is_bounded() {
        let mut queue = queue(2 * (OVERHEAD + 11), &[10, 10]);
        let push = |queue: &mut Queue| queue.push(message(10), Instant::now());
        assert_eq!(push(&mut queue), Err(PublishError::Overflow));
        send(&mut queue);
        assert_eq!(push(&mut queue), Err(PublishError::Overflow));
        assert!(queue.answered(0).is_some());
        assert_eq!(push(&mut queue), Ok(()));
    }

    #[test]
    fn an_empty_queue_has_room_for_any_message_until_it_is_closed() {
        let mut queue = queue(1, &[100_000]);
        assert_eq!(queue.push(message(0), Instant::now()), Err(PublishError::Overflow));
        assert!(queue.answered(0).is_some());
        queue.is_closed = true;
        assert_eq!(queue.push(message(0), Instant::now()), Err(PublishError::Overflow));
    }

    #[test]
    fn a_batch_is_bounded_in_messages_and_bytes() {
        let mut small = queue(usize::MAX, &[0; BATCH_MESSAGES + 1]);
        assert_eq!(send(&mut small).len(), BATCH_MESSAGES);
        let half = BATCH_BYTES / 2 - 1000;
        let mut large = queue(usize::MAX, &[BATCH_BYTES, half, half, half, 1]);
        for expected in [vec![0], vec![1, 2], vec![3, 4], vec![]] {
            let sent = send(&mut large);
            assert_eq!(sent, expected);
            sent.into_iter().for_each(|number| assert!(large.answered(number).is_some()));
        }
    }

    #[test]
    fn what_is_sent_again_keeps_its_number_and_its_place() {
        let mut queue = queue(usize::MAX, &[1, 2, 3]);
        assert_eq!(send(&mut queue), [0, 1, 2]);
        assert!(queue.answered(1).is_some());
        assert!(queue.answered(1).is_none());
        assert_eq!(queue.sent().count(), 2);
        queue.send_again();
        assert_eq!(queue.sent().count(), 0);
        queue.push(message(4), Instant::now()).unwrap();
        assert_eq!(send(&mut queue), [0, 2, 3]);
    }

    #[test]
    fn nobody_waits_for_too_long_whether_it_was_sent_or_not() {
        let now = Instant::now();
        let mut queue = Queue::new(usize::MAX, SECOND);
        queue.push(message(1), now).unwrap();
        send(&mut queue);
        queue.push(message(2), now).unwrap();
        queue.push(message(3), now + SECOND / 2).unwrap();
        assert!(queue.expire(now + SECOND / 2).is_empty());
        let sizes = |appends: Vec<Append>| -> Vec<_> {
            appends.iter().map(|append| append.content.len()).collect()
        };
        assert_eq!(sizes(queue.expire(now + SECOND)), [1, 2]);
        assert_eq!(queue.sent().count(), 0);
        assert!(queue.answered(0).is_none(), "its answer comes too late");
        assert_eq!(sizes(queue.expire(now + 2 * SECOND)), [3]);
        assert_eq!((queue.bytes, queue.is_empty()), (0, true));
    }
}
