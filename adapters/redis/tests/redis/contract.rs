//! The contract of adapters, over Redis, Valkey and a Redis Cluster.

use std::sync::atomic::{AtomicUsize, Ordering};

use tower_channels::adapter::Adapter;
use tower_channels_adapter_tests::contract::{Harness, Line, Settings};
use tower_channels_adapter_tests::engines::{Kind, RedisConfig as Server, RedisServer};
use tower_channels_adapter_tests::proxy::Proxy;
use tower_channels_redis::{Redis, RedisConfig};

use crate::node::url;

/// One server or several. Each adapter has a proxy in front of one of them.
struct Servers {
    servers: Vec<RedisServer>,
    next: AtomicUsize,
}

impl Servers {
    fn new(servers: impl IntoIterator<Item = RedisServer>) -> Self {
        Self { servers: servers.into_iter().collect(), next: AtomicUsize::new(0) }
    }

    async fn connect(&self, settings: Settings) -> (Box<dyn Adapter>, Box<dyn Line>) {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let server = &self.servers[next % self.servers.len()];
        let proxy = Proxy::new(server.address()).await;
        let config = RedisConfig::new(url(proxy.address()))
            .app(settings.app)
            .max_queue(settings.max_waiting)
            .max_age(settings.max_age);
        let redis = Redis::connect(config).await.expect("connects");
        (Box::new(redis), Box::new(proxy))
    }

    async fn connections(&self) -> usize {
        let mut count = 0;
        for server in &self.servers {
            count += server.connections().await;
        }
        count
    }

    fn kill(&mut self) {
        self.servers.iter_mut().for_each(RedisServer::kill);
    }

    async fn restart(&mut self) {
        for server in &mut self.servers {
            server.restart().await;
        }
    }
}

macro_rules! harness {
    ($name:ident, $start:expr) => {
        struct $name(Servers);

        impl Harness for $name {
            async fn start() -> Option<Self> {
                $start.map(Self)
            }

            async fn connect(&self, settings: Settings) -> (Box<dyn Adapter>, Box<dyn Line>) {
                self.0.connect(settings).await
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
    };
}

harness!(OnRedis, Server::new(Kind::Redis).start().await.map(|server| Servers::new([server])));
harness!(OnValkey, Server::new(Kind::Valkey).start().await.map(|server| Servers::new([server])));
harness!(OnCluster, Server::new(Kind::Redis).start_cluster().await.map(Servers::new));

mod redis {
    use tower_channels_adapter_tests::{contract, records_contract, sharing_contract};

    contract!(super::OnRedis);
    records_contract!(super::OnRedis);
    sharing_contract!(super::OnRedis);
    contract! { @tests super::OnRedis, () a_record_is_forgotten_after_its_time }
}

mod valkey {
    use tower_channels_adapter_tests::{contract, records_contract, sharing_contract};

    contract!(super::OnValkey);
    records_contract!(super::OnValkey);
    sharing_contract!(super::OnValkey);
    contract! { @tests super::OnValkey, () a_record_is_forgotten_after_its_time }
}

/// What does not depend on the count of receivers, which is that of one server in a cluster.
mod cluster {
    use tower_channels_adapter_tests::{contract, sharing_contract};

    sharing_contract!(super::OnCluster);
    contract! { @tests super::OnCluster, ()
        frames_to_all_arrive_in_order_at_every_node
        frames_to_topics_arrive_in_order_across_topics
        frames_of_eight_nodes_arrive_once
        topics_that_nobody_listens_to_are_not_heard
        a_frame_published_when_listen_has_resolved_is_heard
        an_ignored_topic_is_not_heard_any_more
        switching_between_all_and_topics_loses_nothing
        topics_are_heard_again_after_a_reconnection
        a_cut_line_loses_no_frame_in_silence
        a_dropped_adapter_leaves_nothing_behind

        a_record_that_one_node_writes_is_read_replaced_and_removed_by_another
        a_replacement_that_has_seen_another_record_is_refused_and_shown_it
        one_of_fifty_that_race_for_a_record_wins
        a_revision_is_not_repeated_after_a_removal
        values_up_to_128_kib_are_kept_unchanged
        records_of_two_applications_do_not_meet
        a_record_outlives_the_node_that_wrote_it
        a_record_is_forgotten_after_its_time
        calls_fail_soon_while_the_engine_is_dead
        calls_over_a_stalled_line_fail_soon_and_work_when_it_is_healed
    }
}
