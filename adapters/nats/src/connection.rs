//! [`Connection`]: one connection to a server, with its subscriptions, until it ends.

use std::fmt;
use std::future;
use std::time::Duration;

use async_nats::{Client, Event, Message, ServerAddr, Subject, Subscriber};
use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower_channels::adapter::NodeId;

use crate::config::NatsConfig;
use crate::error::ConnectError;
use crate::interest::Selection;
use crate::subjects::Subjects;
use crate::topics::Topics;

/// A connection that hears what its node wants to hear.
///
/// The client of a connection serves it alone: when it is lost, both are dropped, and with them whatever the client
/// still wanted to send.
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// What is for all nodes.
    pub(crate) all: Subscriber,
    pub(crate) topics: Topics,
    /// What is for this node alone.
    pub(crate) node: Subscriber,
    /// What this node sends to itself, see [`Sender`](crate::sender::Sender).
    pub(crate) marks: Subscriber,
    pub(crate) ended: Ended,
    /// How long a subscription takes to reach the other servers of a cluster. Zero for a single server.
    pub(crate) propagation: Duration,
}

impl Connection {
    /// Connects, subscribes, and hears itself on each kind of subject: so everything that is published from then on
    /// is heard, and the user has the permissions that are needed.
    pub(crate) async fn open(
        server: &ServerAddr,
        config: &NatsConfig,
        subjects: &Subjects,
        node: NodeId,
        selection: Selection,
    ) -> Result<Self, ConnectError> {
        let opened = Self::try_open(server, config, subjects, node, selection);
        timeout(config.connect_timeout.saturating_add(config.propagation), opened)
            .await
            .unwrap_or_else(|_| {
                let name = name(server);
                let time = config.connect_timeout;
                Err(ConnectError::Unreachable(format!("{name}: no answer within {time:?}")))
            })
    }

    async fn try_open(
        server: &ServerAddr,
        config: &NatsConfig,
        subjects: &Subjects,
        node: NodeId,
        selection: Selection,
    ) -> Result<Self, ConnectError> {
        let name = name(server);
        let (client, ended) = connect(server, config).await?;
        let info = client.server_info();
        let subscribe = async {
            let all = client.subscribe(subjects.all()).await?;
            let topics = Topics::subscribe(&client, subjects, selection).await?;
            let marks = client.subscribe(subjects.marks(node)).await?;
            let node = client.subscribe(subjects.node(node)).await?;
            let propagation =
                if info.cluster.is_some() { config.propagation } else { Duration::ZERO };
            Ok(Self { client, all, topics, node, marks, ended: ended.clone(), propagation })
        };
        let failed =
            |error: async_nats::Error| ConnectError::Unreachable(format!("{name}: {error}"));
        let mut connection = subscribe.await.map_err(failed)?;
        tokio::select! {
            heard = connection.hear_itself(subjects, node, selection) => heard.map_err(failed)?,
            end = ended.wait() => return Err(match end {
                End::Refused(reason) if reason.contains("Permissions Violation") => {
                    let reason = format!("{name}: {reason}");
                    ConnectError::Forbidden { subjects: subjects.needed(), reason }
                }
                end => ConnectError::Unreachable(format!("{name}: {end}")),
            }),
        }
        Ok(connection)
    }

    /// Publishes an empty message to each kind of subject, and waits until it is heard. Other nodes ignore it, as it
    /// has a reply subject.
    async fn hear_itself(
        &mut self,
        subjects: &Subjects,
        node: NodeId,
        selection: Selection,
    ) -> Result<(), async_nats::Error> {
        let marks = subjects.marks(node);
        let used = [subjects.all(), subjects.partition(0), subjects.node(node), marks.clone()];
        for subject in used {
            self.client.publish_with_reply(subject, marks.clone(), Bytes::new()).await?;
        }
        hear(&mut self.all, &marks).await?;
        if selection.is_all {
            hear(&mut self.topics, &marks).await?;
        }
        hear(&mut self.node, &marks).await?;
        hear(&mut self.marks, &marks).await?;
        if !self.propagation.is_zero() {
            sleep(self.propagation).await;
        }
        Ok(())
    }
}

/// Connects to a server that can do what is needed.
pub(crate) async fn connect(
    server: &ServerAddr,
    config: &NatsConfig,
) -> Result<(Client, Ended), ConnectError> {
    let name = name(server);
    let ended = Ended::default();
    let on_event = ended.clone();
    let options = config.options(server).await?.event_callback(move |event| {
        on_event.notice(event);
        future::ready(())
    });
    let connected = options.connect(server.clone()).await;
    let client = connected.map_err(|error| ConnectError::opening(&name, &error))?;
    let info = client.server_info();
    if !info.headers {
        let reason = format!("{name}: version {} has no message headers", info.version);
        return Err(ConnectError::Unsupported(reason));
    }
    Ok((client, ended))
}

