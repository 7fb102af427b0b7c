//! What connects this node with others, if anything.

use std::io::{Error, ErrorKind, Result};

use tower_channels::Builder;
use tower_channels_nats::{Nats, NatsConfig};
use tower_channels_redis::{Redis, RedisConfig};

/// Connects an endpoint with those of other nodes that have the same name, `app`, on the same engine.
pub async fn connect<A: Send + Sync + 'static>(
    builder: Builder<A>,
    engine: &str,
    app: &str,
) -> Result<Builder<A>> {
    match engine.split_once(':') {
        Some(("redis", _)) => {
            let redis = Redis::connect(RedisConfig::new(engine).app(app)).await;
            Ok(builder.adapter(redis.map_err(Error::other)?))
        }
        Some(("nats", _)) => {
            let nats = Nats::connect(NatsConfig::new(engine).app(app)).await;
            Ok(builder.adapter(nats.map_err(|error| Error::other(error.to_string()))?))
        }
        _ => {
            let error = "ENGINE must be `redis://HOST:PORT` or `nats://HOST:PORT`";
            Err(Error::new(ErrorKind::InvalidInput, error))
        }
    }
}
