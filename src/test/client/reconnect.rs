//! How the client loses its connection, and connects again.

use serde_json::Value;
use tower_channels_transports::{ConnectError, ConnectInfo, Rejected};

use super::Client;
use crate::endpoint::Endpoint;
use crate::test::connection::Connection;

impl<A: Send + Sync + 'static> Client<A> {
    /// Drops the connection, as a network failure would. Messages that were received stay unread; a
    /// resumable session sends the rest when their topic is rejoined.
    pub fn drop_connection(&mut self) {
        let lost = self.connection.take();
        if let Some(received) = lost.and_then(|lost| lost.received()) {
            self.params.insert("received".to_owned(), received.to_string().into());
        }
    }

    /// Closes the connection, as a page that goes away does. A resumable session outlives it as it
    /// outlives [`drop_connection`](Self::drop_connection); its presence leaves sooner, see
    /// [`PresenceConfig::leave_grace`](crate::PresenceConfig::leave_grace).
    pub fn close_connection(&mut self) {
        if let Some(connection) = &self.connection {
            connection.close();
        }
        self.drop_connection();
    }

    /// Connects again with the same parameters, after dropping the current connection if there is
    /// one. A resumable session is resumed.
    ///
    /// As with any client, topics must then be rejoined: a channel that is still alive answers with
    /// [`Channel::resume`], any other with [`Channel::join`].
    ///
    /// [`Channel::join`]: crate::Channel::join
    /// [`Channel::resume`]: crate::Channel::resume
    ///
    /// # Errors
    /// If the endpoint rejects the client.
    pub async fn reconnect(&mut self) -> Result<(), Rejected> {
        self.drop_connection();
        let info = ConnectInfo::in_memory_with(self.params.clone(), &self.request);
        let connected = self.endpoint.acceptor().connect(info).await;
        let (session, receiver) = connected.map_err(ConnectError::into_rejected)?;
        let received = self.params.get("received").and_then(Value::as_str);
        let received = received.and_then(|number| number.parse().ok());
        self.connection = Some(Connection::new(session, receiver, received));
        Ok(())
    }

    /// Connects to another endpoint, as [`reconnect`](Self::reconnect) does to the same one, and is its client from then on:
    /// to another node, where a resumable session continues.
    ///
    /// There topics are rejoined with [`Channel::join`], see [`Socket::arrival`].
    ///
    /// [`Channel::join`]: crate::Channel::join
    /// [`Socket::arrival`]: crate::Socket::arrival
    ///
    /// # Errors
    /// If the endpoint rejects the client.
    pub async fn reconnect_to(&mut self, endpoint: &Endpoint<A>) -> Result<(), Rejected> {
        self.endpoint = endpoint.clone();
        self.reconnect().await
    }

    /// Drops the connection, and the endpoint for another.
    #[cfg(feature = "unstable-internals")]
    pub(in crate::test) fn let_go(&mut self, endpoint: &Endpoint<A>) {
        self.drop_connection();
        self.endpoint = endpoint.clone();
    }
}
