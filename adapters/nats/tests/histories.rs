//! The contract of histories over a NATS server.

use std::time::Duration;

use tower_channels::adapter::HistoryStore;
use tower_channels_adapter_tests::engines::{NatsConfig as ServerConfig, NatsServer};
use tower_channels_adapter_tests::histories::{Harness, OfAdapter};
use tower_channels_adapter_tests::histories_contract;
use tower_channels_nats::{HistoryConfig, Nats, NatsConfig, Storage};

/// One server.
struct Alone<const IN_MEMORY: bool>(NatsServer);

impl<const IN_MEMORY: bool> Harness for Alone<IN_MEMORY> {
    async fn start() -> Option<Self> {
        Some(Self(ServerConfig::new().jetstream().start().await?))
    }

    async fn open(&self) -> Box<dyn HistoryStore> {
        let storage = if IN_MEMORY { Storage::Memory } else { Storage::File };
        let history = HistoryConfig::new().storage(storage).messages(10_000).max_bytes(256 << 20);
        let config = NatsConfig::new(self.0.address().to_string()).history(history);
        Box::new(OfAdapter::new(Nats::connect(config).await.expect("it can be used")))
    }

    async fn forget(&mut self) {
        let client = async_nats::connect(self.0.address().to_string()).await.expect("it runs");
        let context = async_nats::jetstream::new(client);
        context.delete_stream("tc-channels-history").await.expect("it is there");
        // So that the next is created at another time, however coarse the clock.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

mod in_files {
    use super::*;

    histories_contract!(Alone<false>);
}

mod in_memory {
    use super::*;

    histories_contract!(Alone<true>, flavor = "multi_thread", worker_threads = 2);
}
