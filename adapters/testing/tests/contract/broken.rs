//! Every test of the contract fails over an adapter with the right defect.

use std::future::{pending, ready};
use std::mem::{forget, take};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use tower_channels::adapter::{
    Adapter, AdapterLimits, BoxFuture, Channel, Link, NodeId, NodeInbox, PublishError, Reached,
    Store,
};
use tower_channels_adapter_tests::contract::{BusHarness, Harness, Line, Settings};

use crate::broken_store::BrokenStore;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Defect {
    DropsFrames,
    RepeatsFrames,
    SwapsFrames,
    CutsLargeFrames,
    TellsNothing,
    TellsNoLoss,
    TellsLossesTwice,
    DropsFramesWhileDown,
    RetriesLostFrames,
    NeverLosesFrames,
    WaitsWithoutBound,
    SharesApplications,
    SharesRecords,
    ReachesEverybody,
    ReachesAll,
    TakesAwayForGone,
    HearsAll,
    ListensToNothing,
    ListensLate,
    ListensWhenAwaited,
    ListensToTrimmedTopics,
    ListensWhileUpAlone,
    ForgetsTopics,
    IgnoresNothing,
    IgnoresLate,
    DropsFramesInSwitches,
    NeverReconnects,
    NeverFlushes,
    FlushesNothing,
    OutlivesItsDrop,
    OverwritesRecords,
    RemovesBlindly,
    ShowsNothing,
    RepeatsRevisions,
    CutsValues,
    ForgetsNothing,
    AnswersFromMemory,
    WaitsForTheEngine,
}

use Defect::*;

/// Runs tests over the engine in memory and adapters with a defect. They must fail.
macro_rules! breaks {
    ($($defect:ident: $($test:ident)+;)+) => {
        $(
            #[allow(non_snake_case, reason = "the name of the defect")]
            mod $defect {
                use super::*;

                struct Broken(BusHarness);

                impl Harness for Broken {
                    async fn start() -> Option<Self> {
                        Some(Self(BusHarness::start().await?))
                    }

                    async fn connect(&self, settings: Settings) -> (Box<dyn Adapter>, Box<dyn Line>) {
                        let (adapter, line) = self.0.connect($defect.settings(settings)).await;
                        (Box::new(Wrapper::new($defect, adapter)), line)
                    }

                    async fn kill(&mut self) {
                        self.0.kill().await;
                    }

                    async fn restart(&mut self) {
                        self.0.restart().await;
                    }

                    async fn connections(&self) -> usize {
                        self.0.connections().await
                    }
                }

                $(
                    #[tokio::test(start_paused = true)]
                    #[should_panic]
                    async fn $test() {
                        use tower_channels_adapter_tests::contract::{$test, World, bounded};
                        let world = World::<Broken>::start().await.unwrap();
                        bounded($test(world)).await;
                    }
                )+
            }
        )+
    };
}

