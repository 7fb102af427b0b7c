//! The contract of adapters: tests over any [`Harness`], run by [`contract!`](crate::contract!).
//!
//! Beside what [`Adapter`] says they ask for this:
//!
//! - `Up` is told once after the start, then `Down` and `Up` in turns, and nothing while the link is fine.
//! - A frame that is published while the node is told that the link is down is sent later or lost, not both.
//! - A frame that is published as the link breaks is heard by nodes whose own link is whole, at most once, or handed
//!   to [`lost`](tower_channels::adapter::NodeInbox::lost), or both.
//! - [`flush`](Adapter::flush) and [`reach`](Adapter::reach) come back within seconds, whatever the engine does.
//! - A dropped adapter closes its connections and lets go of its inbox.
//!
//! What the contract says of records is asked by [`records_contract!`](crate::records_contract!), of engines that keep
//! some: they are lost with the engine, and revisions come never again even then.

mod bus;
#[allow(missing_docs, reason = "the names of tests say what they ask")]
mod delivery;
#[allow(missing_docs, reason = "the names of tests say what they ask")]
mod ending;
#[allow(missing_docs, reason = "the names of tests say what they ask")]
mod failures;
#[allow(missing_docs, reason = "the names of tests say what they ask")]
mod listening;
mod node;
#[allow(missing_docs, reason = "the names of tests say what they ask")]
mod records;
#[allow(missing_docs, reason = "the names of tests say what they ask")]
mod sharing;

use std::time::Duration;

use tower_channels::adapter::Adapter;

pub use self::bus::BusHarness;
pub use self::delivery::*;
pub use self::ending::*;
pub use self::failures::*;
pub use self::listening::*;
use self::node::Node;
pub use self::records::*;
pub use self::sharing::*;
use crate::proxy::Proxy;

/// An engine, and adapters for it.
#[allow(async_fn_in_trait, reason = "the futures stay in the test that calls")]
pub trait Harness: Sized {
    /// Starts an engine. `None` if it is not installed.
    async fn start() -> Option<Self>;

    /// Creates an adapter whose connections can be broken by the line: mostly a [`Proxy`] in front of the engine.
    async fn connect(&self, settings: Settings) -> (Box<dyn Adapter>, Box<dyn Line>);

    /// Kills the engine.
    async fn kill(&mut self);

    /// Starts it again at its address, and waits until it answers.
    async fn restart(&mut self);

    /// How many connections the engine has.
    async fn connections(&self) -> usize;
}

/// What the suite sets on an adapter.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Nodes of two applications do not hear each other.
    pub app: &'static str,
    /// How many bytes may wait to be sent. 8 MiB, unless a test asks for less.
    pub max_waiting: usize,
    /// How long a frame may wait to be sent. 10 s, unless a test asks for less; an adapter without this setting may
    /// have any time below 20 s.
    pub max_age: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { app: "contract", max_waiting: 8 << 20, max_age: Duration::from_secs(10) }
    }
}

/// The line between one adapter and the engine.
pub trait Line {
    /// Ends all connections, and each new one.
    fn cut(&self);

    /// Holds everything back, without ending connections.
    fn stall(&self);

    /// Makes it whole.
    fn heal(&self);
}

impl Line for Proxy {
    fn cut(&self) {
        Self::cut(self);
    }

    fn stall(&self) {
        Self::stall(self);
    }

    fn heal(&self) {
        Self::heal(self);
    }
}

/// An engine and the nodes of one test.
#[derive(Debug)]
pub struct World<H> {
    engine: H,
}

impl<H: Harness> World<H> {
    /// Starts an engine. `None` if it is not installed.
    pub async fn start() -> Option<Self> {
        Some(Self { engine: H::start().await? })
    }

    /// Adds a node, and waits until it hears the others.
    async fn node(&self) -> Node {
        self.node_with(Settings::default()).await
    }

    async fn node_with(&self, settings: Settings) -> Node {
        let (adapter, line) = self.engine.connect(settings).await;
        Node::start(adapter, line).await
    }

    async fn nodes<const N: usize>(&self) -> [Node; N] {
        let mut nodes = Vec::new();
        for _ in 0..N {
            nodes.push(self.node().await);
        }
        let Ok(nodes) = nodes.try_into() else { unreachable!("as many as were added") };
        nodes
    }
}

