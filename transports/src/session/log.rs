//! What a kept session sends: everything until it is known to have arrived.
//!
//! ```text
//! written   a b c d | e f g      waiting   h i j
//!           ^         ^                    held until their lane is opened again, or next
//!           first     ponged: the client's network has what is before
//! ```
//! An *attachment* is one connection of the session, or one long-poll token's life. What an
//! attachment wrote and the client may not have waits again when the next one begins, and is
//! numbered anew as it is written. Nothing is written twice on one attachment.
//!
//! No number is given twice: an attachment's are above all that were given before, and what it took
//! over bears none until it is written again. So `written` is the span of numbers of one attachment,
//! and what a client has seen of another, or of a session of the same name that is gone, acknowledges
//! nothing of it.
//!
//! A *lane* is what belongs together: with the next attachment it is held until it is opened again.
//! Lane 0 is control: it is never held, goes before everything else, and is not repeated.
//!
//! This is plain code: it knows no task, no clock and no socket.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::lanes::{CONTROL, Lane, Lanes};
use crate::backlog::Backlog;
use crate::frame::Message;

#[derive(Debug)]
pub(super) struct Log {
    /// Which attachment may write; 0 before the first, for an outbox that is kept for one alone.
    attachment: u64,
    attached: bool,
    /// Whether the attachment's connection is gone for good, and not only idle.
    gone: bool,
    /// Whether the client ended the last attachment itself, and so may have thrown away what it had
    /// not read.
    parted: bool,
    /// Whether a connection that was taken over showed since the last attachment that it lives.
    contested: bool,
    /// Whether the client reads numbers.
    numbered: bool,
    control: VecDeque<Control>,
    waiting: Lanes,
    /// What this attachment wrote, from the position `first` on.
    written: VecDeque<(Lane, Message)>,
    first: u64,
    ponged: u64,
    /// The cost of what lies between `first` and `ponged`, which no longer counts as backlog.
    tail: usize,
    /// How far `ponged` was at some time, to see what has been in the tail since then.
    aged: Option<(Instant, u64)>,
    /// The highest number that left the tail although the client may not have seen it. (A reply has
    /// none. If it is lost its push times out, which the client sees.)
    given_up: u64,
    /// The cost of what lies behind `ponged`.
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
    /// The answer that opened a lane.
    Opening(Lane),
}

/// What came of [`Log::attach`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Attached {
    /// The new attachment.
    pub(super) attachment: u64,
    /// How many messages wait for their lanes, whether they were written before or not.
    pub(super) replayed: usize,
}

/// A token that names what was never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

impl Log {
    /// A log whose numbers begin after `received`. Until the first attachment, all lanes are open.
    pub(super) fn new(received: u64) -> Self {
        Self {
            attachment: 0,
            attached: true,
            gone: false,
            parted: false,
            contested: false,
            numbered: false,
            control: VecDeque::new(),
            waiting: Lanes::default(),
            written: VecDeque::new(),
            first: 0,
            ponged: 0,
            tail: 0,
            aged: None,
            given_up: 0,
            under_way: 0,
            next_number: received.saturating_add(1),
            pulse: None,
        }
    }

    pub(super) fn attachment(&self) -> u64 {
        self.attachment
    }

    pub(super) fn is_attached(&self) -> bool {
        self.attached
    }

    /// Whether a client that reads numbers and has seen this one can go on without a gap.
    pub(super) fn has_all_after(&self, received: Option<u64>) -> bool {
        received.is_none_or(|received| received >= self.given_up)
    }

    /// Begins an attachment. `received` is the last number that the client has seen, if it reads
    /// numbers; `None` if there would be a gap. If it does not, what its network has acknowledged may
    /// still be lost behind it: when it parted itself, or seems to be alive elsewhere.
    pub(super) fn attach(
        &mut self,
        received: Option<u64>,
        backlog: &mut Backlog,
    ) -> Option<Attached> {
        if !self.has_all_after(received) {
            return None;
        }
        if let Some(received) = received {
            self.forget(self.first + self.seen(received) as u64, backlog);
            self.next_number = self.next_number.max(received.saturating_add(1));
        } else if !self.attached && !self.parted {
            self.forget(self.ponged, backlog);
        }
        for Control { message, .. } in self.control.drain(..) {
            backlog.remove(message.cost());
        }
        let position = self.position();
        let ponged = (self.ponged - self.first) as usize;
        let mut written = std::mem::take(&mut self.written);
        for (index, (_, message)) in written.iter_mut().enumerate() {
            if index < ponged {
                backlog.restore(message.cost());
            }
            message.set_number(0);
        }
        backlog.remove(self.waiting.hold_all(written));
        self.first = position;
        self.under_way = 0;
        self.tail = 0;
        self.aged = None;
        self.ponged = self.first;
        self.pulse = None;
        self.attachment += 1;
        (self.attached, self.gone, self.parted) = (true, false, false);
        self.numbered = received.is_some();
        Some(Attached { attachment: self.attachment, replayed: self.waiting.held() })
    }