breaks! {
    DropsFrames: frames_to_all_arrive_in_order_at_every_node switching_between_all_and_topics_loses_nothing
        a_cut_line_loses_no_frame_in_silence;
    RepeatsFrames: frames_of_eight_nodes_arrive_once a_cut_line_loses_no_frame_in_silence
        frames_published_as_the_engine_dies_arrive_at_most_once;
    SwapsFrames: frames_to_all_arrive_in_order_at_every_node frames_to_topics_arrive_in_order_across_topics
        switching_between_all_and_topics_loses_nothing;
    CutsLargeFrames: frames_of_any_size_and_content_arrive_unchanged;
    TellsNothing: a_restarted_engine_is_heard_again;
    TellsNoLoss: frames_that_have_waited_for_too_long_are_lost;
    TellsLossesTwice: frames_that_have_waited_for_too_long_are_lost;
    DropsFramesWhileDown: frames_that_waited_for_the_engine_are_heard_or_lost a_cut_line_loses_no_frame_in_silence
        what_waits_is_bounded_in_bytes;
    RetriesLostFrames: frames_that_have_waited_for_too_long_are_lost;
    NeverLosesFrames: frames_that_have_waited_for_too_long_are_lost nothing_hangs_on_a_stalled_line;
    WaitsWithoutBound: what_waits_is_bounded_in_bytes;
    SharesApplications: nodes_of_two_applications_do_not_hear_each_other;
    ReachesEverybody: reach_knows_that_there_is_nobody reach_does_not_know_while_the_engine_is_away;
    ReachesAll: reach_reaches_one_node_alone;
    TakesAwayForGone: reach_does_not_know_while_the_engine_is_away nothing_hangs_on_a_stalled_line;
    HearsAll: topics_that_nobody_listens_to_are_not_heard;
    ListensToNothing: a_frame_published_when_listen_has_resolved_is_heard;
    ListensLate: a_frame_published_when_listen_has_resolved_is_heard;
    ListensWhenAwaited: a_topic_is_heard_although_nobody_awaits_it;
    ListensToTrimmedTopics: topics_may_have_any_name;
    ListensWhileUpAlone: listening_does_not_wait_for_an_engine_that_is_away;
    ForgetsTopics: topics_are_heard_again_after_a_reconnection a_restarted_engine_is_heard_again;
    IgnoresNothing: an_ignored_topic_is_not_heard_any_more;
    IgnoresLate: a_topic_that_is_ignored_and_listened_to_in_turns_is_heard;
    DropsFramesInSwitches: switching_between_all_and_topics_loses_nothing;
    NeverReconnects: a_stalled_line_is_given_up_by_reconnect;
    NeverFlushes: nothing_hangs_on_a_stalled_line frames_that_have_waited_for_too_long_are_lost;
    FlushesNothing: what_was_flushed_arrives_although_its_node_is_gone;
    OutlivesItsDrop: a_dropped_adapter_leaves_nothing_behind reach_knows_that_there_is_nobody;
    SharesRecords: records_of_two_applications_do_not_meet;
    OverwritesRecords: a_replacement_that_has_seen_another_record_is_refused_and_shown_it
        one_of_fifty_that_race_for_a_record_wins;
    RemovesBlindly: a_replacement_that_has_seen_another_record_is_refused_and_shown_it;
    ShowsNothing: a_replacement_that_has_seen_another_record_is_refused_and_shown_it
        one_of_fifty_that_race_for_a_record_wins;
    RepeatsRevisions: a_revision_is_not_repeated_after_a_removal;
    CutsValues: values_up_to_128_kib_are_kept_unchanged;
    ForgetsNothing: a_record_is_forgotten_after_its_time;
    AnswersFromMemory: a_record_that_one_node_writes_is_read_replaced_and_removed_by_another
        calls_fail_soon_while_the_engine_is_dead an_engine_that_is_back_without_records_keeps_new_ones;
    WaitsForTheEngine: calls_fail_soon_while_the_engine_is_dead
        calls_over_a_stalled_line_fail_soon_and_work_when_it_is_healed;
}

impl Defect {
    fn settings(self, settings: Settings) -> Settings {
        match self {
            WaitsWithoutBound => Settings { max_waiting: usize::MAX / 2, ..settings },
            SharesApplications | SharesRecords => Settings { app: "all", ..settings },
            NeverLosesFrames => Settings { max_age: Duration::from_secs(3600), ..settings },
            _ => settings,
        }
    }
}

/// An adapter with a defect.
#[derive(Debug)]
struct Wrapper {
    defect: Defect,
    /// Taken when it is dropped.
    inner: Option<Arc<dyn Adapter>>,
    state: Arc<State>,
    store: BrokenStore,
}

#[derive(Debug, Default)]
struct State {
    is_down: AtomicBool,
    is_switching: AtomicBool,
    received: AtomicUsize,
    topics: Mutex<Vec<String>>,
    held: Mutex<Option<Bytes>>,
}

struct Inbox {
    defect: Defect,
    inner: Arc<dyn NodeInbox>,
    state: Arc<State>,
    /// Which holds this.
    adapter: Weak<dyn Adapter>,
}

impl Wrapper {
    fn new(defect: Defect, inner: Box<dyn Adapter>) -> Self {
        let inner: Arc<dyn Adapter> = inner.into();
        let store = BrokenStore::new(defect, Arc::downgrade(&inner));
        Self { defect, inner: Some(inner), state: Arc::default(), store }
    }

    fn inner(&self) -> &Arc<dyn Adapter> {
        self.inner.as_ref().expect("taken in the drop alone")
    }

    fn is_down(&self) -> bool {
        self.state.is_down.load(Ordering::Relaxed)
    }
}

impl Adapter for Wrapper {
    fn start(&self, node: NodeId, inner: Arc<dyn NodeInbox>) {
        let (adapter, state) = (Arc::downgrade(self.inner()), self.state.clone());
        self.inner().start(node, Arc::new(Inbox { defect: self.defect, inner, state, adapter }));
    }

    fn publish(&self, to: Channel<'_>, frame: Bytes) -> Result<(), PublishError> {
        let frame = if self.defect == CutsLargeFrames {
            frame.slice(..frame.len().min(70_000))
        } else {
            frame
        };
        match self.defect {
            DropsFramesWhileDown if self.is_down() => Ok(()),
            FlushesNothing => {
                let adapter = Arc::downgrade(self.inner());
                tokio::spawn(async move {
                    sleep(Duration::from_millis(1)).await;
                    if let Some(adapter) = adapter.upgrade() {
                        adapter.publish(Channel::All, frame).expect("room");
                    }
                });
                Ok(())
            }
            _ => self.inner().publish(to, frame),
        }
    }

