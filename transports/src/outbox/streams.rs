//! Messages that wait to be sent, in *streams*: messages that belong together.
//!
//! A stream is either resumed or paused. The messages of all resumed streams wait in one queue, in the
//! order in which they were pushed. Those of a paused stream wait aside and cost the others nothing.

use std::collections::VecDeque;
use std::mem;

use super::budget::ByteBudget;
use super::moved::MovedStream;
use crate::frame::Message;
use crate::memory::Cost;

/// Identifies a stream of one outbox. Ids are not given twice, and 64 bits never wrap around to
/// [`PRIORITY`].
pub(super) type StreamId = u64;

/// The priority queue: never paused, and not replayed.
pub(super) const PRIORITY: StreamId = 0;

#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Messages of streams that are resumed, or were when they ended.
    ready: VecDeque<(StreamId, Message)>,
    /// Sorted by id, as ids ascend.
    streams: Vec<Stream>,
    last: StreamId,
    /// How many messages have left `ready` to be sent.
    taken: u64,
    /// Whether new streams begin paused.
    pauses_new: bool,
    /// Whether there may be messages in `ready` whose stream has ended.
    has_leftovers: bool,
}

#[derive(Debug)]
struct Stream {
    id: StreamId,
    is_resumed: bool,
    reply: ResumeReply,
    /// Whether the client has read a reply that resumed it.
    is_known: bool,
    /// Whether its owner sends the current state each time it is resumed.
    discards_volatile: bool,
    paused: VecDeque<Message>,
}

/// The reply to the last request to resume a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResumeReply {
    /// Not sent, or lost with its connection.
    Missing,
    /// Sent at this position of the current epoch.
    Sent(u64),
    /// Arrived, in this epoch or an earlier one.
    Arrived,
}

impl Stream {
    /// Returns whether the client has read a reply, if it has read what was sent before `read_to`.
    fn is_known(&self, read_to: u64) -> bool {
        let is_read = |reply| matches!(reply, ResumeReply::Sent(position) if position < read_to);
        self.is_known || is_read(self.reply)
    }

    fn expect_reply(&mut self, read_to: u64) {
        self.is_known = self.is_known(read_to);
        self.reply = ResumeReply::Missing;
    }

    fn discards(&self, message: &Message) -> bool {
        self.discards_volatile && message.is_volatile()
    }
}

fn index(streams: &[Stream], id: StreamId) -> Option<usize> {
    streams.binary_search_by_key(&id, |stream| stream.id).ok()
}

fn find(streams: &mut [Stream], id: StreamId) -> Option<&mut Stream> {
    index(streams, id).map(|at| &mut streams[at])
}

impl Streams {
    /// Creates a stream.
    pub(super) fn add(&mut self) -> StreamId {
        self.last += 1;
        self.insert(self.last);
        self.last
    }

    /// Creates a stream under the id of an ended stream.
    pub(super) fn insert(&mut self, id: StreamId) {
        // Most sessions have one.
        if self.streams.capacity() == 0 {
            self.streams.reserve_exact(1);
        }
        let stream = Stream {
            id,
            is_resumed: !self.pauses_new,
            reply: ResumeReply::Missing,
            is_known: false,
            discards_volatile: false,
            paused: VecDeque::new(),
        };
        if let Err(at) = self.streams.binary_search_by_key(&id, |stream| stream.id) {
            self.streams.insert(at, stream);
        }
    }

    /// Lets a stream drop volatile messages that outlive the connection they were meant for.
    pub(super) fn discard_volatile(&mut self, id: StreamId) {
        if let Some(stream) = find(&mut self.streams, id) {
            stream.discards_volatile = true;
        }
    }

    /// Pushes a message. Returns `false` if it is not needed: its stream has ended, or discards it
    /// because it is paused or its connection is `gone`.
    pub(super) fn push(&mut self, id: StreamId, message: Message, gone: bool) -> bool {
        let Some(stream) = find(&mut self.streams, id) else { return false };
        if stream.discards(&message) && (gone || !stream.is_resumed) {
            return false;
        }
        if stream.is_resumed {
            self.ready.push_back((id, message));
        } else {
            stream.paused.push_back(message);
        }
        true
    }

    /// Appends a priority message behind everything that is ready.
    pub(super) fn push_priority(&mut self, message: Message) {
        self.ready.push_back((PRIORITY, message));
    }

