//! Every test of the contract of histories fails over a store with the right defect.

use std::collections::HashMap;
use std::fmt;
use std::mem::{forget, take};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;
use tower_channels::adapter::{
    Append, BoxFuture, HistoryInbox, HistoryStore, Keep, Kept, Page, PublishError, Since,
    StoreError,
};
use tower_channels::history::Position;
use tower_channels_adapter_tests::histories::{Harness, ModelHarness};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Defect {
    DropsMessages,
    RepeatsMessages,
    SwapsMessages,
    SwapsAppends,
    LosesAppends,
    HandsOverEarly,
    TellsLate,
    TellsNothing,
    KeepsWhatIsAwaited,
    NamesNothingBefore,
    IncludesThePosition,
    PagesFromTheBeginning,
    IgnoresLimits,
    ReversesPages,
    SkipsInPages,
    HasAHeadToCome,
    ForgetsTheHead,
    IsAlwaysComplete,
    IsNeverComplete,
    TakesAnyEpoch,
    TrimsTopics,
    CutsContents,
    KeepsEverything,
    KeepsHalf,
    KeepsForEver,
    RefusesLargeMessages,
    OutlivesItsDrop,
    ForgetsWithItsDrop,
    LosesWhatWaits,
    HandsOverAgain,
    KeepsItsEpoch,
}

use Defect::*;

/// Runs tests over the model with a defect. They must fail.
macro_rules! breaks {
    ($($defect:ident: $($test:ident)+;)+) => {
        $(
            #[allow(non_snake_case, reason = "the name of the defect")]
            mod $defect {
                use super::*;

                #[derive(Default)]
                struct Place(ModelHarness);

                impl Harness for Place {
                    async fn start() -> Option<Self> {
                        Some(Self::default())
                    }

                    async fn open(&self) -> Box<dyn HistoryStore> {
                        let inner = match $defect {
                            ForgetsWithItsDrop => ModelHarness::default().open().await,
                            _ => self.0.open().await,
                        };
                        Box::new(Broken::new($defect, inner).await)
                    }

                    async fn forget(&mut self) {
                        self.0.forget().await;
                    }
                }

                $(
                    #[tokio::test(start_paused = true)]
                    #[should_panic]
                    async fn $test() {
                        use tower_channels_adapter_tests::{contract::bounded, histories};
                        let world = histories::World::<Place>::start().await.unwrap();
                        bounded(histories::$test(world)).await;
                    }
                )+
            }
        )+
    };
}

breaks! {
    DropsMessages: messages_of_one_thread_are_kept_in_their_order a_thousand_messages_that_wait_are_all_kept;
    RepeatsMessages: messages_of_fifty_tasks_have_one_order;
    SwapsMessages: messages_of_one_thread_are_kept_in_their_order messages_of_fifty_tasks_have_one_order;
    SwapsAppends: messages_of_one_thread_are_kept_in_their_order;
    LosesAppends: a_thousand_messages_that_wait_are_all_kept messages_of_fifty_tasks_have_one_order;
    HandsOverEarly: a_message_that_is_handed_over_can_be_read;
    TellsLate: a_message_is_handed_over_after_its_position_is_told;
    TellsNothing: a_thousand_messages_that_wait_are_all_kept;
    KeepsWhatIsAwaited: a_message_is_kept_although_nobody_waits;
    NamesNothingBefore: each_message_knows_the_one_before what_was_forgotten_is_a_gap;
    IncludesThePosition: a_page_has_what_follows_a_position pages_read_while_messages_come_have_no_holes;
    PagesFromTheBeginning: a_page_has_what_precedes_a_position the_newest_page_ends_with_the_last_message;
    IgnoresLimits: a_page_has_what_follows_a_position the_newest_page_ends_with_the_last_message;
    ReversesPages: a_page_has_what_precedes_a_position;
    SkipsInPages: pages_read_while_messages_come_have_no_holes;
    HasAHeadToCome: a_topic_without_messages_has_a_position;
    ForgetsTheHead: messages_are_kept_for_their_time;
    IsAlwaysComplete: positions_that_never_were_are_a_gap what_was_forgotten_is_a_gap
        messages_are_kept_for_their_time a_store_that_has_forgotten_everything_begins_another_epoch;
    IsNeverComplete: a_page_has_what_follows_a_position a_topic_without_messages_has_a_position;
    TakesAnyEpoch: positions_that_never_were_are_a_gap
        a_store_that_has_forgotten_everything_begins_another_epoch;
    TrimsTopics: topics_do_not_meet_whatever_their_names;
    CutsContents: contents_of_any_bytes_up_to_256_kib_are_kept_unchanged;
    KeepsEverything: the_newest_messages_are_kept the_newest_bytes_are_kept;
    KeepsHalf: the_newest_messages_are_kept;
    KeepsForEver: messages_are_kept_for_their_time;
    RefusesLargeMessages: a_message_larger_than_the_bound_is_kept_until_the_next;
    OutlivesItsDrop: a_dropped_store_lets_go_of_its_inbox;
    ForgetsWithItsDrop: a_store_that_is_opened_again_has_everything what_waits_when_the_store_is_dropped_is_kept;
    LosesWhatWaits: what_waits_when_the_store_is_dropped_is_kept;
    HandsOverAgain: a_store_that_is_opened_again_has_everything what_waits_when_the_store_is_dropped_is_kept;
    KeepsItsEpoch: a_store_that_has_forgotten_everything_begins_another_epoch;
}

