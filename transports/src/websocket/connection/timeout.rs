//! When a connection times out: the idle timeout, an unfinished message, and what suspends them.

use std::mem;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, Write};
use tokio::time::Instant;

use super::{CHUNK, Connection, State};
use crate::session::Session;

impl<Io, S> Connection<Io, S>
where
    Io: Read + Write + Unpin,
    S: Session,
{
    /// Polls the deadline. Ready with whether it has passed.
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let throttled = self.throttled.waits_until().filter(|_| self.is_open());
        let earlier = self.ping_due().into_iter().chain(throttled).min();
        let is_flushing = matches!(self.state, State::Flushing(_) | State::Closing);
        let is_paused = is_flushing || (self.is_open() && self.is_backed_up());
        if is_paused || self.framed.written >= CHUNK as u32 {
            let written = mem::take(&mut self.framed.written) as usize;
            self.deadline.on_write(written, self.framed.is_paused);
        }
        let was_paused = mem::replace(&mut self.framed.is_paused, is_paused);
        let mut progress = self.framed.progress();
        if was_paused && !is_paused {
            // Nothing could arrive in the meantime.
            let now = Instant::now();
            self.deadline.extend(now);
            if let Some(progress) = &mut progress {
                progress.restart(now);
            }
        }
        let limit = if is_flushing {
            Some(self.deadline.after_timeouts(FLUSHING))
        } else {
            let timeout = self.deadline.timeout().saturating_mul(UNFINISHED);
            let is_read = !is_paused && throttled.is_none();
            progress.filter(|_| is_read).map(|progress| progress.deadline(timeout))
        };
        let has_timed_out = ready!(self.deadline.poll(cx, is_paused, limit, earlier));
        if has_timed_out && throttled.is_some() {
            // It could not show that it is there.
            self.deadline.extend(Instant::now());
            return Poll::Ready(false);
        }
        Poll::Ready(has_timed_out)
    }
}

/// How many idle timeouts an unfinished message may take, besides the time for its bytes.
const UNFINISHED: u32 = 2;

/// How many close timeouts the last messages of a closing connection may take, however fast they move:
/// a client that reads slowly keeps them in memory.
const FLUSHING: u32 = 4;
