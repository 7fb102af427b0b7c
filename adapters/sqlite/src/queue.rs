//! [`Queue`]: messages on their way to the thread that writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tower_channels::adapter::{Append, HistoryInbox, PublishError};

use crate::records::Replacement;

/// What a message takes beside its bytes and its topic.
const OVERHEAD: usize = 128;

/// How much is written in one transaction, unless one message is larger.
const BATCH_MESSAGES: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;

/// What waits to be written, bounded in bytes.
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Wakes the thread that writes.
    filled: Condvar,
    /// Wakes those that wait for its end.
    ended: Condvar,
    max_bytes: usize,
}

#[derive(Default)]
struct State {
    waiting: Vec<Append>,
    records: Vec<Replacement>,
    /// The bytes of what waits, and of what is being written.
    bytes: usize,
    inbox: Option<Arc<dyn HistoryInbox>>,
    is_closed: bool,
    has_ended: bool,
}

/// What the thread does next.
pub(crate) enum Work {
    /// Write these, and hand them over.
    Write(Vec<Append>, Option<Arc<dyn HistoryInbox>>),
    /// Write these.
    Replace(Vec<Replacement>),
    /// It is late.
    Forget,
    /// Everything is written.
    End,
}

fn cost(message: &Append) -> usize {
    message.content.len().saturating_add(message.topic.len()).saturating_add(OVERHEAD)
}

fn cost_of_record(record: &Replacement) -> usize {
    let value = record.value.as_ref().map_or(0, |value| value.len());
    value.saturating_add(record.key.len()).saturating_add(OVERHEAD)
}

impl Queue {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), ended: Condvar::new(), max_bytes }
    }

    /// Appends a message. An empty queue has room for any.
    pub(crate) fn push(&self, message: Append) -> Result<(), PublishError> {
        let mut state = self.state.lock();
        let bytes = state.bytes.saturating_add(cost(&message));
        if state.has_ended || (bytes > self.max_bytes && state.bytes > 0) {
            return Err(PublishError::Overflow);
        }
        state.bytes = bytes;
        state.waiting.push(message);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Appends a record. Returns whether there was room.
    pub(crate) fn push_record(&self, record: Replacement) -> bool {
        let mut state = self.state.lock();
        let bytes = state.bytes.saturating_add(cost_of_record(&record));
        if state.has_ended || (bytes > self.max_bytes && state.bytes > 0) {
            return false;
        }
        state.bytes = bytes;
        state.records.push(record);
        drop(state);
        self.filled.notify_one();
        true
    }

    /// Says where messages are handed over. Until then they wait.
    pub(crate) fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        self.state.lock().inbox = Some(inbox);
        self.filled.notify_one();
    }

    /// Ends the thread, once it has written what waits.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.filled.notify_one();
    }

    /// Waits for something to do, for the thread.
    pub(crate) fn take(&self, until: Instant) -> Work {
        let mut state = self.state.lock();
        loop {
            if !state.records.is_empty() {
                let count = state.records.len().min(BATCH_MESSAGES);
                let rest = state.records.split_off(count);
                return Work::Replace(std::mem::replace(&mut state.records, rest));
            }
            let is_ready = state.inbox.is_some() || state.is_closed;
            if is_ready && !state.waiting.is_empty() {
                let batch = state.batch();
                return Work::Write(batch, state.inbox.clone());
            }
            if state.is_closed {
                return Work::End;
            }
            if self.filled.wait_until(&mut state, until).timed_out() {
                return Work::Forget;
            }
        }
    }

    /// A batch of so many bytes has been written, or was given up.
    pub(crate) fn written(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// The thread ends: lets go of everything. What waits, if it has failed, is dropped.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.has_ended = true;
        let records = std::mem::take(&mut state.records);
        let rest = (std::mem::take(&mut state.waiting), records, state.inbox.take());
        drop(state);
        self.ended.notify_all();
        drop(rest);
    }

    /// Waits for the end of the thread. Returns whether it has come.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        self.ended.wait_while_for(&mut state, |state| !state.has_ended, patience);
        state.has_ended
    }
}

