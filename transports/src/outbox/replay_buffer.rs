//! What a resumable session sends: everything until it is known to have arrived.
//!
//! ```text
//! written   a b c d | e f g      waiting   h i j
//!           ^         ^                    held until their stream is opened again, or next
//!           first     acked: the client's network has what is before
//! ```
//! An *epoch* is one connection of the session, or one long-poll token's life. What an
//! epoch wrote and the client may not have waits again when the next one begins, and is
//! numbered anew as it is written. Nothing is written twice on one epoch.
//!
//! No number is given twice: an epoch's are above all that were given before, and what it took
//! over bears none until it is written again. So `written` is the span of numbers of one epoch,
//! and what a client has seen of another, or of a session of the same name that is gone, acknowledges
//! nothing of it.
//!
//! A *stream* is what belongs together: with the next epoch it is held until it is opened again.
//! StreamId 0 is control: it is never held, goes before everything else, and is not repeated.
//!
//! This is plain code: it knows no task, no clock and no socket.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::budget::ByteBudget;
use super::streams::{PRIORITY, StreamId, Streams};
use crate::frame::Message;

#[derive(Debug)]
pub(super) struct ReplayBuffer {
    /// Which epoch may write; 0 before the first, for an outbox that is resumable for one alone.
    epoch: u64,
    attached: bool,
    /// Whether the epoch's connection is gone for good, and not only idle.
    gone: bool,
    /// Whether the client ended the last epoch itself, and so may have thrown away what it had
    /// not read.
    parted: bool,
    /// Whether a connection that was taken over showed since the last epoch that it lives.
    conflict: bool,
    /// Whether the client reads numbers.
    numbered: bool,
    control: VecDeque<Control>,
    waiting: Streams,
    /// What this epoch wrote, from the position `first` on.
    written: VecDeque<(StreamId, Message)>,
    first: u64,
    acked: u64,
    /// The cost of what lies between `first` and `acked`, which no longer counts as backlog.
    retained: usize,
    /// How far `acked` was at some time, to see what has been in the retained since then.
    aged: Option<(Instant, u64)>,
    /// The highest number that left the retained although the client may not have seen it. (A reply has
    /// none. If it is lost its push times out, which the client sees.)
    evicted: u64,
    /// The cost of what lies behind `acked`.
    under_way: usize,
    next_number: u64,
    /// The position behind the last pulse that was written.
    pulse: Option<u64>,
}

#[derive(Debug)]
struct Control {
    message: Message,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    /// The client will send its like only after it has read this one.
    Pulse,
    /// The answer that opened a stream.
    Opening(StreamId),
}

/// What came of [`ReplayBuffer::attach`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Attached {
    /// The new epoch.
    pub(super) epoch: u64,
    /// How many messages wait for their streams, whether they were written before or not.
    pub(super) replayed: usize,
}

/// A token that names what was never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