    /// Resumes a stream: its messages join those that are ready. The client has read what was sent before `read_to`.
    pub(super) fn resume(&mut self, id: StreamId, read_to: u64) {
        let Some(stream) = find(&mut self.streams, id) else { return };
        stream.expect_reply(read_to);
        stream.is_resumed = true;
        self.ready.extend(mem::take(&mut stream.paused).into_iter().map(|message| (id, message)));
    }

    /// Records that the client asks anew for a stream to be resumed. It has read what was sent before `read_to`.
    pub(super) fn expect_reply(&mut self, id: StreamId, read_to: u64) {
        if let Some(stream) = find(&mut self.streams, id) {
            stream.expect_reply(read_to);
        }
    }

    /// Records that the client has read a reply that resumed a stream.
    pub(super) fn set_known(&mut self, id: StreamId) {
        if let Some(stream) = find(&mut self.streams, id) {
            stream.is_known = true;
        }
    }

    /// Returns whether the client has read a reply that resumed a stream, if it has read what was sent before `read_to`.
    pub(super) fn is_known(&self, id: StreamId, read_to: u64) -> bool {
        index(&self.streams, id).is_some_and(|at| self.streams[at].is_known(read_to))
    }

    /// Records where the reply that resumed a stream was sent.
    pub(super) fn set_reply_sent(&mut self, id: StreamId, position: u64) {
        if let Some(stream) = find(&mut self.streams, id) {
            stream.reply = ResumeReply::Sent(position);
        }
    }

    /// Returns whether the reply that resumed a stream has arrived.
    pub(super) fn has_reply_arrived(&self, id: StreamId, arrived: impl Fn(u64) -> bool) -> bool {
        index(&self.streams, id).is_some_and(|at| match self.streams[at].reply {
            ResumeReply::Missing => false,
            ResumeReply::Sent(position) => arrived(position),
            ResumeReply::Arrived => true,
        })
    }

    /// Keeps beyond the epoch which replies have arrived, and whether any was read, as what was sent before `read_to`.
    /// The others are lost with it.
    pub(super) fn end_epoch(&mut self, read_to: u64, arrived: impl Fn(u64) -> bool) {
        for stream in &mut self.streams {
            stream.is_known = stream.is_known(read_to);
            stream.reply = match stream.reply {
                ResumeReply::Sent(position) if !arrived(position) => ResumeReply::Missing,
                ResumeReply::Sent(_) => ResumeReply::Arrived,
                other => other,
            };
        }
    }

    /// Returns whether a stream waits to be resumed.
    pub(super) fn is_paused(&self, id: StreamId) -> bool {
        index(&self.streams, id).is_some_and(|at| !self.streams[at].is_resumed)
    }

    /// Pauses a stream until it is resumed. Returns the cost of the volatile messages that it
    /// discards.
    pub(super) fn pause(&mut self, id: StreamId) -> Cost {
        let Some(stream) = find(&mut self.streams, id).filter(|_| self.pauses_new) else {
            return Cost::default();
        };
        stream.is_resumed = false;
        let mut dropped = Cost::default();
        for (other, message) in mem::take(&mut self.ready) {
            if other != id {
                self.ready.push_back((other, message));
            } else if stream.discards(&message) {
                dropped += message.cost();
            } else {
                stream.paused.push_back(message);
            }
        }
        dropped
    }

    /// Pauses all streams, and lets new ones begin paused. The messages in `sent` are to be sent
    /// again, before those that wait.
    ///
    /// Returns the cost of the messages that are not needed: priority messages, those of streams that
    /// have ended, and volatile ones that their stream discards.
    pub(super) fn pause_all(&mut self, sent: VecDeque<(StreamId, Message)>) -> Cost {
        self.pauses_new = true;
        let mut dropped = Cost::default();
        for stream in &mut self.streams {
            stream.is_resumed = false;
            if stream.discards_volatile {
                stream.paused.retain(|message| {
                    if message.is_volatile() {
                        dropped += message.cost();
                    }
                    !message.is_volatile()
                });
            }
        }
        let ready = mem::take(&mut self.ready);
        self.has_leftovers = false;
        for (id, message) in sent.into_iter().chain(ready).rev() {
            match find(&mut self.streams, id) {
                Some(stream) if !stream.discards(&message) => stream.paused.push_front(message),
                _ => dropped += message.cost(),
            }
        }
        dropped
    }