/// Runs the contract's tests over a [`Harness`], with what follows as arguments of `tokio::test`.
///
/// ```ignore
/// mod redis {
///     contract!(super::RedisHarness);
/// }
/// mod bus {
///     contract!(BusHarness, start_paused = true);
/// }
/// ```
#[macro_export]
macro_rules! contract {
    ($harness:ty $(, $option:ident = $value:tt)*) => {
        $crate::contract! { @tests $harness, ($($option = $value),*)
            frames_to_all_arrive_in_order_at_every_node
            frames_to_topics_arrive_in_order_across_topics
            frames_of_eight_nodes_arrive_once
            frames_of_any_size_and_content_arrive_unchanged
            reach_reaches_one_node_alone
            reach_knows_that_there_is_nobody
            nodes_of_two_applications_do_not_hear_each_other

            topics_that_nobody_listens_to_are_not_heard
            a_frame_published_when_listen_has_resolved_is_heard
            a_topic_is_heard_although_nobody_awaits_it
            topics_may_have_any_name
            an_ignored_topic_is_not_heard_any_more
            a_topic_that_is_ignored_and_listened_to_in_turns_is_heard
            switching_between_all_and_topics_loses_nothing
            listening_does_not_wait_for_an_engine_that_is_away
            topics_are_heard_again_after_a_reconnection

            a_restarted_engine_is_heard_again
            frames_that_waited_for_the_engine_are_heard_or_lost
            frames_published_as_the_engine_dies_arrive_at_most_once
            a_cut_line_loses_no_frame_in_silence
            a_stalled_line_is_given_up_by_reconnect
            nothing_hangs_on_a_stalled_line
            reach_does_not_know_while_the_engine_is_away
            frames_that_have_waited_for_too_long_are_lost
            what_waits_is_bounded_in_bytes

            what_was_flushed_arrives_although_its_node_is_gone
            a_dropped_adapter_leaves_nothing_behind
        }
    };
    (@tests $harness:ty, $options:tt $($test:ident)*) => {
        $($crate::contract! { @test $harness, $options $test })*
    };
    (@test $harness:ty, ($($options:tt)*) $test:ident) => {
        #[tokio::test($($options)*)]
        async fn $test() {
            if let Some(world) = $crate::contract::World::<$harness>::start().await {
                $crate::contract::bounded($crate::contract::$test(world)).await;
            }
        }
    };
}

/// Runs the tests of records over a [`Harness`], as [`contract!`](crate::contract!) does with the others. An engine that
/// forgets each record in its time is asked `a_record_is_forgotten_after_its_time`, too. A store of one process, with
/// `@of_a_file`, is asked nothing of connections.
#[macro_export]
macro_rules! records_contract {
    (@of_a_file $harness:ty) => {
        $crate::contract! { @tests $harness, ()
            a_record_that_one_node_writes_is_read_replaced_and_removed_by_another
            a_replacement_that_has_seen_another_record_is_refused_and_shown_it
            one_of_fifty_that_race_for_a_record_wins
            a_revision_is_not_repeated_after_a_removal
            values_up_to_128_kib_are_kept_unchanged
            records_with_different_keys_do_not_meet
            a_record_outlives_the_node_that_wrote_it
            a_record_is_forgotten_after_its_time
        }
    };
    ($harness:ty $(, $option:ident = $value:tt)*) => {
        $crate::contract! { @tests $harness, ($($option = $value),*)
            a_record_that_one_node_writes_is_read_replaced_and_removed_by_another
            a_replacement_that_has_seen_another_record_is_refused_and_shown_it
            one_of_fifty_that_race_for_a_record_wins
            a_revision_is_not_repeated_after_a_removal
            values_up_to_128_kib_are_kept_unchanged
            records_with_different_keys_do_not_meet
            records_of_two_applications_do_not_meet
            a_record_outlives_the_node_that_wrote_it
            calls_fail_soon_while_the_engine_is_dead
            an_engine_that_is_back_without_records_keeps_new_ones
            calls_over_a_stalled_line_fail_soon_and_work_when_it_is_healed
        }
    };
}

/// Runs the tests of whole nodes that share the history of a topic over a [`Harness`], as [`contract!`](crate::contract!)
/// does with the others.
#[macro_export]
macro_rules! sharing_contract {
    ($harness:ty $(, $option:ident = $value:tt)*) => {
        $crate::contract! { @tests $harness, ($($option = $value),*)
            what_was_published_while_a_line_was_cut_is_received
            what_was_published_while_a_line_stalled_is_received
            what_was_published_over_a_line_that_was_given_up_is_received
            what_is_published_over_a_line_that_is_cut_is_received_once
        }
    };
}

/// Runs a test for two minutes at most.
#[doc(hidden)]
pub async fn bounded(test: impl Future<Output = ()>) {
    let bound = Duration::from_secs(120);
    assert!(tokio::time::timeout(bound, test).await.is_ok(), "not ended within {bound:?}");
}