    /// How much of what was written a client has seen that has seen this number.
    fn seen(&self, received: u64) -> usize {
        // It was not given here.
        if received >= self.next_number {
            return 0;
        }
        let is_seen =
            |(_, message): &(Lane, Message)| message.number() != 0 && message.number() <= received;
        self.written.iter().rposition(is_seen).map_or(0, |last| last + 1)
    }

    /// The connection of an attachment is gone; `parted` if the client closed it.
    pub(super) fn detach(&mut self, attachment: u64, parted: bool) {
        if attachment == self.attachment {
            self.idle(attachment, parted);
            self.gone = true;
        }
    }

    /// The connection of an attachment is idle, and may be gone; `parted` if the client may have
    /// left it.
    pub(super) fn idle(&mut self, attachment: u64, parted: bool) {
        if attachment == self.attachment && self.attached {
            (self.attached, self.parted) = (false, parted);
        }
    }

    /// The connection of the current attachment shows that it is there after all.
    pub(super) fn return_to(&mut self, attachment: u64) {
        if attachment == self.attachment {
            (self.attached, self.gone, self.parted) = (true, false, false);
        }
    }

    /// An attachment shows that its client is there, although a newer one took the session over.
    pub(super) fn contest(&mut self, attachment: u64) {
        self.contested |= attachment != self.attachment;
    }

    /// Whether an attachment did so since this was asked last.
    pub(super) fn was_contested(&mut self) -> bool {
        std::mem::take(&mut self.contested)
    }

    /// A new lane, which is held until it is opened.
    pub(super) fn lane(&mut self) -> Lane {
        self.waiting.add()
    }

    /// Says that transient messages of a lane need not outlive the connection for which they were
    /// meant.
    pub(super) fn refresh(&mut self, lane: Lane) {
        self.waiting.refresh(lane);
    }

    /// Pushes a message. `false` if it is not needed: its lane has ended, or will be refreshed.
    pub(super) fn push(&mut self, lane: Lane, message: Message) -> bool {
        if lane == CONTROL {
            self.push_control(message, Kind::Plain);
            return true;
        }
        self.waiting.push(lane, message, self.gone)
    }

    /// Before the first attachment there is nothing to overtake: all keeps its order.
    fn push_control(&mut self, message: Message, kind: Kind) {
        if self.attachment == 0 {
            self.waiting.push_control(message);
        } else {
            self.control.push_back(Control { message, kind });
        }
    }

    /// Pushes the answer to a message of which a client sends one at a time. That it was sent proves
    /// that the answer to the one before has arrived, and all that was written before that.
    pub(super) fn push_pulse(&mut self, message: Message, backlog: &mut Backlog) {
        if let Some(proven) = self.pulse.take() {
            self.forget(proven, backlog);
        }
        self.push_control(message, Kind::Pulse);
    }

    /// Opens a lane for an attachment with an answer that goes before it. `false`, and nothing
    /// happens, if that attachment is not the current one.
    pub(super) fn open(&mut self, lane: Lane, attachment: u64, answer: Message) -> bool {
        let current = attachment == self.attachment;
        if current {
            self.waiting.open(lane);
            self.push_control(answer, Kind::Opening(lane));
        }
        current
    }

    /// Holds a lane until it is opened again.
    pub(super) fn hold(&mut self, lane: Lane, backlog: &mut Backlog) {
        backlog.remove(self.waiting.hold(lane));
    }

    /// Whether the answer that opened a lane for this attachment has arrived.
    pub(super) fn is_open_known(&self, lane: Lane) -> bool {
        let opening = self.waiting.opening(lane);
        opening.is_some_and(|position| position < self.first.max(self.ponged))
    }

