//! The contract of adapters.

use tower_channels::adapter::Adapter;
use tower_channels_adapter_tests::contract::{Harness, Line, Settings};
use tower_channels_adapter_tests::engines::{Kind, RedisConfig as Server, RedisServer};
use tower_channels_adapter_tests::proxy::Proxy;
use tower_channels_redis::{Redis, RedisConfig};

/// A server of either kind.
struct Over<const IS_VALKEY: bool>(RedisServer);

impl<const IS_VALKEY: bool> Harness for Over<IS_VALKEY> {
    async fn start() -> Option<Self> {
        let kind = if IS_VALKEY { Kind::Valkey } else { Kind::Redis };
        Some(Self(Server::new(kind).start().await?))
    }

    async fn connect(&self, settings: Settings) -> (Box<dyn Adapter>, Box<dyn Line>) {
        let proxy = Proxy::new(self.0.address()).await;
        let config = RedisConfig::new(format!("redis://{}", proxy.address()));
        let config = config.app(settings.app).max_queue(settings.max_waiting);
        let adapter = Redis::connect(config).await.expect("a connection");
        (Box::new(adapter), Box::new(proxy))
    }

    async fn kill(&mut self) {
        self.0.kill();
    }

    async fn restart(&mut self) {
        self.0.restart().await;
    }

    async fn connections(&self) -> usize {
        self.0.connections().await
    }
}

mod redis {
    tower_channels_adapter_tests::contract!(super::Over<false>);
}

mod valkey {
    tower_channels_adapter_tests::contract!(super::Over<true>);
}