/// Waits for an empty message with this reply subject. What comes before is older than the connection.
async fn hear(
    messages: &mut (impl Stream<Item = Message> + Unpin),
    reply: &Subject,
) -> Result<(), async_nats::Error> {
    while let Some(message) = messages.next().await {
        if message.payload.is_empty() && message.reply.as_ref() == Some(reply) {
            return Ok(());
        }
    }
    Err("the connection was closed".into())
}

/// Host and port, without a login.
pub(crate) fn name(server: &ServerAddr) -> String {
    let (host, port) = (server.host(), server.port());
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Whether a connection has ended, and why: the first reason. A cheap clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    end: watch::Sender<Option<End>>,
    /// What the user may not do with JetStream, which does not end the connection.
    refused: watch::Sender<Option<String>>,
}

/// Why a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Disconnected,
    /// More messages waited than there is room for, and some were dropped.
    SlowConsumer,
    /// More bytes waited than there is room for.
    Backlog,
    /// The server has reported an error.
    Refused(String),
    /// Nothing was heard for too long.
    Silence,
    /// [`Adapter::reconnect`](tower_channels::adapter::Adapter::reconnect).
    Renewed,
}

impl Ended {
    pub(crate) fn end(&self, why: End) {
        self.end.send_if_modified(|end| {
            let is_first = end.is_none();
            end.get_or_insert(why);
            is_first
        });
    }

    /// Resolves when it has ended.
    pub(crate) async fn wait(&self) -> End {
        let mut ended = self.end.subscribe();
        let end = ended.wait_for(Option::is_some).await;
        end.ok().and_then(|end| end.clone()).unwrap_or(End::Disconnected)
    }

    fn notice(&self, event: Event) {
        match event {
            Event::Disconnected | Event::Closed => self.end(End::Disconnected),
            Event::SlowConsumer(_) => self.end(End::SlowConsumer),
            Event::ServerError(error) => {
                let reason = error.to_string();
                if ["\"$JS.", "\"$KV."].iter().any(|subject| reason.contains(subject)) {
                    self.refused.send_replace(Some(reason));
                } else {
                    self.end(End::Refused(reason));
                }
            }
            _ => {}
        }
    }

    /// Resolves when the server has refused something about JetStream, with its words.
    pub(crate) async fn jetstream_refused(&self) -> String {
        let mut refused = self.refused.subscribe();
        let reason = refused.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.borrow().is_some()
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disconnected => "disconnected",
            Self::SlowConsumer => "this node is too slow: messages were dropped",
            Self::Backlog => "this node is too slow: too many bytes wait",
            Self::Refused(reason) => reason,
            Self::Silence => "nothing was heard for too long",
            Self::Renewed => "a new connection was asked for",
        })
    }
}

#[cfg(test)]
mod tests {
    use async_nats::ServerError;

    use super::*;

    #[tokio::test]
    async fn the_first_reason_stays() {
        let ended = Ended::default();
        ended.notice(Event::Connected);
        ended.notice(Event::SlowConsumer(1));
        ended.notice(Event::Disconnected);
        assert_eq!(ended.wait().await, End::SlowConsumer);
        assert_eq!(ended.clone().wait().await, End::SlowConsumer);
    }

    #[tokio::test]
    async fn an_error_of_the_server_ends_the_connection() {
        let ended = Ended::default();
        let waiting = tokio::spawn({
            let ended = ended.clone();
            async move { ended.wait().await }
        });
        tokio::task::yield_now().await;
        ended.notice(Event::ServerError(ServerError::Other("Permissions Violation".into())));
        assert!(waiting.await.unwrap().to_string().contains("Permissions Violation"));
    }

    #[tokio::test]
    async fn a_refusal_of_records_does_not_end_the_connection() {
        let ended = Ended::default();
        let reason = "Permissions Violation for Publish to \"$JS.API.STREAM.INFO.KV_tc-chat\"";
        ended.notice(Event::ServerError(ServerError::Other(reason.into())));
        assert!(ended.is_refused() && ended.jetstream_refused().await.contains(reason));
        assert!(ended.end.borrow().is_none());
    }

    #[test]
    fn a_server_is_named_without_its_login() {
        let named = |url: &str| name(&url.parse().unwrap());
        assert_eq!(named("nats://ann:secret@host"), "host:4222");
        assert_eq!(named("tls://[::1]:1"), "[::1]:1");
    }
}
