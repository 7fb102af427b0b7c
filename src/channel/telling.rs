//! [`Untold`]: the position of a kept broadcast that a channel handles, on its way to the client.

use parking_lot::Mutex;

use super::callbacks::{Channel, Socket};
use crate::history::Position;

/// A position in the history of a channel's topic that the client is yet to be told, while the channel handles the
/// broadcast that stands there. The first push tells it, so that the client has both or neither.
#[derive(Default)]
pub(super) struct Untold(Option<Box<Mutex<Option<Position>>>>);

impl Untold {
    fn new(position: Position) -> Self {
        Self(Some(Box::new(Mutex::new(Some(position)))))
    }

    /// Takes the position, for the message that tells it.
    pub(super) fn take(&self) -> Option<Position> {
        self.0.as_ref()?.lock().take()
    }
}

impl<C: Channel> Socket<C> {
    /// The next push tells the client this position.
    pub(super) fn begin_telling(&mut self, position: Position) {
        self.untold = Untold::new(position);
    }

    /// Tells the client the position if no push has.
    pub(super) fn finish_telling(&mut self) {
        let untold = std::mem::take(&mut self.untold).take();
        untold.into_iter().for_each(|position| self.context().tell(self.caller(), position));
    }
}
