//! The contract of histories, over Redis, Valkey and a Redis Cluster.

use tower_channels::adapter::HistoryStore;
use tower_channels_adapter_tests::engines::{Kind, RedisConfig as Server, RedisServer};
use tower_channels_adapter_tests::histories::{Harness, OfAdapter};
use tower_channels_redis::Redis;

use crate::keeper::Keeper;
use crate::node::config;

/// Waits until what was published is at this server of a cluster: the servers pass it on in order, each in its own time.
async fn settle(server: &RedisServer) {
    let keeper = Keeper::start(config(server.address()), &["settled"]).await;
    let position = keeper.keep("settled", "").await;
    keeper.hears("settled", position).await;
}

macro_rules! harness {
    ($name:ident, $start:expr) => {
        struct $name(Vec<RedisServer>);

        impl Harness for $name {
            async fn start() -> Option<Self> {
                $start.map(|servers| Self(servers.into_iter().collect()))
            }

            async fn open(&self) -> Box<dyn HistoryStore> {
                if self.0.len() > 1 {
                    settle(&self.0[0]).await;
                }
                let redis = Redis::connect(config(self.0[0].address())).await.expect("connects");
                Box::new(OfAdapter::new(redis))
            }

            async fn forget(&mut self) {
                for server in &self.0 {
                    server.ask(&["FLUSHALL"]).await;
                }
            }
        }
    };
}

harness!(OnRedis, Server::new(Kind::Redis).start().await.map(|server| [server]));
harness!(OnValkey, Server::new(Kind::Valkey).start().await.map(|server| [server]));
harness!(OnCluster, Server::new(Kind::Redis).start_cluster().await);

mod redis {
    tower_channels_adapter_tests::histories_contract!(@shared super::OnRedis);
}

mod valkey {
    tower_channels_adapter_tests::histories_contract!(@shared super::OnValkey);
}

/// Messages are at one of its servers, and are heard at another.
mod cluster {
    tower_channels_adapter_tests::histories_contract!(@shared super::OnCluster);
}
