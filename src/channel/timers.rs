//! Timers of a channel: messages to itself, later.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tower_channels_transports::FixedReservation;

use super::callbacks::{Channel, Socket};
use super::mailbox::{self, Command};
use crate::guarded::Guarded;

/// A message that a channel sends to itself, from [`Socket::send_after`] or [`Socket::send_every`].
///
/// Dropping it changes nothing: the timer ends when it is [cancelled](Self::cancel), or with the
/// channel.
#[derive(Clone)]
pub struct Timer {
    task: AbortHandle,
    is_cancelled: Arc<AtomicBool>,
}

impl Timer {
    /// Cancels the timer. A message that still waits is discarded.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

impl<C: Channel> Socket<C> {
    /// Sends a message to [`Channel::handle_info`] once, after `delay`, unless the channel ends before.
    ///
    /// It goes on while the client of a resumable session is away. It is counted against the memory of
    /// the session, but not against [`Builder::max_mailbox`], and so is never refused.
    ///
    /// ```
    /// # use tower_channels::channel::Result;
    /// # use tower_channels::{Channel, Joined, Payload, Socket};
    /// use std::time::Duration;
    ///
    /// struct Quiz;
    ///
    /// enum Info {
    ///     TimeIsUp,
    /// }
    ///
    /// impl Channel for Quiz {
    ///     type Assigns = ();
    ///     type Info = Info;
    /// #   async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> { Ok(Quiz.into()) }
    ///
    ///     async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
    ///         socket.send_after(Duration::from_secs(30), Info::TimeIsUp);
    ///         Ok(())
    ///     }
    ///
    ///     async fn handle_info(&mut self, info: Info, socket: &Socket<Self>) -> Result<()> {
    ///         match info {
    ///             Info::TimeIsUp => socket.push("time_is_up", serde_json::json!({})),
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// # let endpoint = tower_channels::Endpoint::builder(|_| async { Ok(()) }).channel::<Quiz>("quiz").build();
    /// # let mut client = tower_channels::test::connect(&endpoint, &[]).await.unwrap();
    /// # client.join("quiz", serde_json::json!({})).await;
    /// # tokio::time::sleep(Duration::from_secs(30)).await;
    /// # assert_eq!(client.next_push().await.0, "time_is_up");
    /// # }
    /// ```
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// [`Builder::max_mailbox`]: crate::Builder::max_mailbox
    pub fn send_after(&self, delay: Duration, info: C::Info) -> Timer {
        let source = Source::new(self, info);
        start(self, move |mailbox, is_cancelled| async move {
            tokio::time::sleep(delay).await;
            // An error means that the channel has ended.
            let _ = mailbox.send(Tick { source, again: None, is_cancelled }.into_command());
        })
    }

    /// Sends clones of a message to [`Channel::handle_info`] every `period`, at least 1 ms, until the
    /// channel ends. The first comes after one period.
    ///
    /// A channel that is slower than that receives fewer: at most one of them waits, and those that are
    /// due meanwhile are skipped.
    ///
    /// As with [`send_after`](Self::send_after), it goes on while the client is away.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn send_every(&self, period: Duration, info: C::Info) -> Timer
    where
        C::Info: Clone,
    {
        let mut source = Source::new(self, info);
        let period = period.clamp(SHORTEST, LONGEST);
        start(self, move |mailbox, is_cancelled| async move {
            let began = Instant::now();
            loop {
                tokio::time::sleep(until_next(began.elapsed(), period)).await;
                let (back, returned) = oneshot::channel();
                let again = Some(Again { clone: C::Info::clone, back });
                let tick = Tick { source, again, is_cancelled: Arc::clone(&is_cancelled) };
                if mailbox.send(tick.into_command()).is_err() {
                    return;
                }
                let Ok(returned) = returned.await else { return };
                source = returned;
            }
        })
    }
}

/// Returns the time until the next multiple of `period`.
fn until_next(elapsed: Duration, period: Duration) -> Duration {
    // Less than a period, which fits.
    let since_last = elapsed.as_nanos() % period.as_nanos();
    period - Duration::from_nanos(since_last as u64)
}

/// Starts the task of a timer.
fn start<C, F>(socket: &Socket<C>, run: impl FnOnce(mailbox::Sender, Arc<AtomicBool>) -> F) -> Timer
where
    C: Channel,
    F: Future<Output = ()> + Send + 'static,
{
    let context = socket.context();
    let is_cancelled = Arc::<AtomicBool>::default();
    let task = tokio::spawn(run(context.mailbox.clone(), Arc::clone(&is_cancelled)));
    let timer = Timer { task: task.abort_handle(), is_cancelled };
    let account = context.client.outbox.account();
    let task = (timer.task.clone(), account.map(|account| account.hold(TASK)));
    let added = context.resources.acquire(|acquired| acquired.add_timer(task));
    if added.is_none() {
        timer.cancel();
    }
    if let Some(account) = account {
        account.memory().relieve();
    }
    timer
}

/// The message of a timer, and what it holds.
struct Source<I> {
    info: Guarded<I>,
    _memory: Option<FixedReservation>,
}

impl<I> Source<I> {
    fn new<C: Channel<Info = I>>(socket: &Socket<C>, info: I) -> Self {
        let account = socket.context().client.outbox.account();
        let memory = account.map(|account| account.hold(TICK + 2 * size_of::<I>()));
        Self { info: Guarded::new(info), _memory: memory }
    }
}

/// A timer that is due, in the mailbox.
pub(super) struct Tick<I> {
    source: Source<I>,
    again: Option<Again<I>>,
    is_cancelled: Arc<AtomicBool>,
}

/// What a timer needs that goes on.
struct Again<I> {
    clone: fn(&I) -> I,
    /// Returns the message to the timer's task, which is not due again before.
    back: oneshot::Sender<Source<I>>,
}

impl<I: Send + 'static> Tick<I> {
    fn into_command(self) -> Command {
        Command::Tick(Box::new(Some(self)))
    }

    /// Takes the message, unless the timer was cancelled. It may be cloned, which is application code.
    pub(super) fn take(tick: &mut Option<Self>) -> Option<I> {
        let Self { mut source, again, is_cancelled } = tick.take()?;
        if is_cancelled.load(Ordering::Relaxed) {
            return None;
        }
        let Some(Again { clone, back }) = again else { return source.info.take() };
        let info = clone(&source.info);
        // An error means that the timer was cancelled just now.
        let _ = back.send(source);
        Some(info)
    }
}

/// The least period of a timer.
const SHORTEST: Duration = Duration::from_millis(1);

/// The greatest, 30 years: what a clock can be trusted to add.
const LONGEST: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// What the task of a timer holds, in bytes.
const TASK: usize = 512;

/// What its tick in the mailbox holds beside the message.
const TICK: usize = 128;

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_keeps_its_rhythm_however_late_it_is() {
        let of = |elapsed, period| {
            until_next(Duration::from_millis(elapsed), Duration::from_millis(period)).as_millis()
        };
        assert_eq!([of(0, 100), of(100, 100), of(130, 100), of(1099, 100)], [100, 100, 70, 1]);
        assert!(until_next(Duration::MAX, LONGEST) <= LONGEST);
    }
}
