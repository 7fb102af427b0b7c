//! What waits to be written, in *streams*: messages that belong together.
//!
//! A stream is open or paused. What waits in open ones stands in one row, in the order in which it was
//! pushed; what waits in a paused one stands aside, and costs those that are open nothing.

use std::collections::VecDeque;

use crate::frame::Message;

/// Names what is paused and opened together.
pub(super) type StreamId = u32;

/// Control messages, in stream 0: never paused, and not repeated.
pub(super) const PRIORITY: StreamId = 0;

#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Of streams that are open, or were when they ended.
    row: VecDeque<(StreamId, Message)>,
    /// In order: they are numbered as they come.
    streams: Vec<State>,
    last: StreamId,
    /// Whether streams are paused until they are opened.
    pausing: bool,
}

#[derive(Debug)]
struct State {
    stream: StreamId,
    open: bool,
    /// The position of the answer that opened it, once it is written.
    opening: Option<u64>,
    /// Whether its owner says the whole anew each time it is opened.
    discards_volatile: bool,
    paused: VecDeque<Message>,
}

impl State {
    fn pause(&mut self) {
        (self.open, self.opening) = (false, None);
    }
}

fn place(streams: &[State], stream: StreamId) -> Option<usize> {
    streams.binary_search_by_key(&stream, |state| state.stream).ok()
}

fn find(streams: &mut [State], stream: StreamId) -> Option<&mut State> {
    place(streams, stream).map(|at| &mut streams[at])
}

impl Streams {
    /// A new stream.
    pub(super) fn add(&mut self) -> StreamId {
        self.last += 1;
        let (stream, open) = (self.last, !self.pausing);
        // Most sessions have one.
        if self.streams.capacity() == 0 {
            self.streams.reserve_exact(1);
        }
        let paused = VecDeque::new();
        self.streams.push(State { stream, open, opening: None, discards_volatile: false, paused });
        stream
    }

    /// How many have not ended.
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    /// Says that volatile messages of a stream need not outlive the connection for which they were
    /// meant.
    pub(super) fn discard_volatile(&mut self, stream: StreamId) {
        if let Some(state) = find(&mut self.streams, stream) {
            state.discards_volatile = true;
        }
    }

    /// Pushes a message, for a connection that may be `gone`. `false` if it is not needed: its stream has
    /// ended, or will be discards_volatile.
    pub(super) fn push(&mut self, stream: StreamId, message: Message, gone: bool) -> bool {
        let Some(state) = find(&mut self.streams, stream) else { return false };
        if message.is_volatile() && state.discards_volatile && (gone || !state.open) {
            return false;
        }
        if state.open {
            self.row.push_back((stream, message));
        } else {
            state.paused.push_back(message);
        }
        true
    }

    /// Puts a control message behind all that waits.
    pub(super) fn push_control(&mut self, message: Message) {
        self.row.push_back((PRIORITY, message));
    }

    /// Opens a stream: what waits in it gets in line.
    pub(super) fn resume(&mut self, stream: StreamId) {
        let Some(state) = find(&mut self.streams, stream) else { return };
        (state.open, state.opening) = (true, None);
        self.row
            .extend(std::mem::take(&mut state.paused).into_iter().map(|message| (stream, message)));
    }

    /// The answer that opened a stream is written at this position.
    pub(super) fn opened_at(&mut self, stream: StreamId, position: u64) {
        if let Some(state) = find(&mut self.streams, stream) {
            state.opening = Some(position);
        }
    }

    /// Where the answer that opened a stream is written, if it is.
    pub(super) fn opening(&self, stream: StreamId) -> Option<u64> {
        self.streams[place(&self.streams, stream)?].opening
    }

    /// Holds a stream until it is opened again. Returns the cost of what is not needed: what is
    /// volatile will be said anew.
    pub(super) fn pause(&mut self, stream: StreamId) -> usize {
        let Some(state) = find(&mut self.streams, stream).filter(|_| self.pausing) else {
            return 0;
        };
        state.pause();
        let mut dropped = 0;
        for (other, message) in std::mem::take(&mut self.row) {
            if other != stream {
                self.row.push_back((other, message));
            } else if state.discards_volatile && message.is_volatile() {
                dropped += message.cost();
            } else {
                state.paused.push_back(message);
            }
        }
        dropped
    }

    /// Holds all streams, now and from now on; what was `written` in them goes before what waits. Returns
    /// the cost of what is not needed: control is not repeated, what belongs to an ended stream has
    /// nobody who waits for it, and what is volatile will be said anew.
    pub(super) fn pause_all(&mut self, written: VecDeque<(StreamId, Message)>) -> usize {
        self.pausing = true;
        let mut dropped = 0;
        for state in &mut self.streams {
            state.pause();
            if state.discards_volatile {
                state.paused.retain(|message| {
                    dropped += if message.is_volatile() { message.cost() } else { 0 };
                    !message.is_volatile()
                });
            }
        }
        let row = std::mem::take(&mut self.row);
        for (stream, message) in written.into_iter().chain(row).rev() {
            match find(&mut self.streams, stream) {
                Some(state) if !(state.discards_volatile && message.is_volatile()) => {
                    state.paused.push_front(message);
                }
                _ => dropped += message.cost(),
            }
        }
        dropped
    }

