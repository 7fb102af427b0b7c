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
//! A *lane* is what belongs together: with the next attachment it is held until it is opened again.
//! Lane 0 is control: it is never held, goes before everything else, and is not repeated.
//!
//! This is plain code: it knows no task, no clock and no socket.

use std::collections::{HashMap, VecDeque};

use crate::backlog::Backlog;
use crate::frame::Message;

/// Names what is held and opened together.
pub(super) type Lane = u32;

/// Control messages, in lane 0.
pub(super) const CONTROL: Lane = 0;

/// What is left of lanes that have ended: it leaves on this attachment or not at all.
const ENDED: Lane = Lane::MAX;

#[derive(Debug)]
pub(super) struct Log {
    /// Which attachment may write; 0 before the first, for an outbox that is kept for one alone.
    attachment: u64,
    attached: bool,
    /// Whether the client ended the last attachment itself, and so may have thrown away what it had
    /// not read.
    parted: bool,
    /// Whether the client reads numbers.
    numbered: bool,
    control: VecDeque<Control>,
    waiting: VecDeque<(Lane, Message)>,
    /// What this attachment wrote, from the position `first` on.
    written: VecDeque<(Lane, Message)>,
    first: u64,
    ponged: u64,
    /// The cost of what lies between `first` and `ponged`, which no longer counts as backlog.
    tail: usize,
    /// The cost of what lies behind `ponged`.
    under_way: usize,
    next_number: u64,
    /// The position behind the last pulse that was written.
    pulse: Option<u64>,
    lanes: HashMap<Lane, LaneState>,
    last_lane: Lane,
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

#[derive(Debug, Default)]
struct LaneState {
    /// The attachment for which it is open.
    opened: u64,
    /// The position of the answer that opened it, once it is written.
    opening: Option<u64>,
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
            parted: false,
            numbered: false,
            control: VecDeque::new(),
            waiting: VecDeque::new(),
            written: VecDeque::new(),
            first: 0,
            ponged: 0,
            tail: 0,
            under_way: 0,
            next_number: received.saturating_add(1),
            pulse: None,
            lanes: HashMap::new(),
            last_lane: CONTROL,
        }
    }

    pub(super) fn attachment(&self) -> u64 {
        self.attachment
    }

    pub(super) fn is_attached(&self) -> bool {
        self.attached
    }

    /// Begins an attachment. `received` is the last number that the client has seen, if it reads
    /// numbers. If it does not, what its network has acknowledged may still be lost behind it: when
    /// it parted itself, or seems to be alive elsewhere.
    pub(super) fn attach(&mut self, received: Option<u64>, backlog: &mut Backlog) -> Attached {
        if let Some(received) = received {
            let is_seen = |(_, message): &(Lane, Message)| {
                message.number() != 0 && message.number() <= received
            };
            let seen = self.written.iter().rposition(is_seen).map_or(0, |last| last + 1);
            self.forget(self.first + seen as u64, backlog);
            self.next_number = self.next_number.max(received.saturating_add(1));
        } else if !self.attached && !self.parted {
            self.forget(self.ponged, backlog);
        }
        for Control { message, .. } in self.control.drain(..) {
            backlog.remove(message.cost());
        }
        let (ponged, position) = ((self.ponged - self.first) as usize, self.position());
        let written: Vec<_> = self.written.drain(..).enumerate().collect();
        for (index, (lane, mut message)) in written.into_iter().rev() {
            if index < ponged {
                backlog.restore(message.cost());
            }
            message.set_number(0);
            self.waiting.push_front((lane, message));
        }
        // Control is not repeated, and what belongs to an ended lane has nobody who waits for it.
        let lanes = &self.lanes;
        self.waiting.retain(|(lane, message)| {
            let kept = lanes.contains_key(lane);
            if !kept {
                backlog.remove(message.cost());
            }
            kept
        });
        self.first = position;
        self.under_way = 0;
        self.tail = 0;
        self.ponged = self.first;
        self.pulse = None;
        self.attachment += 1;
        (self.attached, self.parted) = (true, false);
        self.numbered = received.is_some();
        Attached { attachment: self.attachment, replayed: self.waiting.len() }
    }

    /// The connection of an attachment is gone; `parted` if the client closed it.
    pub(super) fn detach(&mut self, attachment: u64, parted: bool) {
        if attachment == self.attachment && self.attached {
            (self.attached, self.parted) = (false, parted);
        }
    }

    /// The connection of the current attachment shows that it is there after all.
    pub(super) fn return_to(&mut self, attachment: u64) {
        if attachment == self.attachment {
            (self.attached, self.parted) = (true, false);
        }
    }

    /// A new lane, which is held until it is opened.
    pub(super) fn lane(&mut self) -> Lane {
        self.last_lane += 1;
        self.lanes.insert(self.last_lane, LaneState::default());
        self.last_lane
    }

    /// Pushes a message. `false` if its lane has ended.
    pub(super) fn push(&mut self, lane: Lane, message: Message) -> bool {
        if lane == CONTROL {
            self.push_control(message, Kind::Plain);
            return true;
        }
        let known = self.lanes.contains_key(&lane);
        if known {
            self.waiting.push_back((lane, message));
        }
        known
    }

    /// Before the first attachment there is nothing to overtake: all keeps its order.
    fn push_control(&mut self, message: Message, kind: Kind) {
        if self.attachment == 0 {
            self.waiting.push_back((CONTROL, message));
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
            let state = self.lanes.entry(lane).or_default();
            state.opened = attachment;
            state.opening = None;
            self.push_control(answer, Kind::Opening(lane));
        }
        current
    }

    /// Holds a lane until it is opened again.
    pub(super) fn hold(&mut self, lane: Lane) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            *state = LaneState::default();
        }
    }

    /// Whether the answer that opened a lane for this attachment has arrived.
    pub(super) fn is_open_known(&self, lane: Lane) -> bool {
        let state = self.lanes.get(&lane).filter(|state| state.opened == self.attachment);
        let opening = state.and_then(|state| state.opening);
        opening.is_some_and(|position| position < self.first.max(self.ponged))
    }

    /// Nothing follows in a lane. What waits in it is lost if it is held.
    pub(super) fn end_lane(&mut self, lane: Lane, backlog: &mut Backlog) {
        let Some(state) = self.lanes.remove(&lane) else { return };
        let open = state.opened == self.attachment;
        self.waiting.retain_mut(|(other, message)| {
            if *other != lane {
                return true;
            }
            if open {
                *other = ENDED;
            } else {
                backlog.remove(message.cost());
            }
            open
        });
    }

    /// Hands out what is to be written next: control first, then open lanes in order, until about
    /// `chunk` bytes, and nothing but control while `window` bytes are on their way already. Says
    /// whether there was anything.
    pub(super) fn take(
        &mut self,
        batch: &mut VecDeque<Message>,
        chunk: usize,
        window: usize,
    ) -> bool {
        let before = batch.len();
        while let Some(Control { message, kind }) = self.control.pop_front() {
            let position = self.first + self.written.len() as u64;
            match kind {
                Kind::Plain => {}
                Kind::Pulse => self.pulse = Some(position + 1),
                Kind::Opening(lane) => {
                    if let Some(state) = self.lanes.get_mut(&lane) {
                        state.opening = Some(position);
                    }
                }
            }
            self.write(CONTROL, message, batch);
        }
        let mut room = chunk.min(window.saturating_sub(self.under_way));
        let mut at = 0;
        while room > 0 && at < self.waiting.len() {
            let lane = self.waiting[at].0;
            let open = self.attachment == 0
                || lane == ENDED
                || self.lanes.get(&lane).is_some_and(|state| state.opened == self.attachment);
            match open.then(|| self.waiting.remove(at)).flatten() {
                Some((lane, message)) => {
                    room = room.saturating_sub(message.cost());
                    self.write(lane, message, batch);
                }
                None => at += 1,
            }
        }
        batch.len() > before
    }

    fn write(&mut self, lane: Lane, mut message: Message, batch: &mut VecDeque<Message>) {
        if self.numbered && message.takes_number() {
            message.set_number(self.next_number);
            self.next_number += 1;
        }
        self.under_way += message.cost();
        batch.push_back(message.clone());
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
            self.forget(self.first + 1, backlog);
        }
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
        let lanes = self.waiting.iter().chain(self.written.iter().skip(ponged));
        let tail = self.written.iter().take(ponged).map(|(_, message)| message.cost()).sum();
        (control.chain(lanes.map(|(_, message)| message.cost())).sum(), tail)
    }

    /// How many lanes have not ended.
    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Drops all that was not written: nobody will.
    pub(super) fn clear(&mut self) {
        (self.control, self.waiting) = (VecDeque::new(), VecDeque::new());
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
        if self.written.is_empty() {
            self.written = VecDeque::new();
        }
    }
}

/// How much of what the network has acknowledged is kept.
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
        let mut batch = VecDeque::new();
        log.take(&mut batch, usize::MAX, usize::MAX);
        let text = |message: &Message| String::from_utf8_lossy(&message.to_bytes()).into_owned();
        batch.iter().map(text).collect()
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
        log.attach(Some(0), &mut backlog);
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