/// A store with a defect.
struct Broken {
    defect: Defect,
    /// Taken when it is dropped.
    inner: Option<Arc<dyn HistoryStore>>,
    epoch: u64,
    count: AtomicU64,
    held: Mutex<Option<Append>>,
    inbox: Mutex<Option<Arc<Inbox>>>,
}

struct Inbox {
    defect: Defect,
    inner: Arc<dyn HistoryInbox>,
    count: AtomicU64,
    held: Mutex<Option<(String, Kept)>>,
    /// The last number of each topic, of a store that hands over before it keeps.
    last: Mutex<HashMap<String, u64>>,
}

impl Broken {
    async fn new(defect: Defect, inner: Box<dyn HistoryStore>) -> Self {
        let epoch = inner.read("t", Since::Newest, 0).await.unwrap().last.epoch;
        Self {
            defect,
            inner: Some(inner.into()),
            epoch,
            count: AtomicU64::new(0),
            held: Mutex::default(),
            inbox: Mutex::default(),
        }
    }

    fn inner(&self) -> &Arc<dyn HistoryStore> {
        self.inner.as_ref().expect("taken in the drop alone")
    }

    fn topic<'a>(&self, topic: &'a str) -> &'a str {
        if self.defect == TrimsTopics { topic.trim() } else { topic }
    }

    fn since(&self, since: Since) -> Since {
        let other = |position: Position| match self.defect {
            TakesAnyEpoch => Position { epoch: self.epoch, ..position },
            KeepsItsEpoch if position.epoch == 0 => Position { epoch: self.epoch, ..position },
            IncludesThePosition => {
                Position { number: position.number.saturating_sub(1), ..position }
            }
            _ => position,
        };
        match since {
            Since::After(position) => Since::After(other(position)),
            Since::Before(position) => Since::Before(other(position)),
            Since::Newest => Since::Newest,
        }
    }

    fn page(&self, mut page: Page, since: Since, limit: usize) -> Page {
        match self.defect {
            PagesFromTheBeginning => page.messages.truncate(limit),
            ReversesPages => page.messages.reverse(),
            SkipsInPages if page.messages.len() > 2 => drop(page.messages.remove(1)),
            HasAHeadToCome if page.messages.is_empty() => page.last.number += 1,
            ForgetsTheHead if page.messages.is_empty() => page.last.number = 0,
            IsAlwaysComplete => page.is_complete = true,
            IsNeverComplete => page.is_complete = matches!(since, Since::Newest),
            NamesNothingBefore => page.messages.iter_mut().for_each(|kept| kept.previous = 0),
            KeepsItsEpoch => {
                page.last.epoch = 0;
                page.messages.iter_mut().for_each(|kept| kept.position.epoch = 0);
            }
            _ => {}
        }
        page
    }
}

impl HistoryStore for Broken {
    fn start(&self, inner: Arc<dyn HistoryInbox>) {
        let inbox = Arc::new(Inbox {
            defect: self.defect,
            inner,
            count: AtomicU64::new(0),
            held: Mutex::default(),
            last: Mutex::default(),
        });
        *self.inbox.lock().unwrap() = Some(inbox.clone());
        self.inner().start(inbox.clone());
        if self.defect == HandsOverAgain {
            let store = self.inner().clone();
            tokio::spawn(async move {
                for kept in store.read("t", Since::Newest, 10_000).await.unwrap().messages {
                    inbox.kept("t", kept);
                }
            });
        }
    }