impl State {
    fn batch(&mut self) -> Vec<Append> {
        let mut bytes = 0_usize;
        let count = self.waiting.iter().take(BATCH_MESSAGES).take_while(|message| {
            bytes = bytes.saturating_add(cost(message));
            bytes <= BATCH_BYTES
        });
        let count = count.count().max(1);
        if count >= self.waiting.len() {
            return std::mem::take(&mut self.waiting);
        }
        let rest = self.waiting.split_off(count);
        std::mem::replace(&mut self.waiting, rest)
    }
}

/// The bytes that a batch takes in the queue.
pub(crate) fn bytes(batch: &[Append]) -> usize {
    batch.iter().map(cost).fold(0, usize::saturating_add)
}

/// The bytes that records take in the queue.
pub(crate) fn bytes_of_records(records: &[Replacement]) -> usize {
    records.iter().map(cost_of_record).fold(0, usize::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::time::Duration;

    use bytes::Bytes;
    use tower_channels::adapter::{Keep, Kept};

    struct Nobody;

    impl HistoryInbox for Nobody {
        fn kept(&self, _: &str, _: Kept) {}
    }

    fn message(size: usize) -> Append {
        let keep = Keep { messages: 1, bytes: 1, within: Duration::ZERO };
        Append { topic: "t".into(), content: Bytes::from(vec![0; size]), keep, done: None }
    }

    fn started(max_bytes: usize) -> Queue {
        let queue = Queue::new(max_bytes);
        queue.start(Arc::new(Nobody));
        queue
    }

    fn take(queue: &Queue) -> Vec<Append> {
        match queue.take(Instant::now()) {
            Work::Write(batch, _) => batch,
            Work::Replace(_) | Work::Forget | Work::End => Vec::new(),
        }
    }

    #[test]
    fn what_waits_is_bounded_until_it_is_written() {
        let queue = started(2 * (OVERHEAD + 11));
        assert_eq!(queue.push(message(10)), Ok(()));
        assert_eq!(queue.push(message(10)), Ok(()));
        assert_eq!(queue.push(message(10)), Err(PublishError::Overflow));
        let batch = take(&queue);
        assert_eq!(batch.len(), 2);
        assert_eq!(queue.push(message(10)), Err(PublishError::Overflow));
        queue.written(bytes(&batch));
        assert_eq!(queue.push(message(10)), Ok(()));
    }

    #[test]
    fn an_empty_queue_has_room_for_any_message() {
        let queue = started(1);
        assert_eq!(queue.push(message(100_000)), Ok(()));
        assert_eq!(queue.push(message(0)), Err(PublishError::Overflow));
    }

    #[test]
    fn a_transaction_is_bounded_in_messages_and_bytes() {
        let queue = started(usize::MAX);
        for _ in 0..BATCH_MESSAGES + 1 {
            queue.push(message(0)).unwrap();
        }
        assert_eq!([take(&queue).len(), take(&queue).len()], [BATCH_MESSAGES, 1]);
        for size in [BATCH_BYTES, BATCH_BYTES / 2, BATCH_BYTES / 2, 1] {
            queue.push(message(size)).unwrap();
        }
        let counts: Vec<_> = (0..4).map(|_| take(&queue).len()).collect();
        assert_eq!(counts, [1, 1, 2, 0]);
    }

    #[test]
    fn messages_wait_for_the_start_or_the_end() {
        for end in [false, true] {
            let queue = Queue::new(1000);
            queue.push(message(1)).unwrap();
            assert!(matches!(queue.take(Instant::now()), Work::Forget));
            if end {
                queue.close()
            } else {
                queue.start(Arc::new(Nobody))
            }
            assert_eq!(take(&queue).len(), 1);
        }
    }

    #[test]
    fn it_takes_nothing_after_the_end() {
        let queue = started(1000);
        queue.push(message(1)).unwrap();
        assert!(!queue.wait(Duration::ZERO));
        queue.end();
        assert!(queue.wait(Duration::ZERO));
        assert_eq!(queue.push(message(1)), Err(PublishError::Overflow));
    }
}