    /// Nothing follows in a lane. What waits in it is lost if it is held.
    pub(super) fn end_lane(&mut self, lane: Lane, backlog: &mut Backlog) {
        backlog.remove(self.waiting.end(lane));
    }

    /// Hands to `write` what is to be written next: control first, then open lanes in order, until
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
                Kind::Opening(lane) => self.waiting.opened_at(lane, position),
            }
            self.write(CONTROL, message, &mut write);
            // Control is rare: an idle session holds no room for it.
            if self.control.is_empty() {
                self.control = VecDeque::new();
            }
        }
        let mut room = chunk.min(window.saturating_sub(self.under_way));
        while room > 0
            && let Some((lane, message)) = self.waiting.pop()
        {
            room = room.saturating_sub(message.cost());
            self.write(lane, message, &mut write);
        }
        self.written.len() > before
    }

    fn write(&mut self, lane: Lane, mut message: Message, write: &mut impl FnMut(&Message)) {
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
        self.written.push_back((lane, message));
    }

    /// The position behind the last message that was written.
    pub(super) fn position(&self) -> u64 {
        self.first + self.written.len() as u64
    }

    /// Everything before this position has arrived, at the client's transport at least.
    pub(super) fn acknowledge(
        &mut self,
        position: u64,
        backlog: &mut Backlog,
    ) -> Result<(), Unknown> {
        if position > self.position() {
            return Err(Unknown);
        }
        // No other attachment will come.
        if self.attachment == 0 {
            self.forget(position, backlog);
            return Ok(());
        }
        let before = self.ponged;
        self.pong(position, backlog);
        // A client that reads numbers says by them what it has seen; this was its transport. Of one
        // that does not, the next acknowledgement shows that it has dealt with the last: phoenix.js
        // polls again before it dispatches an answer, and may stop in between.
        if !self.numbered && position > before {
            self.forget(before, backlog);
        }
        Ok(())
    }

    /// Everything before this position is where the client's network ends. It is kept a little
    /// longer: the client may not have read it.
    pub(super) fn pong(&mut self, position: u64, backlog: &mut Backlog) {
        while self.ponged < position.min(self.position()) {
            let (_, message) = &self.written[(self.ponged - self.first) as usize];
            backlog.remove(message.cost());
            self.under_way -= message.cost();
            self.tail += message.cost();
            self.ponged += 1;
        }
        while self.tail > TAIL {
            self.give_up(self.first + 1);
        }
    }

    /// Gives up what the client's network has had for `ttl` at least, and for twice that at most, if
    /// it is called again and again.
    pub(super) fn age(&mut self, now: Instant, ttl: Duration) {
        if let Some((since, ponged)) = self.aged {
            if now.saturating_duration_since(since) < ttl {
                return;
            }
            self.give_up(ponged);
        }
        self.aged = Some((now, self.ponged));
    }

    /// Forgets of the tail what lies before this position.
    fn give_up(&mut self, position: u64) {
        while self.first < position.min(self.ponged) {
            let Some((_, message)) = self.written.pop_front() else { return };
            self.given_up = self.given_up.max(message.number());
            self.tail -= message.cost();
            self.first += 1;
        }
        if self.written.is_empty() {
            self.written = VecDeque::new();
        }
    }

    /// The client itself has read all that was written.
    pub(super) fn read(&mut self, backlog: &mut Backlog) {
        self.forget(self.position(), backlog);
    }

    /// What this attachment wrote and the client's transport has not acknowledged.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = &Message> {
        let acknowledged = (self.ponged - self.first) as usize;
        self.written.iter().skip(acknowledged).map(|(_, message)| message)
    }

    /// The cost of what is behind `ponged`.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// What the backlog has to be, and the tail, both by counting.
    pub(super) fn costs(&self) -> (usize, usize) {
        let ponged = (self.ponged - self.first) as usize;
        let control = self.control.iter().map(|control| control.message.cost());
        let under_way = self.written.iter().skip(ponged).map(|(_, message)| message.cost());
        let tail = self.written.iter().take(ponged).map(|(_, message)| message.cost()).sum();
        (control.chain(under_way).sum::<usize>() + self.waiting.cost(), tail)
    }

    /// How many lanes have not ended.
    pub(super) fn lanes(&self) -> usize {
        self.waiting.len()
    }

    /// Drops all that was not written: nobody will.
    pub(super) fn clear(&mut self) {
        self.control = VecDeque::new();
        self.waiting.clear();
    }

    fn forget(&mut self, position: u64, backlog: &mut Backlog) {
        while self.first < position {
            let Some((_, message)) = self.written.pop_front() else { return };
            if self.first < self.ponged {
                self.tail -= message.cost();
            } else {
                backlog.remove(message.cost());
                self.under_way -= message.cost();
                self.ponged += 1;
            }
            self.first += 1;
        }
        // A session that is used keeps the room of one, as most that are parked.
        if self.written.is_empty() && self.written.capacity() > 1 {
            self.written = VecDeque::new();
        }
    }
}

