//! What connects this node with others, and what keeps its histories.

use std::io::{Error, ErrorKind, Result};

use tower_channels::{Builder, History};
use tower_channels_nats::{HistoryConfig, Nats, NatsConfig};
use tower_channels_redis::{Redis, RedisConfig};
use tower_channels_sqlite::Sqlite;

/// Connects an endpoint with those of other nodes that have the same name, `app`, on the same engine, and gives the topics
/// that match `pattern` a history: in the engine, in a file, or in memory.
pub async fn connect<A: Send + Sync + 'static>(
    builder: Builder<A>,
    engine: Option<&str>,
    app: &str,
    (pattern, history): (&str, History),
) -> Result<Builder<A>> {
    let Some(engine) = engine else { return Ok(builder.history(pattern, history)) };
    match engine.split_once(':') {
        Some(("redis", _)) => {
            let redis = match engine.strip_suffix("?durable") {
                Some(durable) => RedisConfig::new(durable).durable(),
                None => RedisConfig::new(engine),
            };
            let redis = Redis::connect(redis.app(app)).await;
            Ok(builder.history(pattern, history).adapter(redis.map_err(Error::other)?))
        }
        Some(("nats", _)) => {
            // The server reserves what a stream may take.
            let kept = HistoryConfig::new().max_bytes(64 << 20);
            let nats = Nats::connect(NatsConfig::new(engine).app(app).history(kept)).await;
            let nats = nats.map_err(|error| Error::other(error.to_string()))?;
            Ok(builder.history(pattern, history).adapter(nats))
        }
        Some(("sqlite", file)) => {
            let store = Sqlite::open(file).map_err(Error::other)?;
            Ok(builder.history(pattern, history).store(store))
        }
        _ => {
            let error = "ENGINE must be `redis://HOST:PORT`, `nats://HOST:PORT` or `sqlite:FILE`";
            Err(Error::new(ErrorKind::InvalidInput, error))
        }
    }
}
