//! The contract of adapters over a NATS server, and over a cluster of two.

use tower_channels::adapter::Adapter;
use tower_channels_adapter_tests::contract::{Harness, Line, Settings};
use tower_channels_adapter_tests::engines::{NatsConfig as ServerConfig, NatsServer};
use tower_channels_adapter_tests::proxy::Proxy;
use tower_channels_nats::{Nats, NatsConfig};

struct NatsHarness(NatsServer);

impl Harness for NatsHarness {
    async fn start() -> Option<Self> {
        Some(Self(ServerConfig::new().start().await?))
    }

    async fn connect(&self, settings: Settings) -> (Box<dyn Adapter>, Box<dyn Line>) {
        let proxy = Proxy::new(self.0.address()).await;
        let config = NatsConfig::new(proxy.address().to_string())
            .app(settings.app)
            .max_queue(settings.max_waiting)
            .max_age(settings.max_age);
        let nats = Nats::connect(config).await.expect("it can be used");
        (Box::new(nats), Box::new(proxy))
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

mod alone {
    tower_channels_adapter_tests::contract!(super::NatsHarness);
}

mod on_several_threads {
    tower_channels_adapter_tests::contract!(
        super::NatsHarness,
        flavor = "multi_thread",
        worker_threads = 2
    );
}
