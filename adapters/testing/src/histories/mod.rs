//! The contract of stores for histories: tests over any [`Harness`], run by
//! [`histories_contract!`](crate::histories_contract!).
//!
//! Beside what [`HistoryStore`] says they ask for this:
//!
//! - What is over a bound of [`Keep`](tower_channels::adapter::Keep) is forgotten soon, except for as many messages as an
//!   engine keeps in one block: up to 128.
//! - A store that is opened again where another was dropped has what that one kept, in the same epoch. One that was made
//!   to forget everything has another epoch.
//! - A dropped store keeps what it has taken, within seconds, and lets go of its inbox. Whoever waits is told.

mod adapter;
#[allow(missing_docs, reason = "the names of tests say what they ask")]
mod ending;
#[allow(missing_docs, reason = "the names of tests say what they ask")]
mod forgetting;
mod model;
mod node;
#[allow(missing_docs, reason = "the names of tests say what they ask")]
mod order;
#[allow(missing_docs, reason = "the names of tests say what they ask")]
mod pages;

use tower_channels::adapter::HistoryStore;

pub use self::adapter::OfAdapter;
pub use self::ending::*;
pub use self::forgetting::*;
pub use self::model::{Model, ModelHarness};
use self::node::Node;
pub use self::order::*;
pub use self::pages::*;

/// Where a store keeps its messages.
#[allow(async_fn_in_trait, reason = "the futures stay in the test that calls")]
pub trait Harness: Sized {
    /// Creates an empty place. `None` if what it needs is not installed.
    async fn start() -> Option<Self>;

    /// Opens the store, as a process does that begins. One at a time is open.
    async fn open(&self) -> Box<dyn HistoryStore>;

    /// Removes everything that is kept, while no store is open.
    async fn forget(&mut self);
}

/// The place of one test.
#[derive(Debug)]
pub struct World<H> {
    place: H,
}

impl<H: Harness> World<H> {
    /// Creates it. `None` if what it needs is not installed.
    pub async fn start() -> Option<Self> {
        Some(Self { place: H::start().await? })
    }

    /// Opens the store and starts it.
    async fn node(&self) -> Node {
        Node::start(self.place.open().await).await
    }
}

/// Runs the contract's tests over a [`Harness`], with what follows as arguments of `tokio::test`.
///
/// ```ignore
/// mod sqlite {
///     histories_contract!(super::SqliteHarness);
/// }
/// mod model {
///     histories_contract!(ModelHarness, start_paused = true);
/// }
/// ```
///
/// A store in memory, which forgets everything when it is dropped, is asked the tests that do not open it again:
/// `histories_contract!(@in_memory MemoryHarness)`. One of several nodes that cannot tell a position before it hands the
/// message over is not asked for that: `histories_contract!(@shared EngineHarness)`.
#[macro_export]
macro_rules! histories_contract {
    (@in_memory $harness:ty $(, $option:ident = $value:tt)*) => {
        $crate::histories_contract! { @common $harness, ($($option = $value),*)
            a_message_is_handed_over_after_its_position_is_told
        }
    };
    (@shared $harness:ty $(, $option:ident = $value:tt)*) => {
        $crate::histories_contract! { @common $harness, ($($option = $value),*)
            a_store_that_is_opened_again_has_everything
            what_waits_when_the_store_is_dropped_is_kept
            a_store_that_has_forgotten_everything_begins_another_epoch
        }
    };
    (@common $harness:ty, $options:tt $($more:ident)*) => {
        $crate::histories_contract! { @tests $harness, $options
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
            $($more)*
        }
    };
    (@tests $harness:ty, $options:tt $($test:ident)*) => {
        $($crate::histories_contract! { @test $harness, $options $test })*
    };
    (@test $harness:ty, ($($options:tt)*) $test:ident) => {
        #[tokio::test($($options)*)]
        async fn $test() {
            if let Some(world) = $crate::histories::World::<$harness>::start().await {
                $crate::contract::bounded($crate::histories::$test(world)).await;
            }
        }
    };
    ($harness:ty $(, $option:ident = $value:tt)*) => {
        $crate::histories_contract! { @common $harness, ($($option = $value),*)
            a_message_is_handed_over_after_its_position_is_told
            a_store_that_is_opened_again_has_everything
            what_waits_when_the_store_is_dropped_is_kept
            a_store_that_has_forgotten_everything_begins_another_epoch
        }
    };
}
