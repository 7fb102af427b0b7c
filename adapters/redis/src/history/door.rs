//! [`Door`]: opens the connection on which messages are kept and read.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tower_channels::adapter::Keep;

use super::entry;
use super::script::{self, Scripts};
use crate::connector::{Connection, Connector};
use crate::error::ConnectError;
use crate::names::Names;

/// Opens the connection on which messages are kept and read, to the server that has the application's keys.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) connector: Connector,
    pub(crate) names: Arc<Names>,
    pub(crate) scripts: Arc<Scripts>,
    /// Who keeps messages: the same over all of its connections.
    pub(crate) sender: u64,
    /// Whether the server has everything that it has ever acknowledged.
    pub(crate) is_durable: bool,
}

/// An open connection to the server that has the keys.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(super) connection: Connection,
    pub(super) access: Access,
}

/// What is needed to read and to keep.
#[derive(Clone, Debug)]
pub(super) struct Access {
    pub(super) redis: MultiplexedConnection,
    /// The name of the server's process.
    pub(super) run: Arc<str>,
    /// The number of the connection. What was sent on an earlier one is not executed any more.
    pub(super) generation: u64,
}

impl Door {
    /// Runs every script once, on a topic that is removed again. Fails if the user or the server cannot do that.
    pub(crate) async fn check(&self) -> Result<(), ConnectError> {
        const GENERATION: u64 = 0;
        let Opened { connection, access } = self.open(GENERATION).await?;
        let Self { names, scripts, .. } = self;
        let topic = format!("check-{:016x}", self.sender);
        let (topic_key, message_key) = (names.topic_key(&topic), names.message_key(&topic));
        let mut append = script::run(&scripts.append, 3, 0);
        append.arg(names.sender(self.sender)).arg(topic_key).arg(message_key).arg(GENERATION);
        let keep = Keep { messages: 1, bytes: 1, within: Duration::from_millis(1) };
        append.arg(&[0_u8; 8]).arg(entry::head(0, [0; 2], &keep));
        append.arg(names.kept.of(&topic)).arg("");
        let mut read = script::run(&scripts.read, 3, 0);
        read.arg(&names.run).arg(topic_key).arg(message_key).arg(&*access.run).arg(&[0_u8; 8]);
        read.arg(1);
        let mut page = redis::cmd("XREVRANGE");
        page.arg(message_key).arg("+").arg("-");
        let mut find = script::run(&scripts.find, 2, 0);
        find.arg(topic_key).arg(message_key).arg(&[0_u8; 8]).arg(0);
        let mut remove = redis::cmd("DEL");
        remove.arg(topic_key).arg(message_key).arg(names.sender(self.sender));
        let mut redis = access.redis;
        let mut checked = script::send(&mut redis, &append).await;
        let done = script::send_together(&mut redis, [read, page]).await;
        checked = checked.and(done);
        for command in [find, remove] {
            let done = script::send(&mut redis, &command).await;
            checked = checked.and(done);
        }
        drop(redis);
        connection.close().await;
        checked.map(drop).map_err(|error| refused(&error))
    }

    pub(super) async fn open(&self, generation: u64) -> Result<Opened, ConnectError> {
        let connection = self.connector.open(|_| {}).await?;
        let connection = match self.enter(connection, generation).await {
            Ok(opened) => return Ok(opened),
            Err((connection, error)) => {
                let moved = error.kind() == ErrorKind::Server(ServerErrorKind::Moved);
                let address = error.redirect_node().filter(|_| moved);
                let Some((address, _)) = address else { return Err(refused(&error)) };
                connection.close().await;
                self.connector.open_at(address).await?
            }
        };
        self.enter(connection, generation).await.map_err(|(_, error)| refused(&error))
    }

    /// Begins what others may rely on, once.
    async fn enter(
        &self,
        connection: Connection,
        generation: u64,
    ) -> Result<Opened, (Connection, RedisError)> {
        let mut redis = connection.redis.clone();
        match self.begin(&mut redis, generation).await {
            Ok(run) => {
                Ok(Opened { connection, access: Access { redis, run: run.into(), generation } })
            }
            Err(error) => Err((connection, error)),
        }
    }

    async fn begin(
        &self,
        redis: &mut MultiplexedConnection,
        generation: u64,
    ) -> RedisResult<String> {
        self.scripts.load(redis).await?;
        // With one name for all of its processes, it has one run.
        let run =
            if self.is_durable { "durable".into() } else { script::ask_for_run(redis).await? };
        if run.is_empty() {
            return Err(RedisError::from((
                ErrorKind::Client,
                "the server does not say which process it is",
            )));
        }
        let mut open = script::run(&self.scripts.open, 2, 0);
        open.arg(&self.names.run).arg(self.names.sender(self.sender)).arg(&run).arg(generation);
        script::send(redis, &open).await.map(|_| run)
    }
}

fn refused(error: &RedisError) -> ConnectError {
    let commands = "SCRIPT LOAD, EVALSHA, INFO, TIME, GET, MGET, SET, PEXPIRE, XADD, XRANGE, \
                    XREVRANGE, XTRIM, MULTI and EXEC, for its history";
    ConnectError::running(commands, error)
}
