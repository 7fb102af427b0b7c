//! The contract between a transport and what is served over it: a [`Handler`] decides on a connect
//! and makes a [`Session`], which takes what arrives in order; whatever leaves, from any task, goes
//! through the [`outbox::Sender`].

use std::error::Error;
use std::fmt;
use std::future::Future;

use crate::connect_info::{ConnectInfo, Transport};
use crate::frame::{Close, Inbound};
use crate::outbox;

/// Decides who may connect. One value serves every connection of an endpoint.
pub trait Handler: Send + Sync + 'static {
    /// What a connection becomes.
    type Session: Session;

    /// Called once per connection, after the origin check and before anything is answered.
    ///
    /// Cancel safety: dropped when the client goes away or [`Limits::connect_timeout`] passes.
    ///
    /// [`Limits::connect_timeout`]: crate::Limits::connect_timeout
    fn connect(
        &self,
        info: ConnectInfo,
        outbox: outbox::Sender,
    ) -> impl Future<Output = Result<Self::Session, Rejected>> + Send;
}

/// One connected client. Dropping it is the only end it learns of: whatever the reason, the
/// connection is over and its outbox takes no more.
pub trait Session: Send + 'static {
    /// Takes the next message. It must not block; what takes time belongs to a task of its own. An
    /// `Err` ends the connection for the reason given.
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close>;

    /// Who the client is. A resumable session is handed only to a connection of the same id, and is resumable
    /// only if it has one, unless [`ResumeConfig::anonymous`] says otherwise.
    fn id(&self) -> Option<&str> {
        None
    }

    /// A connection over this transport has taken the session up: the first one, or another. They are
    /// counted from 1; a session that is not resumable never hears of it. Until its stream is opened for this epoch,
    /// what is pushed into a stream of the outbox waits.
    fn attached(&mut self, epoch: u64, transport: Transport) {
        let _ = (epoch, transport);
    }

    /// The connection that has the session is gone. There may be another, or none: then the session ends.
    fn detached(&mut self) {}

    /// The connection has lasted for [`ResumeConfig::rejoin_grace`]: a stream that was not opened
    /// again by now will not be.
    fn rejoin_deadline(&mut self) {}
}

/// [`Handler::connect`] said no: HTTP 403 for a WebSocket, `{"status":403}` for a long poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected;

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was rejected")
    }
}

impl Error for Rejected {}
