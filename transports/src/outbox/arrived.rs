//! Whether what was pushed before a moment has arrived.

use super::sender::Sender;

/// A moment in the life of a resumable outbox, from [`Sender::moment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub(super) epoch: u64,
    /// How many messages have left the streams once those are sent that waited.
    pub(super) taken: u64,
    /// The position behind them, once they are.
    pub(super) position: Option<u64>,
}

impl Sender {
    /// Returns this moment. `None` as long as something may wait that is not seen here: without a resumable session, without
    /// a connection, and while a stream has yet to be [resumed](Self::resume).
    pub fn moment(&self) -> Option<Moment> {
        let mut state = self.shared.state.lock();
        state.replay().and_then(|(buffer, _)| buffer.moment())
    }

    /// Returns whether everything that was pushed before a moment has reached the client's network. `None` if the connection
    /// is not that of the moment any more, or a stream waits: then another moment has to be taken.
    pub fn has_arrived(&self, moment: &mut Moment) -> Option<bool> {
        let mut state = self.shared.state.lock();
        state.replay().and_then(|(buffer, _)| buffer.has_arrived(moment))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Receiver, channel};
    use super::*;
    use crate::frame::{Close, Message};

    fn take(receiver: &mut Receiver, chunk: usize) {
        let mut batch = std::collections::VecDeque::new();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = receiver.poll_take_some(&mut cx, &mut batch, Default::default(), chunk, usize::MAX);
    }

    /// An outbox with a connection, and a stream of it that is resumed.
    fn open() -> (Sender, Sender, Receiver) {
        let (_, receiver) = channel(1 << 20);
        let outbox = receiver.into_resumable(0);
        let receiver = outbox.attach(None).expect("attaches");
        let stream = outbox.stream();
        stream.resume(receiver.epoch(), Message::text("joined"));
        (outbox, stream, receiver)
    }

    #[test]
    fn what_was_pushed_before_a_moment_has_arrived_once_it_was_sent_and_acknowledged() {
        let (outbox, stream, mut receiver) = open();
        stream.push(Message::text("a"));
        stream.push(Message::text("b"));
        let mut moment = outbox.moment().expect("a connection");
        stream.push(Message::text("c"));
        take(&mut receiver, 1);
        receiver.pong(receiver.position());
        assert_eq!(outbox.has_arrived(&mut moment), Some(false), "b waits");
        outbox.push(Message::text("overtakes"));
        take(&mut receiver, 1);
        let before = receiver.position();
        assert_eq!(outbox.has_arrived(&mut moment), Some(false), "b is on its way");
        take(&mut receiver, 1);
        receiver.pong(before - 1);
        assert_eq!(outbox.has_arrived(&mut moment), Some(false));
        receiver.pong(before);
        assert_eq!(outbox.has_arrived(&mut moment), Some(true), "whatever became of c");
    }

    #[test]
    fn nothing_that_waits_is_what_has_arrived() {
        let (outbox, _, mut receiver) = open();
        take(&mut receiver, 1);
        receiver.pong(receiver.position());
        let mut moment = outbox.moment().expect("a connection");
        assert_eq!(outbox.has_arrived(&mut moment), Some(true));
    }

    #[test]
    fn nothing_is_said_without_a_connection_or_while_a_stream_waits() {
        let (plain, _kept) = channel(1 << 20);
        assert_eq!(plain.moment(), None);
        let (outbox, stream, receiver) = open();
        let mut moment = outbox.moment().expect("a connection");
        stream.pause();
        assert_eq!((outbox.moment(), outbox.has_arrived(&mut moment)), (None, None));
        stream.resume(receiver.epoch(), Message::text("again"));
        assert!(outbox.moment().is_some());
        receiver.close(Close::GoingAway);
        assert_eq!((outbox.moment(), outbox.has_arrived(&mut moment)), (None, None));
        let receiver = outbox.attach(None).expect("attaches");
        assert_eq!(outbox.moment(), None, "the client has yet to join again");
        stream.resume(receiver.epoch(), Message::text("again"));
        assert!(outbox.moment().is_some());
        assert_eq!(outbox.has_arrived(&mut moment), None, "that was another connection");
        let unjoined = outbox.stream();
        assert_eq!(outbox.moment(), None);
        unjoined.end_stream();
        assert!(outbox.moment().is_some());
    }
}
