//! What a connection takes out of its outbox.

use std::mem;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::Connection;
use super::end::End;

impl<Io, S> Connection<Io, S> {
    /// Moves everything that was pushed from the outbox to the writer, except for paused streams.
    pub(super) fn take_all(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let waiting = self.framed.writer.messages.len();
        let _ = self.receiver.poll_take(&mut cx, &mut self.framed.writer.messages);
        self.meter.send(self.framed.writer.messages.len() - waiting);
    }

    /// Moves messages from the outbox to the writer; of a resumable session about `chunk` bytes.
    /// Pending if there are none: then the next push or close wakes the task.
    pub(super) fn poll_outbox(
        &mut self,
        cx: &mut Context<'_>,
        chunk: usize,
    ) -> Poll<Result<(), End>> {
        let window = self.pings.as_ref().map_or(usize::MAX, |pings| pings.window(Instant::now()));
        let (messages, written) =
            (&mut self.framed.writer.messages, mem::take(&mut self.unreleased));
        let waiting = messages.len();
        let taken = self.receiver.poll_take_some(cx, messages, written, chunk, window);
        self.meter.send(messages.len() - waiting);
        taken.map_err(End::Outbox)
    }
}
