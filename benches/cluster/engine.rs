//! The engines, the nodes over them, and the client crates as they are.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind};
use tokio::runtime::Runtime;
use tower_channels::adapter::Adapter;
use tower_channels::cluster::{ClusterConfig, Listen};
use tower_channels::{History, PubSub, PubSubConfig};
use tower_channels_adapter_tests::engines::{self, Kind, NatsServer, RedisServer};
use tower_channels_nats::{Nats, NatsConfig};
use tower_channels_redis::{Redis, RedisConfig};

/// An engine that runs.
pub(crate) struct Engine {
    server: Server,
    runtime: Runtime,
}

enum Server {
    Redis(RedisServer),
    Nats(NatsServer),
}

/// Where an engine is.
#[derive(Clone, Copy)]
pub(crate) enum Address {
    Redis(SocketAddr),
    Nats(SocketAddr),
}

impl Engine {
    pub(crate) const NAMES: [&str; 3] = ["Redis", "Valkey", "NATS"];

    /// Starts an engine, if its program is known. Redis keeps nothing when it is killed.
    pub(crate) fn start(name: &'static str) -> Option<Self> {
        Self::start_with(name, &[])
    }

    /// Starts an engine that still has when it is killed what it has acknowledged.
    pub(crate) fn start_durable(name: &'static str) -> Option<Self> {
        Self::start_with(name, &["appendonly yes"])
    }

    fn start_with(name: &'static str, lines: &[&str]) -> Option<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let redis = |kind| {
            let config = engines::RedisConfig::new(kind);
            lines.iter().fold(config, |config, line| config.line(line)).start()
        };
        let server = match name {
            "Redis" => Server::Redis(runtime.block_on(redis(Kind::Redis))?),
            "Valkey" => Server::Redis(runtime.block_on(redis(Kind::Valkey))?),
            _ => Server::Nats(runtime.block_on(engines::NatsConfig::new().jetstream().start())?),
        };
        Some(Self { server, runtime })
    }

    pub(crate) fn address(&self) -> Address {
        match &self.server {
            Server::Redis(server) => Address::Redis(server.address()),
            Server::Nats(server) => Address::Nats(server.address()),
        }
    }

    /// The CPU time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        match &self.server {
            Server::Redis(server) => server.cpu(),
            Server::Nats(server) => server.cpu(),
        }
    }

    pub(crate) fn kill(&mut self) {
        match &mut self.server {
            Server::Redis(server) => server.kill(),
            Server::Nats(server) => server.kill(),
        }
    }

    /// Starts it again, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        match &mut self.server {
            Server::Redis(server) => self.runtime.block_on(server.restart()),
            Server::Nats(server) => self.runtime.block_on(server.restart()),
        }
    }
}

impl Address {
    /// Creates a node. To be called on its runtime.
    pub(crate) async fn node(self, app: &str, listen: Listen) -> PubSub {
        PubSub::with_config(self.config(app, listen).await).expect("it is valid")
    }

    /// Creates a node with a history of the topics of a pattern. To be called on its runtime.
    pub(crate) async fn node_with_history(self, app: &str, pattern: &str) -> PubSub {
        let config = self.config(app, Listen::All).await.history(pattern, History::last(500));
        PubSub::with_config(config).expect("it is valid")
    }

    async fn config(self, app: &str, listen: Listen) -> PubSubConfig {
        let cluster = ClusterConfig::new().listen(listen);
        // A reader that was kept from its processor for a moment misses nothing.
        let config = PubSubConfig::new().max_subscription(64 << 20).cluster(cluster);
        match self {
            Self::Redis(address) => config.adapter(redis_adapter(address, app).await),
            Self::Nats(address) => config.adapter(nats_adapter(address, app).await),
        }
    }

    /// The same engine behind something else.
    pub(crate) fn behind(self, address: SocketAddr) -> Self {
        match self {
            Self::Redis(_) => Self::Redis(address),
            Self::Nats(_) => Self::Nats(address),
        }
    }

    pub(crate) fn socket_address(self) -> SocketAddr {
        match self {
            Self::Redis(address) | Self::Nats(address) => address,
        }
    }

