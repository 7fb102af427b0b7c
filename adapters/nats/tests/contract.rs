//! The contract of adapters over a NATS server, and over a cluster of two.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use tower_channels::adapter::Adapter;
use tower_channels_adapter_tests::contract::{Harness, Line, Settings};
use tower_channels_adapter_tests::engines::{NatsConfig as ServerConfig, NatsServer};
use tower_channels_adapter_tests::proxy::Proxy;
use tower_channels_nats::{Nats, NatsConfig};

/// Connects through a proxy.
async fn connect(server: SocketAddr, settings: Settings) -> (Box<dyn Adapter>, Box<dyn Line>) {
    let proxy = Proxy::new(server).await;
    let config = NatsConfig::new(proxy.address().to_string())
        .app(settings.app)
        .max_queue(settings.max_waiting)
        .max_age(settings.max_age)
        // More than enough on loopback, however busy the machine.
        .interest_propagation(Duration::from_millis(100));
    let nats = Nats::connect(config).await.expect("it can be used");
    (Box::new(nats), Box::new(proxy))
}

/// One server.
struct NatsHarness(NatsServer);

impl Harness for NatsHarness {
    async fn start() -> Option<Self> {
        Some(Self(ServerConfig::new().jetstream().start().await?))
    }

    async fn connect(&self, settings: Settings) -> (Box<dyn Adapter>, Box<dyn Line>) {
        connect(self.0.address(), settings).await
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

/// Two servers; nodes connect to them in turns.
struct ClusterHarness {
    servers: [NatsServer; 2],
    nodes: AtomicUsize,
}

impl Harness for ClusterHarness {
    async fn start() -> Option<Self> {
        let this = Self {
            servers: ServerConfig::new().start_cluster().await?,
            nodes: AtomicUsize::new(0),
        };
        this.until_joined().await;
        Some(this)
    }

    async fn connect(&self, settings: Settings) -> (Box<dyn Adapter>, Box<dyn Line>) {
        let number = self.nodes.fetch_add(1, Ordering::Relaxed);
        connect(self.servers[number % 2].address(), settings).await
    }

    async fn kill(&mut self) {
        self.servers.iter_mut().for_each(NatsServer::kill);
    }

    async fn restart(&mut self) {
        for server in &mut self.servers {
            server.restart().await;
        }
        self.until_joined().await;
    }

    async fn connections(&self) -> usize {
        self.servers[0].connections().await + self.servers[1].connections().await
    }
}

impl ClusterHarness {
    /// Waits until a message crosses from each server to the other.
    async fn until_joined(&self) {
        let [one, other] = self.servers.each_ref().map(|server| server.address().to_string());
        for [from, to] in [[&one, &other], [&other, &one]] {
            let (from, to) = (async_nats::connect(from).await, async_nats::connect(to).await);
            let (from, to) = (from.expect("it runs"), to.expect("it runs"));
            let mut heard = to.subscribe("joined").await.expect("subscribed");
            let publish = async || from.publish("joined", "".into()).await.expect("published");
            publish().await;
            while tokio::time::timeout(Duration::from_millis(20), heard.next()).await.is_err() {
                publish().await;
            }
        }
    }
}

mod alone {
    tower_channels_adapter_tests::contract!(super::NatsHarness);
    tower_channels_adapter_tests::records_contract!(super::NatsHarness);
    tower_channels_adapter_tests::sharing_contract!(super::NatsHarness);
}

mod on_several_threads {
    tower_channels_adapter_tests::contract!(
        super::NatsHarness,
        flavor = "multi_thread",
        worker_threads = 2
    );
}

mod in_a_cluster {
    tower_channels_adapter_tests::contract!(super::ClusterHarness);
}
