//! The environment of a scenario: a server, a transport and a version.

use super::{Client, Server};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    WebSocket,
    LongPoll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

impl Version {
    pub(crate) fn parameter(self) -> &'static str {
        match self {
            Self::V1 => "vsn=1.0.0",
            Self::V2 => "vsn=2.0.0",
        }
    }
}

pub(crate) struct Stage {
    pub(crate) server: Server,
    pub(crate) transport: Transport,
    pub(crate) version: Version,
}

impl Stage {
    pub(crate) async fn set(transport: Transport, version: Version) -> Self {
        Self { server: Server::start().await, transport, version }
    }

    /// Connects a client with these parameters and the version.
    pub(crate) async fn client(&self, parameters: &str) -> Client {
        Client::connect(&self.server, self.transport, self.version, parameters).await
    }

    /// Connects a client without parameters and joins a topic with the join_ref `"1"`.
    pub(crate) async fn member(&self, topic: &str) -> Client {
        let mut client = self.client("").await;
        client.join("1", topic).await;
        client
    }
}