impl ReplayBuffer {
    /// A log whose numbers begin after `received`. Until the first epoch, all streams are open.
    pub(super) fn new(received: u64) -> Self {
        Self {
            epoch: 0,
            attached: true,
            gone: false,
            parted: false,
            conflict: false,
            numbered: false,
            control: VecDeque::new(),
            waiting: Streams::default(),
            written: VecDeque::new(),
            first: 0,
            acked: 0,
            retained: 0,
            aged: None,
            evicted: 0,
            under_way: 0,
            next_number: received.saturating_add(1),
            pulse: None,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn is_attached(&self) -> bool {
        self.attached
    }

    /// Whether a client that reads numbers and has seen this one can go on without a gap.
    pub(super) fn has_all_after(&self, received: Option<u64>) -> bool {
        received.is_none_or(|received| received >= self.evicted)
    }

    /// Begins an epoch. `received` is the last number that the client has seen, if it reads
    /// numbers; `None` if there would be a gap. If it does not, what its network has acknowledged may
    /// still be lost behind it: when it parted itself, or seems to be alive elsewhere.
    pub(super) fn attach(
        &mut self,
        received: Option<u64>,
        backlog: &mut ByteBudget,
    ) -> Option<Attached> {
        if !self.has_all_after(received) {
            return None;
        }
        if let Some(received) = received {
            self.forget(self.first + self.seen(received) as u64, backlog);
            self.next_number = self.next_number.max(received.saturating_add(1));
        } else if !self.attached && !self.parted {
            self.forget(self.acked, backlog);
        }
        for Control { message, .. } in self.control.drain(..) {
            backlog.remove(message.cost());
        }
        let position = self.position();
        let acked = (self.acked - self.first) as usize;
        let mut written = std::mem::take(&mut self.written);
        for (index, (_, message)) in written.iter_mut().enumerate() {
            if index < acked {
                backlog.restore(message.cost());
            }
            message.set_number(0);
        }
        backlog.remove(self.waiting.pause_all(written));
        self.first = position;
        self.under_way = 0;
        self.retained = 0;
        self.aged = None;
        self.acked = self.first;
        self.pulse = None;
        self.epoch += 1;
        (self.attached, self.gone, self.parted) = (true, false, false);
        self.numbered = received.is_some();
        Some(Attached { epoch: self.epoch, replayed: self.waiting.paused() })
    }

    /// How much of what was written a client has seen that has seen this number.
    fn seen(&self, received: u64) -> usize {
        // It was not given here.
        if received >= self.next_number {
            return 0;
        }
        let is_seen = |(_, message): &(StreamId, Message)| {
            message.number() != 0 && message.number() <= received
        };
        self.written.iter().rposition(is_seen).map_or(0, |last| last + 1)
    }

    /// The connection of an epoch is gone; `parted` if the client closed it.
    pub(super) fn detach(&mut self, epoch: u64, parted: bool) {
        if epoch == self.epoch {
            self.idle(epoch, parted);
            self.gone = true;
        }
    }

    /// The connection of an epoch is idle, and may be gone; `parted` if the client may have
    /// left it.
    pub(super) fn idle(&mut self, epoch: u64, parted: bool) {
        if epoch == self.epoch && self.attached {
            (self.attached, self.parted) = (false, parted);
        }
    }

    /// The connection of the current epoch shows that it is there after all.
    pub(super) fn return_to(&mut self, epoch: u64) {
        if epoch == self.epoch {
            (self.attached, self.gone, self.parted) = (true, false, false);
        }
    }

    /// An epoch shows that its client is there, although a newer one took the session over.
    pub(super) fn report_conflict(&mut self, epoch: u64) {
        self.conflict |= epoch != self.epoch;
    }

    /// Whether an epoch did so since this was asked last.
    pub(super) fn take_conflict(&mut self) -> bool {
        std::mem::take(&mut self.conflict)
    }

    /// A new stream, which is held until it is opened.
    pub(super) fn stream(&mut self) -> StreamId {
        self.waiting.add()
    }

    /// Says that volatile messages of a stream need not outlive the connection for which they were
    /// meant.
    pub(super) fn discard_volatile(&mut self, stream: StreamId) {
        self.waiting.discard_volatile(stream);
    }

    /// Pushes a message. `false` if it is not needed: its stream has ended, or will be refreshed.
    pub(super) fn push(&mut self, stream: StreamId, message: Message) -> bool {
        if stream == PRIORITY {
            self.push_control(message, Kind::Plain);
            return true;
        }
        self.waiting.push(stream, message, self.gone)
    }

    /// Before the first epoch there is nothing to overtake: all keeps its order.
    fn push_control(&mut self, message: Message, kind: Kind) {
        if self.epoch == 0 {
            self.waiting.push_control(message);
        } else {
            self.control.push_back(Control { message, kind });
        }
    }

    /// Pushes the answer to a message of which a client sends one at a time. That it was sent proves
    /// that the answer to the one before has arrived, and all that was written before that.
    pub(super) fn push_heartbeat_reply(&mut self, message: Message, backlog: &mut ByteBudget) {
        if let Some(proven) = self.pulse.take() {
            self.forget(proven, backlog);
        }
        self.push_control(message, Kind::Pulse);
    }

    /// Opens a stream for an epoch with an answer that goes before it. `false`, and nothing
    /// happens, if that epoch is not the current one.
    pub(super) fn resume(&mut self, stream: StreamId, epoch: u64, answer: Message) -> bool {
        let current = epoch == self.epoch;
        if current {
            self.waiting.resume(stream);
            self.push_control(answer, Kind::Opening(stream));
        }
        current
    }

    /// Holds a stream until it is opened again.
    pub(super) fn pause(&mut self, stream: StreamId, backlog: &mut ByteBudget) {
        backlog.remove(self.waiting.pause(stream));
    }

    /// Whether the answer that opened a stream for this epoch has arrived.
    pub(super) fn is_join_acked(&self, stream: StreamId) -> bool {
        let opening = self.waiting.opening(stream);
        opening.is_some_and(|position| position < self.first.max(self.acked))
    }

    /// Nothing follows in a stream. What waits in it is lost if it is held.
    pub(super) fn end_stream(&mut self, stream: StreamId, backlog: &mut ByteBudget) {
        backlog.remove(self.waiting.end(stream));
    }

    /// Hands to `write` what is to be written next: control first, then open streams in order, until
    /// about `chunk` bytes, and nothing but control while `window` bytes are on their way already.
    /// Says whether there was anything.
    pub(super) fn take(
        &mut self,
        chunk: usize,
        window: usize,
        mut write: impl FnMut(&Message),
    ) -> bool {
        let before = self.written.len();
        while let Some(Control { message, kind }) = self.control.pop_front() {
            let position = self.first + self.written.len() as u64;
            match kind {
                Kind::Plain => {}
                Kind::Pulse => self.pulse = Some(position + 1),
                Kind::Opening(stream) => self.waiting.opened_at(stream, position),
            }
            self.write(PRIORITY, message, &mut write);
            // Control is rare: an idle session holds no room for it.
            if self.control.is_empty() {
                self.control = VecDeque::new();
            }
        }
        let mut room = chunk.min(window.saturating_sub(self.under_way));
        while room > 0
            && let Some((stream, message)) = self.waiting.pop()
        {
            room = room.saturating_sub(message.cost());
            self.write(stream, message, &mut write);
        }
        self.written.len() > before
    }

    fn write(&mut self, stream: StreamId, mut message: Message, write: &mut impl FnMut(&Message)) {
        if self.numbered && message.takes_number() {
            message.set_number(self.next_number);
            self.next_number += 1;
        }
        self.under_way += message.cost();
        write(&message);
        // Of most sessions that are parked this is the answer to a join alone.
        if self.written.capacity() == 0 {
            self.written.reserve_exact(1);
        }
        self.written.push_back((stream, message));
    }

    /// The position behind the last message that was written.
    pub(super) fn position(&self) -> u64 {
        self.first + self.written.len() as u64
    }

    /// Everything before this position has arrived, at the client's transport at least.
    pub(super) fn acknowledge(
        &mut self,
        position: u64,
        backlog: &mut ByteBudget,
    ) -> Result<(), Unknown> {
        if position > self.position() {
            return Err(Unknown);
        }
        // No other epoch will come.
        if self.epoch == 0 {
            self.forget(position, backlog);
            return Ok(());
        }
        let before = self.acked;
        self.pong(position, backlog);
        // A client that reads numbers says by them what it has seen; this was its transport. Of one
        // that does not, the next acknowledgement shows that it has dealt with the last: phoenix.js
        // polls again before it dispatches an answer, and may stop in between.
        if !self.numbered && position > before {
            self.forget(before, backlog);
        }
        Ok(())
    }

    /// Everything before this position is where the client's network ends. It is resumable a little
    /// longer: the client may not have read it.
    pub(super) fn pong(&mut self, position: u64, backlog: &mut ByteBudget) {
        while self.acked < position.min(self.position()) {
            let (_, message) = &self.written[(self.acked - self.first) as usize];
            backlog.remove(message.cost());
            self.under_way -= message.cost();
            self.retained += message.cost();
            self.acked += 1;
        }
        while self.retained > MAX_RETAINED {
            self.evict(self.first + 1);
        }
    }

    /// Gives up what the client's network has had for `ttl` at least, and for twice that at most, if
    /// it is called again and again.
    pub(super) fn age(&mut self, now: Instant, ttl: Duration) {
        if let Some((since, acked)) = self.aged {
            if now.saturating_duration_since(since) < ttl {
                return;
            }
            self.evict(acked);
        }
        self.aged = Some((now, self.acked));
    }

    /// Forgets of the retained what lies before this position.
    fn evict(&mut self, position: u64) {
        while self.first < position.min(self.acked) {
            let Some((_, message)) = self.written.pop_front() else { return };
            self.evicted = self.evicted.max(message.number());
            self.retained -= message.cost();
            self.first += 1;
        }
        if self.written.is_empty() {
            self.written = VecDeque::new();
        }
    }

    /// The client itself has read all that was written.
    pub(super) fn read(&mut self, backlog: &mut ByteBudget) {
        self.forget(self.position(), backlog);
    }

    /// What this epoch wrote and the client's transport has not acknowledged.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = &Message> {
        let acknowledged = (self.acked - self.first) as usize;
        self.written.iter().skip(acknowledged).map(|(_, message)| message)
    }

    /// The cost of what is behind `acked`.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// What the backlog has to be, and the retained, both by counting.
    pub(super) fn costs(&self) -> (usize, usize) {
        let acked = (self.acked - self.first) as usize;
        let control = self.control.iter().map(|control| control.message.cost());
        let under_way = self.written.iter().skip(acked).map(|(_, message)| message.cost());
        let retained = self.written.iter().take(acked).map(|(_, message)| message.cost()).sum();
        (control.chain(under_way).sum::<usize>() + self.waiting.cost(), retained)
    }

    /// How many streams have not ended.
    pub(super) fn streams(&self) -> usize {
        self.waiting.len()
    }

    /// Drops all that was not written: nobody will.
    pub(super) fn clear(&mut self) {
        self.control = VecDeque::new();
        self.waiting.clear();
    }

    fn forget(&mut self, position: u64, backlog: &mut ByteBudget) {
        while self.first < position {
            let Some((_, message)) = self.written.pop_front() else { return };
            if self.first < self.acked {
                self.retained -= message.cost();
            } else {
                backlog.remove(message.cost());
                self.under_way -= message.cost();
                self.acked += 1;
            }
            self.first += 1;
        }
        // A session that is used keeps the room of one, as most that are parked.
        if self.written.is_empty() && self.written.capacity() > 1 {
            self.written = VecDeque::new();
        }
    }
}

/// How much of what the network has acknowledged is resumable at most.
pub(super) const MAX_RETAINED: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with one open stream, on its first epoch.
    fn log(received: Option<u64>) -> (ReplayBuffer, ByteBudget, StreamId) {
        let (mut log, mut backlog) = (ReplayBuffer::new(0), ByteBudget::new(1 << 30));
        log.attach(received, &mut backlog);
        let stream = log.stream();
        assert!(resume(&mut log, &mut backlog, stream));
        (log, backlog, stream)
    }

