//! What waits to be written, in *lanes*: messages that belong together.
//!
//! A lane is open or held. What waits in open ones stands in one row, in the order in which it was
//! pushed; what waits in a held one stands aside, and costs those that are open nothing.

use std::collections::VecDeque;

use crate::frame::Message;

/// Names what is held and opened together.
pub(super) type Lane = u32;

/// Control messages, in lane 0: never held, and not repeated.
pub(super) const CONTROL: Lane = 0;

#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// Of lanes that are open, or were when they ended.
    row: VecDeque<(Lane, Message)>,
    /// In order: they are numbered as they come.
    lanes: Vec<State>,
    last: Lane,
    /// Whether lanes are held until they are opened.
    holding: bool,
}

#[derive(Debug)]
struct State {
    lane: Lane,
    open: bool,
    /// The position of the answer that opened it, once it is written.
    opening: Option<u64>,
    /// Whether its owner says the whole anew each time it is opened.
    refreshed: bool,
    held: VecDeque<Message>,
}

impl State {
    fn hold(&mut self) {
        (self.open, self.opening) = (false, None);
    }
}

fn place(lanes: &[State], lane: Lane) -> Option<usize> {
    lanes.binary_search_by_key(&lane, |state| state.lane).ok()
}

fn find(lanes: &mut [State], lane: Lane) -> Option<&mut State> {
    place(lanes, lane).map(|at| &mut lanes[at])
}

impl Lanes {
    /// A new lane.
    pub(super) fn add(&mut self) -> Lane {
        self.last += 1;
        let (lane, open) = (self.last, !self.holding);
        // Most sessions have one.
        if self.lanes.capacity() == 0 {
            self.lanes.reserve_exact(1);
        }
        let held = VecDeque::new();
        self.lanes.push(State { lane, open, opening: None, refreshed: false, held });
        lane
    }

    /// How many have not ended.
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Says that transient messages of a lane need not outlive the connection for which they were
    /// meant.
    pub(super) fn refresh(&mut self, lane: Lane) {
        if let Some(state) = find(&mut self.lanes, lane) {
            state.refreshed = true;
        }
    }

    /// Pushes a message, for a connection that may be `gone`. `false` if it is not needed: its lane has
    /// ended, or will be refreshed.
    pub(super) fn push(&mut self, lane: Lane, message: Message, gone: bool) -> bool {
        let Some(state) = find(&mut self.lanes, lane) else { return false };
        if message.is_transient() && state.refreshed && (gone || !state.open) {
            return false;
        }
        if state.open {
            self.row.push_back((lane, message));
        } else {
            state.held.push_back(message);
        }
        true
    }

    /// Puts a control message behind all that waits.
    pub(super) fn push_control(&mut self, message: Message) {
        self.row.push_back((CONTROL, message));
    }

    /// Opens a lane: what waits in it gets in line.
    pub(super) fn open(&mut self, lane: Lane) {
        let Some(state) = find(&mut self.lanes, lane) else { return };
        (state.open, state.opening) = (true, None);
        self.row.extend(std::mem::take(&mut state.held).into_iter().map(|message| (lane, message)));
    }

    /// The answer that opened a lane is written at this position.
    pub(super) fn opened_at(&mut self, lane: Lane, position: u64) {
        if let Some(state) = find(&mut self.lanes, lane) {
            state.opening = Some(position);
        }
    }

    /// Where the answer that opened a lane is written, if it is.
    pub(super) fn opening(&self, lane: Lane) -> Option<u64> {
        self.lanes[place(&self.lanes, lane)?].opening
    }

    /// Holds a lane until it is opened again. Returns the cost of what is not needed: what is
    /// transient will be said anew.
    pub(super) fn hold(&mut self, lane: Lane) -> usize {
        let Some(state) = find(&mut self.lanes, lane).filter(|_| self.holding) else { return 0 };
        state.hold();
        let mut dropped = 0;
        for (other, message) in std::mem::take(&mut self.row) {
            if other != lane {
                self.row.push_back((other, message));
            } else if state.refreshed && message.is_transient() {
                dropped += message.cost();
            } else {
                state.held.push_back(message);
            }
        }
        dropped
    }

    /// Holds all lanes, now and from now on; what was `written` in them goes before what waits. Returns
    /// the cost of what is not needed: control is not repeated, what belongs to an ended lane has
    /// nobody who waits for it, and what is transient will be said anew.
    pub(super) fn hold_all(&mut self, written: VecDeque<(Lane, Message)>) -> usize {
        self.holding = true;
        let mut dropped = 0;
        for state in &mut self.lanes {
            state.hold();
            if state.refreshed {
                state.held.retain(|message| {
                    dropped += if message.is_transient() { message.cost() } else { 0 };
                    !message.is_transient()
                });
            }
        }
        let row = std::mem::take(&mut self.row);
        for (lane, message) in written.into_iter().chain(row).rev() {
            match find(&mut self.lanes, lane) {
                Some(state) if !(state.refreshed && message.is_transient()) => {
                    state.held.push_front(message);
                }
                _ => dropped += message.cost(),
            }
        }
        dropped
    }

