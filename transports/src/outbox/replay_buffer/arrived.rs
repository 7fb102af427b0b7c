//! Whether what a replay buffer had at a moment has arrived.

use super::super::arrived::Moment;
use super::ReplayBuffer;

impl ReplayBuffer {
    /// Returns this moment, unless there is no connection or a stream is paused.
    pub(in crate::outbox) fn moment(&self) -> Option<Moment> {
        let taken = self.streams.to_take().filter(|_| self.loss().is_none())?;
        Some(Moment { epoch: self.epoch, taken, position: None })
    }

    /// Returns whether everything has reached the client's network that was pushed before a moment of this connection.
    pub(in crate::outbox) fn has_arrived(&self, moment: &mut Moment) -> Option<bool> {
        self.moment().filter(|now| now.epoch == moment.epoch)?;
        let is_sent = self.streams.taken() >= moment.taken && self.priority.is_empty();
        if moment.position.is_none() && is_sent {
            moment.position = Some(self.position());
        }
        Some(moment.position.is_some_and(|position| self.sent.acked() >= position))
    }
}