    fn reach(&self, node: NodeId, frame: Bytes) -> BoxFuture<'_, Reached> {
        Box::pin(async move {
            if self.defect == ReachesAll {
                let _ = self.inner().publish(Channel::All, frame.clone());
            }
            match (self.defect, self.inner().reach(node, frame).await) {
                (ReachesEverybody, _) => Reached::Someone,
                (TakesAwayForGone, Reached::Unknown) => Reached::Nobody,
                (_, reached) => reached,
            }
        })
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        match self.defect {
            NeverFlushes => Box::pin(pending()),
            FlushesNothing => Box::pin(ready(())),
            _ => self.inner().flush(),
        }
    }

    fn listen(&self, topic: &str) -> BoxFuture<'static, ()> {
        let (adapter, topic) = (self.inner().clone(), topic.to_owned());
        self.state.topics.lock().unwrap().push(topic.clone());
        match self.defect {
            ListensToNothing => Box::pin(ready(())),
            ListensLate => {
                tokio::spawn(async move {
                    sleep(Duration::from_millis(1)).await;
                    adapter.listen(&topic).await;
                });
                Box::pin(ready(()))
            }
            ListensWhenAwaited => Box::pin(async move { adapter.listen(&topic).await }),
            ListensToTrimmedTopics => adapter.listen(topic.trim()),
            ListensWhileUpAlone if self.is_down() => Box::pin(pending()),
            _ => adapter.listen(&topic),
        }
    }

    fn ignore(&self, topic: &str) {
        match self.defect {
            IgnoresNothing => {}
            IgnoresLate => {
                let (adapter, topic) = (self.inner().clone(), topic.to_owned());
                tokio::spawn(async move {
                    sleep(Duration::from_millis(5)).await;
                    adapter.ignore(&topic);
                });
            }
            _ => self.inner().ignore(topic),
        }
    }

    fn hear_all(&self, all: bool) -> BoxFuture<'static, ()> {
        if self.defect == HearsAll {
            return Box::pin(ready(()));
        }
        let (adapter, state) = (self.inner().clone(), self.state.clone());
        Box::pin(async move {
            state.is_switching.store(true, Ordering::Relaxed);
            sleep(Duration::from_millis(1)).await;
            adapter.hear_all(all).await;
            state.is_switching.store(false, Ordering::Relaxed);
        })
    }

    fn reconnect(&self) {
        if self.defect != NeverReconnects {
            self.inner().reconnect();
        }
    }

    fn limits(&self) -> AdapterLimits {
        self.inner().limits()
    }

    fn store(&self) -> Option<&dyn Store> {
        Some(&self.store)
    }
}

impl Drop for Wrapper {
    fn drop(&mut self) {
        if self.defect == OutlivesItsDrop {
            forget(self.inner.take());
        }
    }
}

impl NodeInbox for Inbox {
    fn receive(&self, frame: Bytes) {
        let number = self.state.received.fetch_add(1, Ordering::Relaxed);
        let is_chosen = number % 50 == 7;
        match self.defect {
            DropsFrames if is_chosen => return,
            DropsFramesInSwitches if self.state.is_switching.load(Ordering::Relaxed) => return,
            RepeatsFrames if is_chosen => self.inner.receive(frame.clone()),
            SwapsFrames if is_chosen => {
                *self.state.held.lock().unwrap() = Some(frame);
                return;
            }
            _ => {}
        }
        self.inner.receive(frame);
        if number % 50 == 20
            && let Some(held) = take(&mut *self.state.held.lock().unwrap())
        {
            self.inner.receive(held);
        }
    }

    fn link(&self, link: Link) {
        self.state.is_down.store(link == Link::Down, Ordering::Relaxed);
        if self.defect == ForgetsTopics && link == Link::Down {
            for topic in self.state.topics.lock().unwrap().iter() {
                self.adapter.upgrade().expect("it runs").ignore(topic);
            }
        }
        if self.defect != TellsNothing || link == Link::Up {
            self.inner.link(link);
        }
    }

    fn lost(&self, frame: Bytes) {
        match self.defect {
            TellsNoLoss => return,
            TellsLossesTwice => self.inner.lost(frame.clone()),
            RetriesLostFrames => {
                let adapter = self.adapter.upgrade().expect("it runs");
                adapter.publish(Channel::All, frame.clone()).expect("room");
            }
            _ => {}
        }
        self.inner.lost(frame);
    }
}