    /// Ends a stream. Returns the cost of the messages that are lost because it was paused.
    pub(super) fn end(&mut self, id: StreamId) -> Cost {
        let Some(at) = index(&self.streams, id) else { return Cost::default() };
        self.has_leftovers |= !self.ready.is_empty();
        self.streams.remove(at).paused.iter().map(Message::cost).sum()
    }

    /// The next message that is ready.
    pub(super) fn first(&self) -> Option<&Message> {
        self.ready.front().map(|(_, message)| message)
    }

    /// Takes the messages that streams have left behind which have ended, in order.
    pub(super) fn take_leftovers(&mut self) -> VecDeque<Message> {
        let mut leftovers = VecDeque::new();
        if mem::take(&mut self.has_leftovers) {
            for (id, message) in mem::take(&mut self.ready) {
                if id == PRIORITY || index(&self.streams, id).is_some() {
                    self.ready.push_back((id, message));
                } else {
                    self.taken += 1;
                    leftovers.push_back(message);
                }
            }
        }
        leftovers
    }

    /// Removes the next message that is ready.
    pub(super) fn pop(&mut self) -> Option<(StreamId, Message)> {
        let next = self.ready.pop_front()?;
        self.taken += 1;
        // An idle session keeps no allocation for later messages.
        if self.ready.is_empty() {
            self.ready = VecDeque::new();
        }
        Some(next)
    }

    /// How many messages have left to be sent.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// How many will have left once those have that are ready. `None` while a stream is paused.
    pub(super) fn to_take(&self) -> Option<u64> {
        let are_resumed = self.streams.iter().all(|stream| stream.is_resumed);
        are_resumed.then(|| self.taken.saturating_add(self.ready.len() as u64))
    }

    /// The last id that was given.
    pub(super) fn last(&self) -> StreamId {
        self.last
    }

    /// Returns whether a message of this stream is of use to the next connection.
    pub(super) fn keeps(&self, id: StreamId, message: &Message) -> bool {
        index(&self.streams, id).is_some_and(|at| !self.streams[at].discards(message))
    }

    /// Returns all streams, each with what waits in it for the next connection.
    pub(super) fn export(&self, arrived: impl Fn(u64) -> bool) -> Vec<MovedStream> {
        let export = |stream: &Stream| MovedStream {
            id: stream.id,
            has_reply_arrived: self.has_reply_arrived(stream.id, &arrived),
            discards_volatile: stream.discards_volatile,
            waiting: {
                let ready = self.ready.iter().filter(|(id, _)| *id == stream.id);
                let waiting = ready.map(|(_, message)| message).chain(&stream.paused);
                waiting.filter(|message| !stream.discards(message)).cloned().collect()
            },
        };
        self.streams.iter().map(export).collect()
    }

    /// Continues the streams of another node, paused, in place of those here.
    pub(super) fn import(
        &mut self,
        last: StreamId,
        streams: Vec<MovedStream>,
        budget: &mut ByteBudget,
    ) {
        self.last = self.last.max(last);
        self.pauses_new = true;
        let import = |moved: MovedStream| {
            moved.waiting.iter().for_each(|message| budget.import(message.cost()));
            Stream {
                id: moved.id,
                is_resumed: false,
                reply: if moved.has_reply_arrived {
                    ResumeReply::Arrived
                } else {
                    ResumeReply::Missing
                },
                // What resumes it here is another reply.
                is_known: false,
                discards_volatile: moved.discards_volatile,
                paused: moved.waiting.into(),
            }
        };
        self.streams = streams.into_iter().map(import).collect();
    }

    /// How many messages wait in paused streams.
    pub(super) fn paused(&self) -> usize {
        self.streams.iter().map(|stream| stream.paused.len()).sum()
    }

    /// Drops everything that waits. Returns its cost.
    pub(super) fn clear(&mut self) -> Cost {
        let cost = self.cost();
        self.ready = VecDeque::new();
        self.streams.iter_mut().for_each(|stream| stream.paused = VecDeque::new());
        cost
    }

    /// The cost of everything that waits.
    pub(super) fn cost(&self) -> Cost {
        let paused = self.streams.iter().flat_map(|stream| &stream.paused);
        let all = self.ready.iter().map(|(_, message)| message).chain(paused);
        all.map(Message::cost).sum()
    }
}

/// What the model checks.
#[cfg(any(test, fuzzing, feature = "unstable-internals"))]
impl Streams {
    /// How many streams have not ended.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }
}

#[cfg(test)]
mod tests;
