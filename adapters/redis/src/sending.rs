//! The task that sends, and frames to one node.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, ToRedisArgs, Value};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tower_channels::adapter::{NodeInbox, Outgoing, Reached, SendQueue};
use tower_channels_transports::limited;

use crate::backoff::{Attempts, HOLD, Retries, random};
use crate::connector::{Connection, Connector};
use crate::error::ConnectError;
use crate::names::Names;

/// How much is sent at once, and confirmed before there is more.
const BATCH_FRAMES: usize = 64;
const BATCH_BYTES: usize = 256 << 10;

/// How long the server may take to confirm that.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a frame to one node may take.
const REACH_PATIENCE: Duration = Duration::from_secs(1);

/// How often the queue is searched for frames that are too old, while there is no connection.
const EXPIRY: Duration = Duration::from_millis(250);

/// The task that sends.
pub(crate) struct Sending {
    pub(crate) connector: Connector,
    pub(crate) names: Arc<Names>,
    pub(crate) queue: SendQueue,
    pub(crate) inbox: Arc<dyn NodeInbox>,
    /// Where others find the connection.
    pub(crate) publisher: watch::Sender<Option<Publisher>>,
    /// Counts the wishes for new connections.
    pub(crate) renewals: watch::Receiver<u64>,
    pub(crate) retries: Arc<Retries>,
    /// Whether there was a connection before.
    pub(crate) was_connected: bool,
}

/// The connection that sends, for frames to one node and for records, which do not wait behind the frames in the queue.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    pub(crate) redis: MultiplexedConnection,
    /// Whether it is to one server of several: its count of receivers is not that of all, and it has some keys alone.
    pub(crate) is_cluster: bool,
}

/// Why a connection ended.
enum End {
    Refused(ConnectError),
    Closed,
    /// The frames that were on their way are lost, or not.
    Failed(String),
    Renewed,
}

impl Sending {
    pub(crate) async fn run(mut self) {
        let mut attempts = Attempts::new();
        loop {
            let (reason, lasted) = self.connect().await;
            self.publisher.send_replace(None);
            if attempts.ended(&reason, lasted) {
                limited!(WARN, ?reason, "not connected to Redis: nothing is sent to other nodes");
            }
            self.retries.sending.wait(attempts.pause(random())).await;
        }
    }

    /// Connects and sends until the connection ends. Returns why, and how long it lasted.
    async fn connect(&mut self) -> (End, Option<Duration>) {
        let mut connection = match self.open().await {
            Ok(connection) => connection,
            Err(error) => return (End::Refused(error), None),
        };
        // What was asked for until now has been done.
        self.renewals.mark_unchanged();
        if std::mem::replace(&mut self.was_connected, true) {
            self.queue.hold(HOLD);
        }
        let begun = Instant::now();
        let end = self.send_all(&mut connection).await;
        (end, Some(begun.elapsed()))
    }

    async fn send_all(&mut self, connection: &mut Connection) -> End {
        let is_cluster = connection.server.is_cluster;
        let publisher = Publisher { redis: connection.redis.clone(), is_cluster };
        self.publisher.send_replace(Some(publisher));
        self.retries.hearing.now();
        self.retries.keeping.now();
        let mut batch = Vec::with_capacity(BATCH_FRAMES);
        loop {
            self.expire();
            tokio::select! {
                biased;
                () = connection.closed() => return End::Closed,
                _ = self.renewals.changed() => return End::Renewed,
                () = self.queue.take(&mut batch, BATCH_FRAMES) => {}
            }
            let sent = self.send(&mut connection.redis, &mut batch).await;
            for lost in batch.drain(..) {
                self.inbox.lost(lost.frame);
            }
            self.queue.done();
            if let Err(reason) = sent {
                return End::Failed(reason);
            }
        }
    }

    /// Connects. Frames that become too old meanwhile are lost.
    async fn open(&self) -> Result<Connection, ConnectError> {
        let opening = self.connector.open(|_| {});
        tokio::pin!(opening);
        loop {
            self.expire();
            self.queue.done();
            if let Ok(opened) = timeout(EXPIRY, &mut opening).await {
                return opened;
            }
        }
    }

    /// Gives up the frames that have waited for too long.
    fn expire(&self) {
        for expired in self.queue.expire() {
            self.inbox.lost(expired.frame);
        }
    }

    /// Sends frames. Leaves those that were not sent, or of which it is not known, if that fails.
    async fn send(
        &self,
        redis: &mut MultiplexedConnection,
        batch: &mut Vec<Outgoing>,
    ) -> Result<(), String> {
        while !batch.is_empty() {
            let pipeline = self.pipeline(batch);
            let count = pipeline.len();
            let begun = Instant::now();
            let confirmed = timeout(PATIENCE, redis.send_packed_commands(&pipeline, 0, count));
            let answers = match confirmed.await {
                Ok(answers) => answers.map_err(|error| error.to_string())?,
                Err(_) => return Err("the server did not answer".into()),
            };
            for (sent, answer) in batch.drain(..count).zip(answers) {
                if let Value::ServerError(error) = answer {
                    limited!(WARN, ?error, "Redis refused a message to the other nodes");
                    self.inbox.lost(sent.frame);
                }
            }
            if begun.elapsed() > EXPIRY {
                self.expire();
            }
        }
        Ok(())
    }

    /// Writes the commands for the first frames, as many as may be sent at once.
    fn pipeline(&self, batch: &[Outgoing]) -> Pipeline {
        let mut pipeline = Pipeline::with_capacity(batch.len());
        let mut bytes = 0;
        for outgoing in batch {
            bytes += outgoing.frame.len();
            if bytes > BATCH_BYTES && !pipeline.is_empty() {
                break;
            }
            let name = self.names.channel(outgoing.channel());
            pipeline.add_command(publish(name, name.len(), &outgoing.frame));
        }
        pipeline
    }
}

/// Writes a command.
fn publish(name: impl ToRedisArgs, name_len: usize, frame: &[u8]) -> Cmd {
    const PUBLISH: &str = "PUBLISH";
    let mut command = Cmd::with_capacity(3, PUBLISH.len() + name_len + frame.len());
    command.arg(PUBLISH).arg(name).arg(frame);
    command
}

/// Sends a frame to whoever hears a channel, over the connection that there is, or is within a second.
pub(crate) async fn reach(
    mut publisher: watch::Receiver<Option<Publisher>>,
    channel: &str,
    frame: Bytes,
) -> Reached {
    let reached = async {
        let publisher = publisher.wait_for(Option::is_some).await.ok()?.clone();
        let Publisher { mut redis, is_cluster } = publisher?;
        let command = publish(channel, channel.len(), &frame);
        match redis.send_packed_command(&command).await {
            Ok(Value::Int(0)) if !is_cluster => Some(Reached::Nobody),
            Ok(Value::Int(1..)) => Some(Reached::Someone),
            _ => None,
        }
    };
    timeout(REACH_PATIENCE, reached).await.ok().flatten().unwrap_or(Reached::Unknown)
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => fmt::Display::fmt(error, f),
            Self::Closed => f.write_str("the connection was closed"),
            Self::Failed(reason) => f.write_str(reason),
            Self::Renewed => f.write_str("a new connection was asked for"),
        }
    }
}