    fn resume(log: &mut ReplayBuffer, backlog: &mut ByteBudget, stream: StreamId) -> bool {
        let answer = Message::text("joined");
        backlog.add(answer.cost());
        log.resume(stream, log.epoch(), answer)
    }

    fn push(log: &mut ReplayBuffer, backlog: &mut ByteBudget, stream: StreamId, text: &str) {
        let message = Message::with_placeholder(format!("[null{text}"), 1);
        backlog.add(message.cost());
        log.push(stream, message);
    }

    fn take(log: &mut ReplayBuffer) -> Vec<String> {
        let mut texts = Vec::new();
        log.take(usize::MAX, usize::MAX, |message| {
            texts.push(String::from_utf8_lossy(&message.to_bytes()).into_owned());
        });
        texts
    }

    #[test]
    fn what_was_written_waits_for_its_lane_on_the_next_attachment_and_is_numbered_anew() {
        let (mut log, mut backlog, stream) = log(Some(0));
        push(&mut log, &mut backlog, stream, ",a");
        push(&mut log, &mut backlog, stream, ",b");
        assert_eq!(take(&mut log), ["joined", "[\"s:1\",a", "[\"s:2\",b"]);
        log.attach(Some(1), &mut backlog);
        assert!(take(&mut log).is_empty());
        resume(&mut log, &mut backlog, stream);
        assert_eq!(take(&mut log), ["joined", "[\"s:3\",b"]);
    }

