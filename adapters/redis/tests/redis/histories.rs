//! The contract of histories, over Redis, Valkey and a Redis Cluster.

use tower_channels::adapter::HistoryStore;
use tower_channels_adapter_tests::engines::{Kind, RedisConfig as Server, RedisServer};
use tower_channels_adapter_tests::histories::{Harness, OfAdapter};
use tower_channels_redis::Redis;

use crate::node::config;

macro_rules! harness {
    ($name:ident, $start:expr) => {
        struct $name(Vec<RedisServer>);

        impl Harness for $name {
            async fn start() -> Option<Self> {
                $start.map(|servers| Self(servers.into_iter().collect()))
            }

            async fn open(&self) -> Box<dyn HistoryStore> {
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

/// All but what a store of one process alone can do: to tell a position before the message is handed over.
macro_rules! contract_of_several_nodes {
    ($harness:ty) => {
        tower_channels_adapter_tests::histories_contract! { @tests $harness, ()
            messages_of_one_thread_are_kept_in_their_order
            messages_of_fifty_tasks_have_one_order
            a_thousand_messages_that_wait_are_all_kept
            each_message_knows_the_one_before
            a_message_that_is_handed_over_can_be_read
            a_message_is_kept_although_nobody_waits

            a_page_has_what_follows_a_position
            a_page_has_what_precedes_a_position
            the_newest_page_ends_with_the_last_message
            a_topic_without_messages_has_a_position
            positions_that_never_were_are_a_gap
            topics_do_not_meet_whatever_their_names
            contents_of_any_bytes_up_to_256_kib_are_kept_unchanged
            pages_read_while_messages_come_have_no_holes

            the_newest_messages_are_kept
            the_newest_bytes_are_kept
            a_message_larger_than_the_bound_is_kept_until_the_next
            messages_are_kept_for_their_time
            what_was_forgotten_is_a_gap

            a_dropped_store_lets_go_of_its_inbox
            a_store_that_is_opened_again_has_everything
            what_waits_when_the_store_is_dropped_is_kept
            a_store_that_has_forgotten_everything_begins_another_epoch
        }
    };
}

mod redis {
    contract_of_several_nodes!(super::OnRedis);
}

mod valkey {
    contract_of_several_nodes!(super::OnValkey);
}

/// Messages are at one of its servers, and are heard at another.
mod cluster {
    contract_of_several_nodes!(super::OnCluster);
}
