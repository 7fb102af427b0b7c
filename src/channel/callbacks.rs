//! [`Channel`], the trait that an application implements.

use std::future::Future;

use super::result::{JoinError, Joined, Reason, Result, Stop};
use super::socket::Socket;
use crate::payload::Payload;
use crate::reply::Reply;

/// One joined topic of one client: its state, and what it does about what happens.
///
/// A value is made by [`join`](Channel::join) and lives in a task of its own until the channel ends,
/// so a slow handler delays this channel and nothing else. A panic or an error in it ends this
/// channel alone: the client receives `phx_error` and joins again. (This needs the default
/// `panic = "unwind"`.) Dropping the value is the one end that always happens.
///
/// Callbacks run one at a time, in the order in which their causes came. When the client joins the
/// same topic again, the running callback is cancelled at its next await, as Phoenix kills the old
/// process, and the new join begins once the old value is dropped. A client that merely goes away
/// cancels nothing: what it sent before is handled, and then the channel terminates.
///
/// ```
/// use tower_channels::channel::Result;
/// use tower_channels::{Channel, JoinError, Joined, Payload, Reply, Socket, Stop};
///
/// struct Counter(u64);
///
/// impl Channel for Counter {
///     type Assigns = ();
///     type Info = ();
///
///     async fn join(_: &str, start: Payload, _: &Socket<Self>) -> Result<Joined<Self>, JoinError> {
///         Ok(Counter(start.parse()?).into())
///     }
///
///     async fn handle_in(&mut self, event: &str, by: Payload, _: &Socket<Self>) -> Result<Reply> {
///         match event {
///             "add" => {
///                 self.0 += by.parse::<u64>()?;
///                 Ok(Reply::ok(Payload::json(&self.0)?))
///             }
///             _ => Err(Stop::unmatched(event)),
///         }
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # use serde_json::json;
/// # let endpoint = tower_channels::Endpoint::builder(|_| async { Ok(()) }).channel::<Counter>("counter").build();
/// # let mut client = tower_channels::test::connect(&endpoint, &[]).await.unwrap();
/// # assert_eq!(client.join("counter", json!(40)).await, Reply::ack());
/// # assert_eq!(client.push("counter", "add", json!(2)).await, Reply::ok(json!(42)));
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a channel",
    note = "implement `tower_channels::Channel` for it; its `Assigns` must be what `connect` returns"
)]
pub trait Channel: Sized + Send + 'static {
    /// What `connect` learned of the client; every channel of its socket shares it.
    type Assigns: Send + Sync + 'static;

    /// What other tasks send to this channel through its [`Handle`].
    type Info: Send + 'static;

    /// Events whose broadcasts pass through [`handle_out`](Channel::handle_out) instead of going
    /// straight to the client.
    const INTERCEPT: &'static [&'static str] = &[];

    /// Decides whether the client may join, and makes the channel's state.
    ///
    /// A [`JoinError`] answers the join with an error. Any other error, or a panic, answers
    /// `{"reason":"join crashed"}`. One that takes longer than the endpoint's join timeout is
    /// cancelled and answered `{"reason":"join timed out"}`. What the client sends meanwhile waits;
    /// other channels and heartbeats do not.
    fn join(
        topic: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<Joined<Self>, JoinError>> + Send;

    /// Runs right after the join was answered and before anything else is handled.
    fn after_join(&mut self, socket: &Socket<Self>) -> impl Future<Output = Result<()>> + Send {
        let _ = socket;
        async { Ok(()) }
    }

    /// Answers the client's join when it has returned to a session that was kept, and this channel is
    /// alive: `None` for what the first join answered.
    ///
    /// Nothing was lost: right after the answer the client receives what it missed, in order. So there
    /// is no history to send here; a client whose session could not be kept comes through
    /// [`join`](Channel::join), which does so. It is the place to check again what may have changed
    /// meanwhile, as a permission: a [`JoinError`] answers with an error and ends the channel. It may run
    /// several times, also without the client having been away.
    fn resume(
        &mut self,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<Option<Payload>, JoinError>> + Send {
        let _ = (payload, socket);
        async { Ok(None) }
    }

    /// Handles a push from the client.
    fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<Reply>> + Send {
        let _ = (payload, socket);
        let stop = Stop::unmatched(event);
        async { Err(stop) }
    }

    /// Handles what [`Handle::send`] sent.
    fn handle_info(
        &mut self,
        info: Self::Info,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (info, socket);
        async { Ok(()) }
    }

    /// Handles a broadcast of one of the events in [`INTERCEPT`](Channel::INTERCEPT): push it on,
    /// changed, or not at all. By default it is pushed as it is.
    fn handle_out(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> impl Future<Output = Result<()>> + Send {
        socket.push(event, payload);
        async { Ok(()) }
    }

    /// Runs last, when the channel ends in order: not after a crash, nor when another join of the
    /// same topic took its place, which also cancels it at its next await. So what must happen at
    /// every end belongs into `Drop`. The client may be gone already.
    fn terminate(
        &mut self,
        reason: Reason,
        socket: &Socket<Self>,
    ) -> impl Future<Output = ()> + Send {
        let _ = (reason, socket);
        async {}
    }
}
