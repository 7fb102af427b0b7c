//! The contract between a transport and what is served over it.
//!
//! A [`Handler`] decides on a connect and creates a [`Session`], which takes incoming messages in
//! order. Everything that goes out, from any task, goes through the [`outbox::Sender`].

use std::future::Future;

use bytes::Bytes;

use crate::connect_info::{ConnectInfo, Transport};
use crate::frame::{Close, Inbound};
use crate::outbox;
use crate::peers::BoxFuture;
use crate::rejected::Rejected;

/// Decides who may connect. One value serves all connections of an endpoint.
pub trait Handler: Send + Sync + 'static {
    /// The session of an accepted connection.
    type Session: Session;

    /// Accepts or rejects a connection. Called once per connection, after the origin check and before
    /// the transport responds. A panic is caught, logged and answered with status 500, a call that takes
    /// too long with status 503.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the client goes away or [`Limits::connect_timeout`] passes.
    ///
    /// [`Limits::connect_timeout`]: crate::Limits::connect_timeout
    fn connect(
        &self,
        info: ConnectInfo,
        outbox: outbox::Sender,
    ) -> impl Future<Output = Result<Self::Session, Rejected>> + Send;
}

/// One connected client.
///
/// The methods of a session are called one after the other, never concurrently. Dropping the session
/// is the only end that it learns of: the connection is over, for whatever reason, and the outbox
/// takes no more messages.
///
/// The methods about connections are called on *resumable* sessions only, which outlive their
/// connections; see [`ResumeConfig`](crate::ResumeConfig).
pub trait Session: Send + 'static {
    /// Handles the next message. Must not block: move work that takes time to a task of its own.
    ///
    /// # Errors
    ///
    /// Ends the connection, and the session, for the reason given.
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close>;

    /// Returns the id of the client, if it has one.
    ///
    /// A session can be resumed only by a connection of the same id, and without an id only if
    /// [`ResumeConfig::anonymous`] allows it.
    ///
    /// [`ResumeConfig::anonymous`]: crate::ResumeConfig::anonymous
    fn id(&self) -> Option<&str> {
        None
    }

    /// Takes the session's place among those of the endpoint. Called once, before the first message,
    /// unless the client resumes an older session: then this one is dropped.
    ///
    /// # Errors
    ///
    /// If there is no place for another session. The client is rejected.
    fn admit(&mut self) -> Result<(), Rejected> {
        Ok(())
    }

    /// A later connect of the client has resumed this session. `newer` is what the handler has made of
    /// that connect: it is not [admitted](Self::admit), and nobody uses it. Called right before
    /// [`attached`](Self::attached), and skipped for all but the newest of several connects at a time.
    ///
    /// By default `newer` is dropped.
    fn resumed(&mut self, newer: Self)
    where
        Self: Sized,
    {
        drop(newer);
    }

    /// Returns whether the client may no longer use what its connect was accepted for, because it has waited
    /// for too long before its first use. Such a connect resumes no session.
    fn has_expired(&self) -> bool {
        false
    }

    /// A connection over this transport has taken the session over, the first one or a later one.
    ///
    /// Epochs ascend. Messages that are pushed into a stream of the outbox wait until the stream is
    /// [resumed](outbox::Sender::resume) for this epoch.
    fn attached(&mut self, epoch: u64, transport: Transport) {
        let _ = (epoch, transport);
    }

    /// The connection of the current epoch is lost: its WebSocket has ended, or its long-poll client
    /// has stopped polling. If no connection follows in time, the session ends.
    fn detached(&mut self, reason: DetachReason) {
        let _ = reason;
    }

    /// The connection that was thought lost is used again, in the same epoch: a long-poll client has
    /// come back after [`detached`](Self::detached).
    fn reattached(&mut self) {}

    /// The connection has lasted for [`ResumeConfig::rejoin_grace`]: a stream that has not been resumed
    /// by now will not be.
    ///
    /// [`ResumeConfig::rejoin_grace`]: crate::ResumeConfig::rejoin_grace
    fn rejoin_deadline(&mut self) {}

    /// Names what the session hears, for the node that is about to [prepare](Self::prepare) for it.
    fn outline(&self) -> Bytes {
        Bytes::new()
    }

    /// Ends what the session does on this node, and resolves with what lets another node
    /// [continue](Self::unpack) it. Nothing is pushed into its outbox after that, and the messages in there follow it in
    /// their streams. Must resolve within a second. Nothing else is called on the session afterwards.
    ///
    /// `prepared` is what [`prepare`](Self::prepare) has returned there; `None` if no other node has prepared: what the
    /// session hears from now on is missed.
    fn pack(&mut self, prepared: Option<Bytes>) -> BoxFuture<Bytes> {
        let _ = prepared;
        Box::pin(std::future::ready(Bytes::new()))
    }

    /// Prepares to continue a session of another node with this outline: from when it resolves, nothing that it
    /// hears is missed here. The result goes to the other node's [`pack`](Self::pack). Must resolve within a second.
    /// Called before the session is used, and again with an empty outline if there is nothing to continue after all.
    fn prepare(&mut self, outline: Bytes) -> BoxFuture<Bytes> {
        let _ = outline;
        Box::pin(std::future::ready(Bytes::new()))
    }

    /// The session of this id was lost with its node, and `left` is what is known of it. Called before
    /// [`attached`](Self::attached), on a session that begins anew otherwise.
    fn recover(&mut self, left: Bytes) {
        let _ = left;
    }

    /// Continues a session that was [packed](Self::pack) on another node. Called before [`attached`](Self::attached), and
    /// before the messages of the other node are in the outbox, in streams of the same
    /// [ids](outbox::Sender::stream_id). Returns `false` if it cannot: then the session begins anew, without them.
    fn unpack(&mut self, packed: Bytes) -> bool {
        let _ = packed;
        false
    }
}

/// How a resumable session lost its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DetachReason {
    /// The client closed its WebSocket itself, with code 1000, 1001 or without one, as a page does that
    /// goes away. It may come back all the same.
    ClientClosed,
    /// The connection was cut, or its client gave it up or stopped polling.
    Lost,
}