    #[test]
    fn a_client_that_reads_no_numbers_gets_none_even_if_it_did_before() {
        let (mut log, mut backlog, stream) = log(Some(0));
        push(&mut log, &mut backlog, stream, ",a");
        take(&mut log);
        log.attach(None, &mut backlog);
        resume(&mut log, &mut backlog, stream);
        assert_eq!(take(&mut log), ["joined", "[null,a"]);
    }

    #[test]
    fn numbers_go_on_from_what_the_client_has_seen_of_another_session() {
        let (mut log, mut backlog, stream) = log(Some(41));
        push(&mut log, &mut backlog, stream, ",a");
        assert_eq!(take(&mut log), ["joined", "[\"s:42\",a"]);
    }

    fn texts(count: u32) -> Vec<String> {
        (1..=count).map(|n| format!(",{n}")).collect()
    }

    /// Opens the stream, and reads what was written in it with these numbers.
    fn replay(log: &mut ReplayBuffer, backlog: &mut ByteBudget, stream: StreamId) -> Vec<String> {
        resume(log, backlog, stream);
        take(log).split_off(1)
    }

    #[test]
    fn a_number_of_the_attachment_before_acknowledges_nothing_of_the_last_one() {
        let (mut log, mut backlog, stream) = log(Some(0));
        texts(2).iter().for_each(|text| push(&mut log, &mut backlog, stream, text));
        assert_eq!(take(&mut log), ["joined", "[\"s:1\",1", "[\"s:2\",2"]);
        log.attach(Some(0), &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, stream), ["[\"s:3\",1", "[\"s:4\",2"]);
        log.attach(Some(2), &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, stream), ["[\"s:5\",1", "[\"s:6\",2"]);
    }

    #[test]
    fn a_number_of_the_last_attachment_acknowledges_what_that_one_wrote_and_nothing_that_waits() {
        let (mut log, mut backlog, stream) = log(Some(0));
        let other = log.stream();
        resume(&mut log, &mut backlog, other);
        push(&mut log, &mut backlog, other, ",other");
        texts(2).iter().for_each(|text| push(&mut log, &mut backlog, stream, text));
        assert_eq!(take(&mut log).len(), 5);
        log.attach(Some(0), &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, stream), ["[\"s:4\",1", "[\"s:5\",2"]);
        log.attach(Some(4), &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, stream), ["[\"s:6\",2"]);
        assert_eq!(replay(&mut log, &mut backlog, other), ["[\"s:7\",other"]);
    }

    #[test]
    fn a_number_of_an_attachment_that_wrote_nothing_is_that_of_the_one_before() {
        let (mut log, mut backlog, stream) = log(Some(0));
        texts(3).iter().for_each(|text| push(&mut log, &mut backlog, stream, text));
        take(&mut log);
        for _ in 0..3 {
            log.attach(Some(1), &mut backlog);
            assert!(take(&mut log).is_empty());
        }
        assert_eq!(replay(&mut log, &mut backlog, stream), ["[\"s:4\",2", "[\"s:5\",3"]);
    }

    #[test]
    fn a_number_that_was_never_given_acknowledges_nothing() {
        let (mut log, mut backlog, stream) = log(Some(0));
        texts(2).iter().for_each(|text| push(&mut log, &mut backlog, stream, text));
        take(&mut log);
        log.attach(Some(9), &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, stream), ["[\"s:10\",1", "[\"s:11\",2"]);
    }

    #[test]
    fn a_number_acknowledges_nothing_of_an_attachment_that_gave_none() {
        let (mut log, mut backlog, stream) = log(Some(0));
        texts(2).iter().for_each(|text| push(&mut log, &mut backlog, stream, text));
        take(&mut log);
        log.attach(None, &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, stream), ["[null,1", "[null,2"]);
        log.attach(Some(2), &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, stream), ["[\"s:3\",1", "[\"s:4\",2"]);
    }

    const TTL: Duration = Duration::from_secs(90);

    #[test]
    fn what_the_network_has_is_kept_for_its_time_and_not_twice_as_long() {
        let (mut log, mut backlog, stream) = log(Some(0));
        let start = Instant::now();
        log.age(start, TTL);
        push(&mut log, &mut backlog, stream, ",a");
        take(&mut log);
        log.pong(log.position(), &mut backlog);
        push(&mut log, &mut backlog, stream, ",b");
        take(&mut log);
        for (seconds, resumable) in [(89, true), (90, true), (179, true), (180, false)] {
            log.age(start + Duration::from_secs(seconds), TTL);
            assert_eq!(log.costs().1 > 0, resumable, "after {seconds} s");
        }
        assert_eq!(log.unacknowledged().count(), 1, "what the network does not have stays");
    }

    #[test]
    fn a_client_that_has_not_seen_what_was_given_up_cannot_go_on() {
        let (mut log, mut backlog, stream) = log(Some(0));
        texts(3).iter().for_each(|text| push(&mut log, &mut backlog, stream, text));
        take(&mut log);
        log.pong(log.position() - 1, &mut backlog);
        let start = Instant::now();
        log.age(start, TTL);
        log.age(start + TTL, TTL);
        assert!(log.attach(Some(1), &mut backlog).is_none());
        assert!(log.attach(Some(2), &mut backlog).is_some());
        assert_eq!(replay(&mut log, &mut backlog, stream), ["[\"s:4\",3"]);
    }

    #[test]
    fn what_a_heartbeat_has_proven_is_not_given_up() {
        let (mut log, mut backlog, stream) = log(Some(0));
        push(&mut log, &mut backlog, stream, ",a");
        take(&mut log);
        log.pong(log.position(), &mut backlog);
        let start = Instant::now();
        log.age(start, TTL);
        for _ in 0..2 {
            let beat = Message::text("beat");
            backlog.add(beat.cost());
            log.push_heartbeat_reply(beat, &mut backlog);
            take(&mut log);
        }
        log.age(start + TTL, TTL);
        assert!(log.has_all_after(Some(0)));
    }

    #[test]
    fn what_the_network_has_is_kept_up_to_a_limit() {
        let (mut log, mut backlog, stream) = log(Some(0));
        let large = "x".repeat(MAX_RETAINED / 4);
        for _ in 0..10 {
            push(&mut log, &mut backlog, stream, &large);
        }
        take(&mut log);
        log.pong(log.position(), &mut backlog);
        assert_eq!(backlog.bytes(), 0);
        let (_, retained) = log.costs();
        assert!(retained <= MAX_RETAINED && retained > MAX_RETAINED / 2, "{retained}");
        assert!(log.attach(Some(0), &mut backlog).is_none(), "the first seven are lost");
        log.attach(Some(7), &mut backlog);
        resume(&mut log, &mut backlog, stream);
        assert_eq!(take(&mut log).len(), 4, "the newest three, and the answer");
    }

    #[test]
    fn a_poll_of_a_client_that_reads_numbers_is_no_proof_that_it_has_seen_them() {
        let (mut log, mut backlog, stream) = log(Some(0));
        push(&mut log, &mut backlog, stream, ",a");
        take(&mut log);
        assert_eq!(log.acknowledge(log.position(), &mut backlog), Ok(()));
        assert_eq!(log.unacknowledged().count(), 0);
        log.attach(Some(0), &mut backlog);
        resume(&mut log, &mut backlog, stream);
        assert_eq!(take(&mut log), ["joined", "[\"s:2\",a"]);
    }

    fn push_volatile(
        log: &mut ReplayBuffer,
        backlog: &mut ByteBudget,
        stream: StreamId,
        text: &str,
    ) -> bool {
        let message = Message::with_placeholder(format!("[null{text}"), 1).volatile();
        backlog.add(message.cost());
        log.push(stream, message)
    }

    #[test]
    fn what_is_transient_is_not_replayed_into_a_lane_that_is_refreshed() {
        let (mut log, mut backlog, stream) = log(None);
        log.discard_volatile(stream);
        assert!(push_volatile(&mut log, &mut backlog, stream, ",written"));
        push(&mut log, &mut backlog, stream, ",lasting");
        take(&mut log);
        assert!(push_volatile(&mut log, &mut backlog, stream, ",waiting"));
        log.detach(log.epoch(), false);
        assert!(!push_volatile(&mut log, &mut backlog, stream, ",parked"));
        log.attach(None, &mut backlog);
        assert!(!push_volatile(&mut log, &mut backlog, stream, ",held"));
        resume(&mut log, &mut backlog, stream);
        assert!(push_volatile(&mut log, &mut backlog, stream, ",fresh"));
        assert_eq!(take(&mut log), ["joined", "[null,lasting", "[null,fresh"]);
    }

    #[test]
    fn what_is_transient_is_not_said_after_all_in_a_lane_that_is_held_and_refreshed() {
        let (mut log, mut backlog, stream) = log(None);
        log.discard_volatile(stream);
        take(&mut log);
        let before = backlog.bytes();
        assert!(push_volatile(&mut log, &mut backlog, stream, ",waiting"));
        log.pause(stream, &mut backlog);
        assert_eq!(backlog.bytes(), before);
        resume(&mut log, &mut backlog, stream);
        assert_eq!(take(&mut log), ["joined"]);
    }

    #[test]
    fn what_is_transient_waits_for_a_connection_that_is_only_idle() {
        let (mut log, mut backlog, stream) = log(None);
        log.discard_volatile(stream);
        take(&mut log);
        log.idle(log.epoch(), true);
        assert!(push_volatile(&mut log, &mut backlog, stream, ",a"));
        log.return_to(log.epoch());
        assert_eq!(take(&mut log), ["[null,a"]);
    }

    #[test]
    fn what_is_transient_is_like_the_rest_in_a_lane_that_nobody_refreshes() {
        let (mut log, mut backlog, stream) = log(None);
        take(&mut log);
        log.detach(log.epoch(), false);
        assert!(push_volatile(&mut log, &mut backlog, stream, ",a"));
        log.attach(None, &mut backlog);
        resume(&mut log, &mut backlog, stream);
        assert_eq!(take(&mut log), ["joined", "[null,a"]);
    }

    #[test]
    fn a_lane_that_is_known_on_one_attachment_is_not_on_the_next() {
        let (mut log, mut backlog, stream) = log(None);
        take(&mut log);
        assert!(!log.is_join_acked(stream));
        log.pong(log.position(), &mut backlog);
        assert!(log.is_join_acked(stream));
        log.attach(None, &mut backlog);
        assert!(!log.is_join_acked(stream));
    }

    #[test]
    fn an_answer_for_an_attachment_that_is_over_opens_nothing() {
        let (mut log, mut backlog, stream) = log(None);
        log.attach(None, &mut backlog);
        assert!(!log.resume(stream, log.epoch() - 1, Message::text("late")));
        assert!(take(&mut log).is_empty());
    }
}