/// How much of what the network has acknowledged is kept at most.
pub(super) const TAIL: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with one open lane, on its first attachment.
    fn log(received: Option<u64>) -> (Log, Backlog, Lane) {
        let (mut log, mut backlog) = (Log::new(0), Backlog::new(1 << 30));
        log.attach(received, &mut backlog);
        let lane = log.lane();
        assert!(open(&mut log, &mut backlog, lane));
        (log, backlog, lane)
    }

    fn open(log: &mut Log, backlog: &mut Backlog, lane: Lane) -> bool {
        let answer = Message::text("joined");
        backlog.add(answer.cost());
        log.open(lane, log.attachment(), answer)
    }

    fn push(log: &mut Log, backlog: &mut Backlog, lane: Lane, text: &str) {
        let message = Message::slotted(format!("[null{text}"), 1);
        backlog.add(message.cost());
        log.push(lane, message);
    }

    fn take(log: &mut Log) -> Vec<String> {
        let mut texts = Vec::new();
        log.take(usize::MAX, usize::MAX, |message| {
            texts.push(String::from_utf8_lossy(&message.to_bytes()).into_owned());
        });
        texts
    }

    #[test]
    fn what_was_written_waits_for_its_lane_on_the_next_attachment_and_is_numbered_anew() {
        let (mut log, mut backlog, lane) = log(Some(0));
        push(&mut log, &mut backlog, lane, ",a");
        push(&mut log, &mut backlog, lane, ",b");
        assert_eq!(take(&mut log), ["joined", "[\"s:1\",a", "[\"s:2\",b"]);
        log.attach(Some(1), &mut backlog);
        assert!(take(&mut log).is_empty());
        open(&mut log, &mut backlog, lane);
        assert_eq!(take(&mut log), ["joined", "[\"s:3\",b"]);
    }

    #[test]
    fn a_client_that_reads_no_numbers_gets_none_even_if_it_did_before() {
        let (mut log, mut backlog, lane) = log(Some(0));
        push(&mut log, &mut backlog, lane, ",a");
        take(&mut log);
        log.attach(None, &mut backlog);
        open(&mut log, &mut backlog, lane);
        assert_eq!(take(&mut log), ["joined", "[null,a"]);
    }

    #[test]
    fn numbers_go_on_from_what_the_client_has_seen_of_another_session() {
        let (mut log, mut backlog, lane) = log(Some(41));
        push(&mut log, &mut backlog, lane, ",a");
        assert_eq!(take(&mut log), ["joined", "[\"s:42\",a"]);
    }

    fn texts(count: u32) -> Vec<String> {
        (1..=count).map(|n| format!(",{n}")).collect()
    }

    /// Opens the lane, and reads what was written in it with these numbers.
    fn replay(log: &mut Log, backlog: &mut Backlog, lane: Lane) -> Vec<String> {
        open(log, backlog, lane);
        take(log).split_off(1)
    }

    #[test]
    fn a_number_of_the_attachment_before_acknowledges_nothing_of_the_last_one() {
        let (mut log, mut backlog, lane) = log(Some(0));
        texts(2).iter().for_each(|text| push(&mut log, &mut backlog, lane, text));
        assert_eq!(take(&mut log), ["joined", "[\"s:1\",1", "[\"s:2\",2"]);
        log.attach(Some(0), &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, lane), ["[\"s:3\",1", "[\"s:4\",2"]);
        log.attach(Some(2), &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, lane), ["[\"s:5\",1", "[\"s:6\",2"]);
    }

    #[test]
    fn a_number_of_the_last_attachment_acknowledges_what_that_one_wrote_and_nothing_that_waits() {
        let (mut log, mut backlog, lane) = log(Some(0));
        let other = log.lane();
        open(&mut log, &mut backlog, other);
        push(&mut log, &mut backlog, other, ",other");
        texts(2).iter().for_each(|text| push(&mut log, &mut backlog, lane, text));
        assert_eq!(take(&mut log).len(), 5);
        log.attach(Some(0), &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, lane), ["[\"s:4\",1", "[\"s:5\",2"]);
        log.attach(Some(4), &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, lane), ["[\"s:6\",2"]);
        assert_eq!(replay(&mut log, &mut backlog, other), ["[\"s:7\",other"]);
    }

    #[test]
    fn a_number_of_an_attachment_that_wrote_nothing_is_that_of_the_one_before() {
        let (mut log, mut backlog, lane) = log(Some(0));
        texts(3).iter().for_each(|text| push(&mut log, &mut backlog, lane, text));
        take(&mut log);
        for _ in 0..3 {
            log.attach(Some(1), &mut backlog);
            assert!(take(&mut log).is_empty());
        }
        assert_eq!(replay(&mut log, &mut backlog, lane), ["[\"s:4\",2", "[\"s:5\",3"]);
    }

    #[test]
    fn a_number_that_was_never_given_acknowledges_nothing() {
        let (mut log, mut backlog, lane) = log(Some(0));
        texts(2).iter().for_each(|text| push(&mut log, &mut backlog, lane, text));
        take(&mut log);
        log.attach(Some(9), &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, lane), ["[\"s:10\",1", "[\"s:11\",2"]);
    }

    #[test]
    fn a_number_acknowledges_nothing_of_an_attachment_that_gave_none() {
        let (mut log, mut backlog, lane) = log(Some(0));
        texts(2).iter().for_each(|text| push(&mut log, &mut backlog, lane, text));
        take(&mut log);
        log.attach(None, &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, lane), ["[null,1", "[null,2"]);
        log.attach(Some(2), &mut backlog);
        assert_eq!(replay(&mut log, &mut backlog, lane), ["[\"s:3\",1", "[\"s:4\",2"]);
    }

    const TTL: Duration = Duration::from_secs(90);

    #[test]
    fn what_the_network_has_is_kept_for_its_time_and_not_twice_as_long() {
        let (mut log, mut backlog, lane) = log(Some(0));
        let start = Instant::now();
        log.age(start, TTL);
        push(&mut log, &mut backlog, lane, ",a");
        take(&mut log);
        log.pong(log.position(), &mut backlog);
        push(&mut log, &mut backlog, lane, ",b");
        take(&mut log);
        for (seconds, kept) in [(89, true), (90, true), (179, true), (180, false)] {
            log.age(start + Duration::from_secs(seconds), TTL);
            assert_eq!(log.costs().1 > 0, kept, "after {seconds} s");
        }
        assert_eq!(log.unacknowledged().count(), 1, "what the network does not have stays");
    }

    #[test]
    fn a_client_that_has_not_seen_what_was_given_up_cannot_go_on() {
        let (mut log, mut backlog, lane) = log(Some(0));
        texts(3).iter().for_each(|text| push(&mut log, &mut backlog, lane, text));
        take(&mut log);
        log.pong(log.position() - 1, &mut backlog);
        let start = Instant::now();
        log.age(start, TTL);
        log.age(start + TTL, TTL);
        assert!(log.attach(Some(1), &mut backlog).is_none());
        assert!(log.attach(Some(2), &mut backlog).is_some());
        assert_eq!(replay(&mut log, &mut backlog, lane), ["[\"s:4\",3"]);
    }

    #[test]
    fn what_a_heartbeat_has_proven_is_not_given_up() {
        let (mut log, mut backlog, lane) = log(Some(0));
        push(&mut log, &mut backlog, lane, ",a");
        take(&mut log);
        log.pong(log.position(), &mut backlog);
        let start = Instant::now();
        log.age(start, TTL);
        for _ in 0..2 {
            let beat = Message::text("beat");
            backlog.add(beat.cost());
            log.push_pulse(beat, &mut backlog);
            take(&mut log);
        }
        log.age(start + TTL, TTL);
        assert!(log.has_all_after(Some(0)));
    }

    #[test]
    fn what_the_network_has_is_kept_up_to_a_limit() {
        let (mut log, mut backlog, lane) = log(Some(0));
        let large = "x".repeat(TAIL / 4);
        for _ in 0..10 {
            push(&mut log, &mut backlog, lane, &large);
        }
        take(&mut log);
        log.pong(log.position(), &mut backlog);
        assert_eq!(backlog.bytes(), 0);
        let (_, tail) = log.costs();
        assert!(tail <= TAIL && tail > TAIL / 2, "{tail}");
        assert!(log.attach(Some(0), &mut backlog).is_none(), "the first seven are lost");
        log.attach(Some(7), &mut backlog);
        open(&mut log, &mut backlog, lane);
        assert_eq!(take(&mut log).len(), 4, "the newest three, and the answer");
    }

    #[test]
    fn a_poll_of_a_client_that_reads_numbers_is_no_proof_that_it_has_seen_them() {
        let (mut log, mut backlog, lane) = log(Some(0));
        push(&mut log, &mut backlog, lane, ",a");
        take(&mut log);
        assert_eq!(log.acknowledge(log.position(), &mut backlog), Ok(()));
        assert_eq!(log.unacknowledged().count(), 0);
        log.attach(Some(0), &mut backlog);
        open(&mut log, &mut backlog, lane);
        assert_eq!(take(&mut log), ["joined", "[\"s:2\",a"]);
    }

    fn push_transient(log: &mut Log, backlog: &mut Backlog, lane: Lane, text: &str) -> bool {
        let message = Message::slotted(format!("[null{text}"), 1).transient();
        backlog.add(message.cost());
        log.push(lane, message)
    }

    #[test]
    fn what_is_transient_is_not_replayed_into_a_lane_that_is_refreshed() {
        let (mut log, mut backlog, lane) = log(None);
        log.refresh(lane);
        assert!(push_transient(&mut log, &mut backlog, lane, ",written"));
        push(&mut log, &mut backlog, lane, ",lasting");
        take(&mut log);
        assert!(push_transient(&mut log, &mut backlog, lane, ",waiting"));
        log.detach(log.attachment(), false);
        assert!(!push_transient(&mut log, &mut backlog, lane, ",parked"));
        log.attach(None, &mut backlog);
        assert!(!push_transient(&mut log, &mut backlog, lane, ",held"));
        open(&mut log, &mut backlog, lane);
        assert!(push_transient(&mut log, &mut backlog, lane, ",fresh"));
        assert_eq!(take(&mut log), ["joined", "[null,lasting", "[null,fresh"]);
    }

    #[test]
    fn what_is_transient_is_not_said_after_all_in_a_lane_that_is_held_and_refreshed() {
        let (mut log, mut backlog, lane) = log(None);
        log.refresh(lane);
        take(&mut log);
        let before = backlog.bytes();
        assert!(push_transient(&mut log, &mut backlog, lane, ",waiting"));
        log.hold(lane, &mut backlog);
        assert_eq!(backlog.bytes(), before);
        open(&mut log, &mut backlog, lane);
        assert_eq!(take(&mut log), ["joined"]);
    }

    #[test]
    fn what_is_transient_waits_for_a_connection_that_is_only_idle() {
        let (mut log, mut backlog, lane) = log(None);
        log.refresh(lane);
        take(&mut log);
        log.idle(log.attachment(), true);
        assert!(push_transient(&mut log, &mut backlog, lane, ",a"));
        log.return_to(log.attachment());
        assert_eq!(take(&mut log), ["[null,a"]);
    }

    #[test]
    fn what_is_transient_is_like_the_rest_in_a_lane_that_nobody_refreshes() {
        let (mut log, mut backlog, lane) = log(None);
        take(&mut log);
        log.detach(log.attachment(), false);
        assert!(push_transient(&mut log, &mut backlog, lane, ",a"));
        log.attach(None, &mut backlog);
        open(&mut log, &mut backlog, lane);
        assert_eq!(take(&mut log), ["joined", "[null,a"]);
    }

    #[test]
    fn a_lane_that_is_known_on_one_attachment_is_not_on_the_next() {
        let (mut log, mut backlog, lane) = log(None);
        take(&mut log);
        assert!(!log.is_open_known(lane));
        log.pong(log.position(), &mut backlog);
        assert!(log.is_open_known(lane));
        log.attach(None, &mut backlog);
        assert!(!log.is_open_known(lane));
    }

    #[test]
    fn an_answer_for_an_attachment_that_is_over_opens_nothing() {
        let (mut log, mut backlog, lane) = log(None);
        log.attach(None, &mut backlog);
        assert!(!log.open(lane, log.attachment() - 1, Message::text("late")));
        assert!(take(&mut log).is_empty());
    }
}
