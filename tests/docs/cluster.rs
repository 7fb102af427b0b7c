//! The code of docs/cluster.md.

mod over_redis {
    use axum::Router;
    use serde_json::json;
    use tower_channels::channel::{Error, Result};
    use tower_channels::{
        Channel, ConnectInfo, Endpoint, Joined, Payload, Presence, Rejected, Reply, Socket,
    };
    use tower_channels_redis::{Redis, RedisConfig};

    struct User {
        name: String,
    }

    struct Room;

    impl Channel for Room {
        type Assigns = User;
        type Info = ();

        async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
            Ok(Self.into())
        }

        async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
            Presence::track(socket, &socket.assigns().name, json!({}))?;
            Presence::push_state(socket);
            Ok(())
        }

        async fn handle_in(
            &mut self,
            event: &str,
            payload: Payload,
            socket: &Socket<Self>,
        ) -> Result<Reply> {
            match event {
                "new_msg" => {
                    socket.broadcast("new_msg", payload);
                    Ok(Reply::ack())
                }
                _ => Err(Error::unmatched(event)),
            }
        }
    }

    async fn connect(info: ConnectInfo) -> Result<User, Rejected> {
        let name = info.param("name").ok_or(Rejected::reason("name is missing"))?;
        Ok(User { name: name.into() })
    }

    #[tokio::main]
    async fn main() -> Result<(), Box<dyn std::error::Error>> {
        let engine = std::env::var("ENGINE")?;
        let redis = Redis::connect(RedisConfig::new(engine).app("chat")).await?;
        let endpoint = Endpoint::builder(connect).channel::<Room>("room:*").adapter(redis).build();

        let app = Router::new().nest_service("/socket", endpoint.service());
        let address = std::env::var("ADDR").unwrap_or("127.0.0.1:4000".into());
        let listener = tokio::net::TcpListener::bind(address).await?;
        axum::serve(listener, app).await?;
        Ok(())
    }
}

mod adapters {
    use tower_channels_redis::RedisConfig;

    fn redis() -> [RedisConfig; 3] {
        [
            // Redis, Valkey, or any server of a Redis Cluster.
            RedisConfig::new("redis://chat:secret@10.0.0.5:6379"),
            // The primary that Sentinels name.
            RedisConfig::sentinel(
                "redis://chat:secret@mymaster",
                ["redis://10.0.0.5:26379", "redis://10.0.0.6:26379"],
            ),
            // An address or a password that changes: asked for at each connect.
            RedisConfig::resolve(|| async { std::fs::read_to_string("/run/secrets/redis-url") }),
        ]
    }
}

mod nats {
    use tower_channels_nats::{ConnectError, Nats, NatsConfig};

    async fn nats() -> Result<Nats, ConnectError> {
        let config = NatsConfig::new("nats://10.0.0.5")
            .server("nats://10.0.0.6")
            .credentials_file("/run/secrets/chat.creds")
            .app("chat");
        Nats::connect(config).await
    }
}

mod records {
    use std::time::Duration;

    use tower_channels_nats::{NatsConfig, Storage};

    fn nats() -> NatsConfig {
        NatsConfig::new("nats://10.0.0.5")
            .record_replicas(3)
            .record_storage(Storage::File)
            // At least `session_ttl`.
            .record_max_age(Duration::from_secs(2 * 3600))
    }
}

mod sessions {
    use serde::{Deserialize, Serialize};
    use serde_json::json;
    use tower_channels::channel::Result;
    use tower_channels::{Arrival, Channel, Joined, Payload, Reply, Socket};

    /// A form that a user fills in, page by page.
    #[derive(Default, Deserialize, Serialize)]
    struct Form {
        answers: Vec<String>,
    }

    impl Channel for Form {
        type Assigns = ();
        type Info = ();

        async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
            match socket.arrival() {
                // What the client has missed follows the reply: no history is needed.
                Arrival::Moved { packed: Some(packed), has_gap: false } => {
                    Ok(packed.parse::<Self>()?.into())
                }
                _ => Ok(Joined::new(Self::default()).reply(json!({ "page": 1 }))),
            }
        }

        async fn handle_in(&mut self, _: &str, answer: Payload, _: &Socket<Self>) -> Result<Reply> {
            self.answers.push(answer.parse()?);
            Ok(Reply::ack())
        }

        async fn pack(&mut self, _: &Socket<Self>) -> Option<Payload> {
            Payload::json(self).ok()
        }
    }
}

mod settings {
    use std::time::Duration;

    use tower_channels::cluster::{ClusterConfig, Listen, OnGap};

    fn cluster() -> ClusterConfig {
        ClusterConfig::new()
            .listen(Listen::Topics)
            .on_gap(OnGap::Ignore)
            .down_after(Duration::from_secs(10))
    }
}

mod nodes {
    use tower_channels::Endpoint;

    fn print(endpoint: &Endpoint<()>) {
        for node in endpoint.nodes() {
            let here = if node.is_self { ", this one" } else { "" };
            println!("{}: {} sessions, up {:?}{here}", node.id, node.sessions, node.uptime);
        }
    }
}