    /// Nothing follows in a lane. What waits in it is lost if it is held, and this is its cost.
    pub(super) fn end(&mut self, lane: Lane) -> usize {
        let Some(at) = place(&self.lanes, lane) else { return 0 };
        self.lanes.remove(at).held.iter().map(Message::cost).sum()
    }

    /// The next message of an open lane.
    pub(super) fn pop(&mut self) -> Option<(Lane, Message)> {
        let next = self.row.pop_front()?;
        // An idle session holds no room for what may come.
        if self.row.is_empty() {
            self.row = VecDeque::new();
        }
        Some(next)
    }

    /// How many messages are held.
    pub(super) fn held(&self) -> usize {
        self.lanes.iter().map(|state| state.held.len()).sum()
    }

    /// The cost of all that waits, by counting.
    pub(super) fn cost(&self) -> usize {
        let held = self.lanes.iter().flat_map(|state| &state.held);
        self.row.iter().map(|(_, message)| message).chain(held).map(Message::cost).sum()
    }

    /// Drops all that waits.
    pub(super) fn clear(&mut self) {
        self.row = VecDeque::new();
        self.lanes.iter_mut().for_each(|state| state.held = VecDeque::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(lanes: &mut Lanes, lane: Lane, text: &str) {
        assert!(lanes.push(lane, Message::text(text.to_owned()), false));
    }

    fn row(lanes: &mut Lanes) -> Vec<String> {
        let text =
            |(_, message): (Lane, Message)| String::from_utf8_lossy(&message.to_bytes()).into();
        std::iter::from_fn(|| lanes.pop()).map(text).collect()
    }

    #[test]
    fn before_the_first_connection_lanes_are_open_and_keep_their_order() {
        let mut lanes = Lanes::default();
        let (a, b) = (lanes.add(), lanes.add());
        push(&mut lanes, a, "1");
        push(&mut lanes, b, "2");
        lanes.hold(a);
        lanes.push_control(Message::text("3"));
        push(&mut lanes, a, "4");
        assert_eq!(row(&mut lanes), ["1", "2", "3", "4"]);
    }

    #[test]
    fn what_is_held_stands_aside_and_keeps_its_order_when_it_gets_in_line() {
        let mut lanes = Lanes::default();
        let (a, b) = (lanes.add(), lanes.add());
        push(&mut lanes, a, "a2");
        push(&mut lanes, b, "b1");
        let written = [(a, Message::text("a1")), (CONTROL, Message::text("control"))];
        assert_eq!(lanes.hold_all(written.into()), Message::text("control").cost());
        push(&mut lanes, a, "a3");
        lanes.open(b);
        push(&mut lanes, b, "b2");
        assert_eq!((row(&mut lanes), lanes.held()), (vec!["b1".into(), "b2".into()], 3));
        lanes.open(a);
        push(&mut lanes, a, "a4");
        assert_eq!(row(&mut lanes), ["a1", "a2", "a3", "a4"]);
    }

    #[test]
    fn a_lane_that_is_held_while_it_waits_leaves_the_row_alone() {
        let mut lanes = Lanes::default();
        lanes.hold_all(VecDeque::new());
        let (a, b) = (lanes.add(), lanes.add());
        lanes.open(a);
        lanes.open(b);
        push(&mut lanes, a, "a1");
        push(&mut lanes, b, "b1");
        push(&mut lanes, a, "a2");
        lanes.hold(a);
        assert_eq!(row(&mut lanes), ["b1"]);
        lanes.open(a);
        assert_eq!(row(&mut lanes), ["a1", "a2"]);
    }

    #[test]
    fn what_has_left_leaves_no_memory_behind() {
        let mut lanes = Lanes::default();
        let lane = lanes.add();
        for count in [1, 100] {
            (0..count).for_each(|_| push(&mut lanes, lane, "x"));
            assert_eq!(row(&mut lanes).len(), count);
            assert_eq!(lanes.row.capacity(), 0);
        }
    }

    #[test]
    fn the_last_words_of_an_open_lane_leave_and_those_of_a_held_one_do_not() {
        let mut lanes = Lanes::default();
        lanes.hold_all(VecDeque::new());
        let (open, held) = (lanes.add(), lanes.add());
        lanes.open(open);
        push(&mut lanes, open, "open");
        push(&mut lanes, held, "held");
        assert_eq!((lanes.end(open), lanes.end(held)), (0, Message::text("held").cost()));
        assert_eq!(row(&mut lanes), ["open"]);
    }
}
