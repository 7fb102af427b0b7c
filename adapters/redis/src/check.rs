//! Tries whether a server can be used before any node is started.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushKind, RedisError, Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tower_channels::adapter::NodeId;

use crate::backoff::random;
use crate::connector::{Connection, Connector};
use crate::error::ConnectError;
use crate::history::Door;
use crate::names::Names;
use crate::records::Records;
use crate::sending::Publisher;

/// Runs every command that a node will, writes a record and subscribes every kind of channel. A channel that may be
/// subscribed may be published to, so no other node hears of it.
///
/// Returns whether the server can be used for a history, too, which not everybody needs.
pub(crate) async fn check(
    connector: &Connector,
    names: &Arc<Names>,
    door: &Door,
    patience: Duration,
) -> Result<Result<(), ConnectError>, ConnectError> {
    let heard = Arc::new(Notify::new());
    let receive = {
        let heard = heard.clone();
        move |push: redis::PushInfo| {
            if push.kind == PushKind::Message {
                heard.notify_one();
            }
        }
    };
    let mut connection = connector.open(receive).await?;
    let checked = timeout(patience, async {
        run(&mut connection, names, &heard).await?;
        let Connection { redis, server, .. } = &connection;
        let publisher = Publisher { redis: redis.clone(), is_cluster: server.is_cluster };
        let (_sender, publisher) = watch::channel(Some(publisher));
        Records::new(connector.clone(), names.clone(), publisher).check().await?;
        let mut redis = redis.clone();
        let heard = redis.psubscribe(&names.kept.pattern).await;
        if let Err(error) = allowed("PSUBSCRIBE", &names.kept.pattern, heard) {
            return Ok(Err(error));
        }
        Ok(door.check().await)
    })
    .await;
    connection.close().await;
    let late = format!("it answers, but does not deliver a message within {patience:?}");
    checked.unwrap_or(Err(ConnectError::Unreachable(late)))
}

async fn run(
    connection: &mut Connection,
    names: &Names,
    heard: &Notify,
) -> Result<(), ConnectError> {
    let redis = &mut connection.redis;
    // A node that does not exist, and a topic without a name.
    let node = names.node(NodeId(random()));
    let topic = &names.topics.prefix;

    let done = redis.subscribe(&names.all).await;
    allowed("SUBSCRIBE", &names.all, done)?;
    let done = redis.subscribe(&node).await;
    allowed("SUBSCRIBE", &node, done)?;
    publish(redis, &node).await?;
    // A proxy may take subscriptions and deliver nothing.
    heard.notified().await;
    let done = redis.psubscribe(&names.topics.pattern).await;
    allowed("PSUBSCRIBE", &names.topics.pattern, done)?;
    let done = redis.subscribe(topic).await;
    allowed("SUBSCRIBE", topic, done)?;
    let done = redis.unsubscribe(topic).await;
    allowed("UNSUBSCRIBE", topic, done)?;
    let done = redis.punsubscribe(&names.topics.pattern).await;
    allowed("PUNSUBSCRIBE", &names.topics.pattern, done)
}

async fn publish(redis: &mut MultiplexedConnection, channel: &str) -> Result<(), ConnectError> {
    let mut command = cmd("PUBLISH");
    command.arg(channel).arg("");
    let done = redis.send_packed_command(&command).await.and_then(Value::extract_error);
    allowed("PUBLISH", channel, done.map(drop))
}

fn allowed(command: &str, channel: &str, done: Result<(), RedisError>) -> Result<(), ConnectError> {
    done.map_err(|error| ConnectError::running(format!("{command} {channel}"), &error))
}