    /// Creates an adapter that is not started.
    pub(crate) async fn adapter(self, app: &str) -> Arc<dyn Adapter> {
        match self {
            Self::Redis(address) => Arc::new(redis_adapter(address, app).await),
            Self::Nats(address) => Arc::new(nats_adapter(address, app).await),
        }
    }

    /// How many bytes the engine needs for each record of an application, which it has until it is removed.
    pub(crate) async fn bytes_per_record(self, app: &str) -> f64 {
        let (count, bytes) = match self.publisher().await {
            Publisher::Redis(mut redis) => {
                let pattern = format!("tc:{{{app}}}:r:*");
                let keys = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await;
                let (keys, mut bytes): (Vec<String>, _) = (keys.expect("the engine answers"), 0);
                for key in &keys {
                    let mut usage = redis::cmd("MEMORY");
                    usage.arg("USAGE").arg(key).arg("SAMPLES").arg(0);
                    bytes += usage.query_async::<u64>(&mut redis).await.expect("a record");
                }
                (keys.len() as u64, bytes)
            }
            Publisher::Nats(client) => {
                let subject = format!("$JS.API.STREAM.INFO.KV_tc-{app}");
                let info = client.request(subject, Bytes::new()).await.expect("the engine answers");
                let info: serde_json::Value = serde_json::from_slice(&info.payload).expect("JSON");
                let state = |field: &str| info["state"][field].as_u64().expect("a number");
                (state("messages"), state("bytes"))
            }
        };
        bytes as f64 / count as f64
    }

    /// Where the frames of an application's topic are published. Every node that hears all hears them.
    pub(crate) fn channel(self, app: &str, topic: &str) -> String {
        match self {
            Self::Redis(_) => format!("tc:{app}:t:{topic}"),
            // The name of the partition is only of concern to those who choose.
            Self::Nats(_) => format!("tc.{app}.t.00"),
        }
    }

    /// Connects the client crate.
    pub(crate) async fn publisher(self) -> Publisher {
        match self {
            Self::Redis(address) => Publisher::Redis(redis(address, |_| ()).await),
            Self::Nats(address) => Publisher::Nats(nats(address).await),
        }
    }

    /// Calls `receive` for every message whose channel begins with `prefix`, for as long as the result lives.
    pub(crate) async fn hear(
        self,
        prefix: &str,
        receive: impl Fn() + Send + Sync + 'static,
    ) -> Ear {
        match self {
            Self::Redis(address) => {
                let on_push = move |push: PushInfo| {
                    if push.kind == PushKind::PMessage {
                        receive();
                    }
                };
                let mut redis = redis(address, on_push).await;
                redis.psubscribe(format!("{prefix}*")).await.expect("subscribes");
                Ear::Redis(redis)
            }
            Self::Nats(address) => {
                let client = nats(address).await;
                let mut messages =
                    client.subscribe(format!("{prefix}>")).await.expect("subscribes");
                client.flush().await.expect("flushes");
                tokio::spawn(async move {
                    use futures_util::StreamExt as _;
                    while messages.next().await.is_some() {
                        receive();
                    }
                });
                Ear::Nats(client)
            }
        }
    }

    /// Returns whether the engine answers.
    pub(crate) fn answers(self) -> bool {
        let (address, question, answer) = match self {
            Self::Redis(address) => (address, "PING\r\n", "+PONG"),
            Self::Nats(address) => (address, "", "INFO"),
        };
        let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
            return false;
        };
        let mut line = String::new();
        let is_asked = stream.write_all(question.as_bytes());
        is_asked.and_then(|()| BufReader::new(stream).read_line(&mut line)).is_ok()
            && line.starts_with(answer)
    }
}

/// A connection of the client crate that publishes.
#[derive(Clone)]
pub(crate) enum Publisher {
    Redis(MultiplexedConnection),
    Nats(async_nats::Client),
}

/// A connection of the client crate that hears.
#[allow(dead_code, reason = "it keeps the connection")]
pub(crate) enum Ear {
    Redis(MultiplexedConnection),
    Nats(async_nats::Client),
}