    fn append(&self, mut message: Append) -> Result<(), PublishError> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let is_chosen = count % 50 == 7;
        message.topic = self.topic(&message.topic).into();
        match self.defect {
            SwapsAppends if is_chosen => {
                *self.held.lock().unwrap() = Some(message);
                return Ok(());
            }
            LosesAppends if is_chosen => {
                let position = Position { epoch: self.epoch, number: count };
                let _ = message.done.map(|done| done.send(Ok(position)));
                return Ok(());
            }
            HandsOverEarly => {
                let inbox = self.inbox.lock().unwrap().clone().expect("it is started");
                inbox.early(&message, Position { epoch: self.epoch, number: count });
                let store = self.inner().clone();
                tokio::spawn(async move {
                    sleep(Duration::from_millis(1)).await;
                    store.append(message).expect("room");
                });
                return Ok(());
            }
            LosesWhatWaits => {
                let store = Arc::downgrade(self.inner());
                tokio::spawn(async move {
                    sleep(Duration::from_millis(1)).await;
                    if let Some(store) = store.upgrade() {
                        store.append(message).expect("room");
                    }
                });
                return Ok(());
            }
            TellsLate => {
                let (done, told) = oneshot::channel();
                if let Some(waits) = message.done.replace(done) {
                    tokio::spawn(async move {
                        let told = told.await;
                        sleep(Duration::from_millis(1)).await;
                        let _ = told.map(|told| waits.send(told));
                    });
                }
            }
            TellsNothing => message.done = None,
            KeepsWhatIsAwaited if message.done.as_ref().is_none_or(oneshot::Sender::is_closed) => {
                return Ok(());
            }
            CutsContents => {
                message.content.truncate(70_000);
            }
            KeepsEverything => {
                message.keep = Keep { messages: usize::MAX, bytes: usize::MAX, ..message.keep };
            }
            KeepsHalf => message.keep.messages = message.keep.messages.div_ceil(2),
            KeepsForEver => message.keep.within = Duration::MAX,
            RefusesLargeMessages if message.content.len() > message.keep.bytes => {
                let _ = message.done.map(|done| done.send(Err(StoreError::new("too large"))));
                return Ok(());
            }
            _ => {}
        }
        self.inner().append(message)?;
        // The next one of the same topic, where there are three.
        let held = take(&mut *self.held.lock().unwrap());
        match held {
            Some(held) if count % 50 == 10 => self.inner().append(held),
            held => {
                *self.held.lock().unwrap() = held;
                Ok(())
            }
        }
    }

    fn read<'a>(
        &'a self,
        topic: &'a str,
        since: Since,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async move {
            let is_unlimited = matches!(self.defect, IgnoresLimits | PagesFromTheBeginning);
            let inner_limit = if is_unlimited { usize::MAX } else { limit };
            let read = self.inner().read(self.topic(topic), self.since(since), inner_limit);
            Ok(self.page(read.await?, since, limit))
        })
    }
}

impl Inbox {
    /// Hands a message over that is not kept yet.
    fn early(&self, message: &Append, position: Position) {
        let mut last = self.last.lock().unwrap();
        let previous = last.insert(message.topic.to_string(), position.number).unwrap_or(0);
        let content = message.content.clone();
        self.inner.kept(&message.topic, Kept { position, previous, content });
    }
}

impl HistoryInbox for Inbox {
    fn kept(&self, topic: &str, mut message: Kept) {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let is_chosen = count % 50 == 7;
        match self.defect {
            DropsMessages if is_chosen => return,
            RepeatsMessages if is_chosen => self.inner.kept(topic, message.clone()),
            SwapsMessages if is_chosen => {
                *self.held.lock().unwrap() = Some((topic.to_owned(), message));
                return;
            }
            HandsOverEarly => return,
            NamesNothingBefore => message.previous = 0,
            KeepsItsEpoch => message.position.epoch = 0,
            _ => {}
        }
        self.inner.kept(topic, message);
        if count % 50 == 20
            && let Some((topic, message)) = take(&mut *self.held.lock().unwrap())
        {
            self.inner.kept(&topic, message);
        }
    }
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.defect.fmt(f)
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        if self.defect == OutlivesItsDrop {
            forget(self.inner.take());
        }
    }
}