    /// Nothing follows in a stream. What waits in it is lost if it is paused, and this is its cost.
    pub(super) fn end(&mut self, stream: StreamId) -> usize {
        let Some(at) = place(&self.streams, stream) else { return 0 };
        self.streams.remove(at).paused.iter().map(Message::cost).sum()
    }

    /// The next message of an open stream.
    pub(super) fn pop(&mut self) -> Option<(StreamId, Message)> {
        let next = self.row.pop_front()?;
        // An idle session holds no room for what may come.
        if self.row.is_empty() {
            self.row = VecDeque::new();
        }
        Some(next)
    }

    /// How many messages are paused.
    pub(super) fn paused(&self) -> usize {
        self.streams.iter().map(|state| state.paused.len()).sum()
    }

    /// The cost of all that waits, by counting.
    pub(super) fn cost(&self) -> usize {
        let paused = self.streams.iter().flat_map(|state| &state.paused);
        self.row.iter().map(|(_, message)| message).chain(paused).map(Message::cost).sum()
    }

    /// Drops all that waits.
    pub(super) fn clear(&mut self) {
        self.row = VecDeque::new();
        self.streams.iter_mut().for_each(|state| state.paused = VecDeque::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(streams: &mut Streams, stream: StreamId, text: &str) {
        assert!(streams.push(stream, Message::text(text.to_owned()), false));
    }

    fn row(streams: &mut Streams) -> Vec<String> {
        let text =
            |(_, message): (StreamId, Message)| String::from_utf8_lossy(&message.to_bytes()).into();
        std::iter::from_fn(|| streams.pop()).map(text).collect()
    }

    #[test]
    fn before_the_first_connection_lanes_are_open_and_keep_their_order() {
        let mut streams = Streams::default();
        let (a, b) = (streams.add(), streams.add());
        push(&mut streams, a, "1");
        push(&mut streams, b, "2");
        streams.pause(a);
        streams.push_control(Message::text("3"));
        push(&mut streams, a, "4");
        assert_eq!(row(&mut streams), ["1", "2", "3", "4"]);
    }

    #[test]
    fn what_is_paused_stands_aside_and_keeps_its_order_when_it_gets_in_line() {
        let mut streams = Streams::default();
        let (a, b) = (streams.add(), streams.add());
        push(&mut streams, a, "a2");
        push(&mut streams, b, "b1");
        let written = [(a, Message::text("a1")), (PRIORITY, Message::text("control"))];
        assert_eq!(streams.pause_all(written.into()), Message::text("control").cost());
        push(&mut streams, a, "a3");
        streams.resume(b);
        push(&mut streams, b, "b2");
        assert_eq!((row(&mut streams), streams.paused()), (vec!["b1".into(), "b2".into()], 3));
        streams.resume(a);
        push(&mut streams, a, "a4");
        assert_eq!(row(&mut streams), ["a1", "a2", "a3", "a4"]);
    }

    #[test]
    fn a_lane_that_is_paused_while_it_waits_leaves_the_row_alone() {
        let mut streams = Streams::default();
        streams.pause_all(VecDeque::new());
        let (a, b) = (streams.add(), streams.add());
        streams.resume(a);
        streams.resume(b);
        push(&mut streams, a, "a1");
        push(&mut streams, b, "b1");
        push(&mut streams, a, "a2");
        streams.pause(a);
        assert_eq!(row(&mut streams), ["b1"]);
        streams.resume(a);
        assert_eq!(row(&mut streams), ["a1", "a2"]);
    }

    #[test]
    fn what_has_left_leaves_no_memory_behind() {
        let mut streams = Streams::default();
        let stream = streams.add();
        for count in [1, 100] {
            (0..count).for_each(|_| push(&mut streams, stream, "x"));
            assert_eq!(row(&mut streams).len(), count);
            assert_eq!(streams.row.capacity(), 0);
        }
    }

    #[test]
    fn the_last_words_of_an_open_lane_leave_and_those_of_a_paused_one_do_not() {
        let mut streams = Streams::default();
        streams.pause_all(VecDeque::new());
        let (open, paused) = (streams.add(), streams.add());
        streams.resume(open);
        push(&mut streams, open, "open");
        push(&mut streams, paused, "paused");
        assert_eq!((streams.end(open), streams.end(paused)), (0, Message::text("paused").cost()));
        assert_eq!(row(&mut streams), ["open"]);
    }
}