impl Publisher {
    /// Prepares [`answered`](Self::answered) and [`keep`](Self::keep).
    pub(crate) async fn prepare(&self) {
        let Self::Nats(client) = self else { return };
        let config = jetstream::stream::Config {
            name: "raw".into(),
            subjects: vec!["raw.h.>".into()],
            max_messages_per_subject: 1000,
            republish: Some(jetstream::stream::Republish {
                source: "raw.h.>".into(),
                destination: "raw.r.>".into(),
                headers_only: false,
            }),
            ..Default::default()
        };
        jetstream::new(client.clone()).create_stream(config).await.expect("created");
    }

    /// Publishes a message and waits for the answer: that of a stream if the engine has one.
    pub(crate) async fn answered(&mut self, message: Bytes) {
        match self {
            Self::Redis(_) => self.publish("raw", [message]).await,
            Self::Nats(client) => {
                let context = jetstream::new(client.clone());
                let answer = context.publish("raw.h.t", message).await.expect("published");
                answer.await.expect("kept");
            }
        }
    }

    /// Keeps messages at once with plain commands: an entry of a Redis stream and a copy for subscribers, or a message of a
    /// JetStream stream that republishes. To be [prepared](Self::prepare).
    pub(crate) async fn keep(&mut self, messages: impl IntoIterator<Item = Bytes>, topics: usize) {
        let topics = (0..topics).cycle();
        match self {
            Self::Redis(redis) => {
                let mut pipeline = redis::pipe();
                for (message, topic) in messages.into_iter().zip(topics) {
                    let (key, channel) = (format!("raw:{topic}"), format!("raw:c:{topic}"));
                    pipeline.cmd("XADD").arg(key).arg("MAXLEN").arg("~").arg(1000).arg("*");
                    pipeline.arg("c").arg(&message[..]).ignore();
                    pipeline.publish(channel, &message[..]).ignore();
                }
                pipeline.query_async::<()>(redis).await.expect("kept");
            }
            Self::Nats(client) => {
                let context = jetstream::new(client.clone());
                let mut answers = Vec::new();
                for (message, topic) in messages.into_iter().zip(topics) {
                    let answer = context.publish(format!("raw.h.{topic}"), message).await;
                    answers.push(answer.expect("published").into_future());
                }
                for answer in answers {
                    answer.await.expect("kept");
                }
            }
        }
    }

    /// Waits until the engine has what was published.
    pub(crate) async fn flush(&self) {
        if let Self::Nats(client) = self {
            client.flush().await.expect("flushes");
        }
    }

    /// Publishes messages at once, in the way in which the crate is fastest.
    pub(crate) async fn publish(
        &mut self,
        channel: &str,
        messages: impl IntoIterator<Item = Bytes>,
    ) {
        match self {
            Self::Redis(redis) => {
                let mut pipeline = redis::pipe();
                for message in messages {
                    pipeline.publish(channel, &message[..]).ignore();
                }
                pipeline.query_async::<()>(redis).await.expect("published");
            }
            Self::Nats(client) => {
                let channel = async_nats::Subject::from(channel);
                for message in messages {
                    client.publish(channel.clone(), message).await.expect("published");
                }
            }
        }
    }
}

async fn redis_adapter(address: SocketAddr, app: &str) -> Redis {
    let redis = RedisConfig::new(format!("redis://{address}")).app(app).durable();
    Redis::connect(redis).await.expect("connects")
}

async fn nats_adapter(address: SocketAddr, app: &str) -> Nats {
    let nats = NatsConfig::new(format!("nats://{address}")).app(app);
    Nats::connect(nats).await.expect("connects")
}

async fn redis(
    address: SocketAddr,
    on_push: impl Fn(PushInfo) + Send + Sync + 'static,
) -> MultiplexedConnection {
    let client = Client::open(format!("redis://{address}/?protocol=resp3")).expect("a url");
    let config =
        AsyncConnectionConfig::new().set_response_timeout(None).set_push_sender(move |push| {
            on_push(push);
            Ok::<_, std::convert::Infallible>(())
        });
    client.get_multiplexed_async_connection_with_config(&config).await.expect("connects")
}

async fn nats(address: SocketAddr) -> async_nats::Client {
    async_nats::connect(address.to_string()).await.expect("connects")
}
