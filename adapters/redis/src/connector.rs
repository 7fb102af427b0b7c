//! [`Connector`]: finds the server and opens connections to it.

use std::convert::Infallible;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo,
    ProtocolVersion, PushInfo, RedisResult, Value, cmd,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Address, RedisConfig, Resolve};
use crate::error::ConnectError;

/// Finds the server and opens connections to it.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    config: RedisConfig,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) redis: MultiplexedConnection,
    pub(crate) server: Server,
    /// Its receiver is dropped with the task that reads.
    reader: mpsc::Sender<Infallible>,
}

impl Connection {
    /// Resolves when the task that reads has ended, for whichever reason, and hands over nothing any more.
    pub(crate) async fn closed(&self) {
        self.reader.closed().await;
    }

    /// Ends the task that reads, if requests do not keep it alive, and waits until it hands over nothing any more.
    pub(crate) async fn close(self) {
        drop(self.redis);
        self.reader.closed().await;
    }
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Server {
    /// It is one of a Redis Cluster: what is published reaches subscribers at the others, which it does not count.
    pub(crate) is_cluster: bool,
    is_replica: bool,
}

impl Connector {
    pub(crate) fn new(config: RedisConfig) -> Self {
        Self { config }
    }

    /// Opens a connection, which hands what the server sends unasked to `receive`, in the task that reads.
    pub(crate) async fn open(
        &self,
        receive: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connection, ConnectError> {
        self.in_time(async { self.connect(self.find().await?, receive).await }).await
    }

    /// Opens a connection to another server of the Redis Cluster, which this one has named: `host:port`, without a host
    /// if it is the same.
    pub(crate) async fn open_at(&self, address: &str) -> Result<Connection, ConnectError> {
        let invalid = || ConnectError::Unreachable(format!("no address: {address:?}"));
        let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
        let port = port.parse().map_err(|_| invalid())?;
        self.in_time(async { self.connect(moved(self.find().await?, host, port), |_| {}).await })
            .await
    }

    async fn in_time(
        &self,
        opening: impl Future<Output = Result<Connection, ConnectError>>,
    ) -> Result<Connection, ConnectError> {
        let patience = self.config.connect_timeout;
        let too_late = || ConnectError::Unreachable(format!("no answer within {patience:?}"));
        timeout(patience, opening).await.unwrap_or_else(|_| Err(too_late()))
    }

    async fn connect(
        &self,
        info: ConnectionInfo,
        receive: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Connection, ConnectError> {
        let settings = info
            .redis_settings()
            .clone()
            // Channels know no databases. Records have one, which has to be the same for all nodes.
            .set_db(0)
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let client = self.client(info.set_redis_settings(settings))?;
        let (reader, is_reading) = mpsc::channel::<Infallible>(1);
        let config = unhurried().set_push_sender(move |push| {
            let _ = &is_reading;
            receive(push);
            Ok::<_, Infallible>(())
        });
        let opening = |error| ConnectError::opening(&error);
        let mut redis =
            client.get_multiplexed_async_connection_with_config(&config).await.map_err(opening)?;
        drop(config);
        let server = ask_for_server(&mut redis).await?;
        Ok(Connection { redis, server, reader })
    }

    /// Returns where the server is now.
    async fn find(&self) -> Result<ConnectionInfo, ConnectError> {
        match &self.config.address {
            Address::Url(url) => parse(url),
            Address::Sentinel { url, sentinels } => self.find_master(url, sentinels).await,
            Address::Resolve(resolve) => parse(&resolve_apart(resolve.clone()).await?),
        }
    }

    fn client(&self, info: ConnectionInfo) -> Result<Client, ConnectError> {
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = info.set_tcp_settings(tcp);
        let client = match info.addr() {
            #[cfg(feature = "tls")]
            ConnectionAddr::TcpTls { .. } => {
                crate::tls::client(info, self.config.root_certificates.clone())
            }
            _ => Client::open(info),
        };
        client.map_err(|error| ConnectError::opening(&error))
    }

    /// Asks the Sentinels, in order, where the master is.
    async fn find_master(
        &self,
        url: &str,
        sentinels: &[String],
    ) -> Result<ConnectionInfo, ConnectError> {
        let info = parse(url)?;
        let (ConnectionAddr::Tcp(name, _) | ConnectionAddr::TcpTls { host: name, .. }) =
            info.addr()
        else {
            return Err(ConnectError::Config("a path cannot name a master".into()));
        };
        let mut reasons = String::new();
        for sentinel in sentinels {
            let client = self.client(parse(sentinel)?)?;
            match timeout(SENTINEL_PATIENCE, ask_sentinel(&client, name)).await {
                Ok(Ok(Some((host, port)))) => return Ok(moved(info, &host, port)),
                Ok(Ok(None)) => reasons += &format!("; a Sentinel knows no master {name:?}"),
                Ok(Err(error)) => reasons += &format!("; {error}"),
                Err(_) => reasons += "; a Sentinel did not answer",
            }
        }
        Err(ConnectError::Unreachable(format!("no Sentinel names the master{reasons}")))
    }
}

impl Server {
    /// Reads the answer to `HELLO`. What it does not say is taken for a single server.
    fn parse(hello: &Value) -> Self {
        let mut server = Self::default();
        let Value::Map(fields) = hello else { return server };
        let text = |value: &Value| match value {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::SimpleString(text) => text.clone(),
            _ => String::new(),
        };
        for (name, value) in fields {
            match text(name).as_str() {
                "mode" => server.is_cluster = text(value) == "cluster",
                "role" => server.is_replica = matches!(&*text(value), "replica" | "slave"),
                _ => {}
            }
        }
        server
    }
}

/// Asks a server what it is, which needs no permission. Also tells whether it is there.
///
/// A replica is refused: what is published there reaches nobody else. In a Redis Cluster it reaches everybody.
pub(crate) async fn ask_for_server(
    redis: &mut MultiplexedConnection,
) -> Result<Server, ConnectError> {
    let hello = redis.send_packed_command(&cmd("HELLO")).await;
    let hello = hello.and_then(Value::extract_error);
    let server = Server::parse(&hello.map_err(|error| ConnectError::running("HELLO", &error))?);
    if server.is_replica && !server.is_cluster {
        let reason = "it is a replica, and what is published there does not reach the master";
        return Err(ConnectError::Unsupported(reason.into()));
    }
    Ok(server)
}

/// The same login at another address.
fn moved(info: ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let host = |same: &String| if host.is_empty() { same.clone() } else { host.to_owned() };
    let addr = match info.addr() {
        ConnectionAddr::TcpTls { host: same, insecure, tls_params, .. } => {
            let (insecure, tls_params) = (*insecure, tls_params.clone());
            ConnectionAddr::TcpTls { host: host(same), port, insecure, tls_params }
        }
        ConnectionAddr::Tcp(same, _) => ConnectionAddr::Tcp(host(same), port),
        _ => ConnectionAddr::Tcp(host(&"127.0.0.1".to_owned()), port),
    };
    info.set_addr(addr)
}

/// Waits for answers as long as its caller does.
fn unhurried() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None)
}

fn parse(url: &str) -> Result<ConnectionInfo, ConnectError> {
    url.into_connection_info().map_err(|error| ConnectError::Config(error.to_string()))
}

/// Runs the application's code in a task of its own, so that a panic of it ends one attempt and not all.
async fn resolve_apart(resolve: Resolve) -> Result<String, ConnectError> {
    let mut task = JoinSet::new();
    task.spawn(async move { resolve().await });
    let reason = match task.join_next().await {
        Some(Ok(Ok(url))) => return Ok(url),
        Some(Ok(Err(error))) => error.to_string(),
        _ => "it panicked".into(),
    };
    Err(ConnectError::Unreachable(format!("`resolve` returned no address: {reason}")))
}

/// How long a Sentinel may take: the next may be quicker.
const SENTINEL_PATIENCE: Duration = Duration::from_millis(500);

async fn ask_sentinel(client: &Client, name: &str) -> RedisResult<Option<(String, u16)>> {
    let mut redis = client.get_multiplexed_async_connection_with_config(&unhurried()).await?;
    let mut question = cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    question.query_async(&mut redis).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(fields: &[(&str, &str)]) -> Value {
        let text = |text: &str| Value::BulkString(text.into());
        Value::Map(fields.iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    #[test]
    fn a_server_says_whether_it_is_of_a_cluster_and_a_replica() {
        let server = Server::parse(&hello(&[("mode", "cluster"), ("role", "replica")]));
        assert_eq!(server, Server { is_cluster: true, is_replica: true });
        let server = Server::parse(&hello(&[("mode", "standalone"), ("role", "master")]));
        assert_eq!(server, Server::default());
    }

    #[test]
    fn a_server_that_says_nothing_is_taken_for_a_single_one() {
        assert_eq!(Server::parse(&Value::Nil), Server::default());
        assert_eq!(Server::parse(&hello(&[])), Server::default());
    }
}
