//! [`Announcer`]: sends what changes in a [`PresenceStore`], with one task per topic that has
//! changes.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tower_channels_transports::{limited, panics};

use super::changes::Changes;
use super::config::{Fetched, PresenceConfig};
use super::lingering::Lingering;
use super::store::{Announcement, PresenceStore, StateRecipient};
use super::tracker::Owner;
use crate::adapter::NodeId;
use crate::payload::Payload;
use crate::topics::Topics;
use crate::topics::broadcast::Broadcast;

/// Sends what changes in a [`PresenceStore`] to the subscribers of the topics.
pub(crate) struct Announcer {
    pub(crate) store: PresenceStore,
    pub(super) changes: Changes,
    /// Of sessions that have moved to another node. Nothing else is locked meanwhile.
    pub(super) lingering: Mutex<Lingering>,
    config: PresenceConfig,
    topics: Topics,
    /// The runtime for changes that are made outside of one: that of the first task.
    runtime: OnceLock<Handle>,
}

impl Announcer {
    pub(super) fn new(config: PresenceConfig, topics: Topics, node: Option<NodeId>) -> Self {
        let store = PresenceStore::new(config.max_meta, topics.account(), node);
        let (changes, lingering) = Default::default();
        Self { store, changes, lingering, config, topics, runtime: OnceLock::new() }
    }

    /// Removes all entries of an owner, which are on one topic.
    pub(crate) fn untrack_all(self: &Arc<Self>, owner: Owner, topic: &SmolStr) {
        if self.store.untrack_all(owner, topic) {
            self.schedule_diff(topic);
        }
    }

    /// How long the entries stay of a client that has closed its connection itself.
    pub(crate) fn leave_grace(&self) -> Duration {
        self.config.leave_grace
    }

    /// Lets the entries of an owner leave its topic until they are [shown](Self::show_all) again, if
    /// `is_absent` is still true.
    pub(crate) fn hide_all(
        self: &Arc<Self>,
        owner: Owner,
        topic: &SmolStr,
        is_absent: impl FnOnce() -> bool,
    ) {
        if self.store.hide_all(owner, topic, is_absent) {
            self.schedule_diff(topic);
        }
    }

    /// Tracks the entries again that were hidden.
    pub(crate) fn show_all(self: &Arc<Self>, owner: Owner, topic: &SmolStr) {
        if self.store.show_all(owner, topic) {
            self.schedule_diff(topic);
        }
    }

    /// Sends the list of a topic to a channel, before the next diff.
    pub(crate) fn request_state(
        self: &Arc<Self>,
        topic: &SmolStr,
        recipient: Arc<dyn StateRecipient>,
    ) {
        self.store.add_recipient(topic, recipient);
        self.schedule_diff(topic);
    }

    /// Starts the task that announces what has changed on a topic, unless it is running.
    pub(crate) fn schedule_diff(self: &Arc<Self>, topic: &SmolStr) {
        // Without a runtime the changes wait for the next one that is made in a runtime.
        let Some(runtime) = self.runtime() else { return };
        if self.store.schedule(topic) {
            self.runtime.get_or_init(|| runtime.clone());
            let task = TopicTask { announcer: Arc::clone(self), topic: topic.clone(), done: false };
            runtime.spawn(task.run());
        }
    }

    /// The runtime of the caller, or that of the first task.
    pub(super) fn runtime(&self) -> Option<Handle> {
        Handle::try_current().ok().or_else(|| self.runtime.get().cloned())
    }

    /// Returns whether anybody follows the changes of a topic.
    pub(super) fn is_followed(&self, topic: &str) -> bool {
        self.changes.is_followed() || self.topics.subscribers(topic) > 0
    }

    /// Calls the fetch hook.
    pub(super) async fn fetch(&self, topic: &str, keys: Vec<String>) -> Fetched {
        let Some(fetch) = self.config.fetch.as_ref().filter(|_| !keys.is_empty()) else {
            return Fetched::new();
        };
        // In a task of its own, so that a panic ends nothing else. Dropping the set cancels it.
        let mut fetching = JoinSet::new();
        let (fetch, of) = (Arc::clone(fetch), topic.to_owned());
        fetching.spawn(async move { fetch(of, keys).await });
        match tokio::time::timeout(self.config.fetch_timeout, fetching.join_next()).await {
            Ok(Some(Ok(fetched))) => return fetched,
            Ok(Some(Err(error))) => {
                if let Ok(panic) = error.try_into_panic() {
                    panics::report("fetch", &*panic);
                }
            }
            Ok(None) => {}
            Err(_) => limited!(ERROR, ?topic, "presence fetch hook timed out"),
        }
        Fetched::new()
    }

    /// Sends an announcement. `state` is the last state that was sent, which the recipients of an
    /// unchanged one share.
    async fn announce(
        &self,
        topic: &SmolStr,
        announcement: Announcement,
        state: &mut Option<Broadcast>,
    ) -> Result<(), serde_json::Error> {
        let Announcement { mut list, recipients, mut diff } = announcement;
        let mut keys: Vec<_> =
            [&list, &diff.joins, &diff.leaves].into_iter().flat_map(|all| all.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        let fetched = self.fetch(topic, keys.into_iter().map(Into::into).collect()).await;
        for presences in [&mut list, &mut diff.joins, &mut diff.leaves] {
            presences.add_fetched(&fetched);
        }
        // The list goes first. It includes the diff, which a client can apply only to a list.
        if !recipients.is_empty() {
            let payload = Payload::json(&list)?;
            let unchanged = state.take().filter(|old| old.payload().as_json() == payload.as_json());
            let state = state.insert(unchanged.unwrap_or_else(|| {
                let state = Broadcast::new(topic.clone(), "presence_state".into(), payload);
                state.volatile().hold(self.topics.account())
            }));
            recipients.iter().for_each(|recipient| recipient.receive_state(state));
        }
        if !diff.joins.is_empty() || !diff.leaves.is_empty() {
            let payload = Payload::json(&diff)?;
            let broadcast = Broadcast::new(topic.clone(), "presence_diff".into(), payload);
            self.topics.broadcast(broadcast.volatile(), None);
            self.changes.send(diff);
        }
        Ok(())
    }
}

/// The task that announces what changes on one topic. There is one at a time, so announcements that
/// wait for the fetch hook keep their order.
struct TopicTask {
    announcer: Arc<Announcer>,
    topic: SmolStr,
    done: bool,
}

impl TopicTask {
    /// Collects changes for the configured interval, announces them, and so on until there are
    /// none.
    async fn run(mut self) {
        let Self { announcer, topic, .. } = &self;
        let interval = announcer.config.interval;
        let mut state = None;
        loop {
            if interval.is_zero() {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(interval).await;
            }
            let Some(announcement) = announcer.store.take(topic) else { break };
            if let Err(error) = announcer.announce(topic, announcement, &mut state).await {
                limited!(ERROR, ?topic, ?error, "presence could not be encoded");
            }
        }
        self.done = true;
    }
}

impl Drop for TopicTask {
    fn drop(&mut self) {
        // The task ends early with its runtime: the next change starts another one.
        if !self.done {
            self.announcer.store.unschedule(&self.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tower_channels_transports::Memory;

    use super::*;
    use crate::presence::tracked::TrackGuard;

    #[derive(Default)]
    struct Recipient(AtomicUsize);

    impl StateRecipient for Recipient {
        fn receive_state(&self, _: &Broadcast) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn announcer() -> Arc<Announcer> {
        Arc::new(Announcer::new(
            PresenceConfig::default(),
            Topics::new(&Memory::new(1 << 30)),
            None,
        ))
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_that_is_requested_twice_before_it_is_sent_is_sent_once() {
        let announcer = announcer();
        let all: [Arc<Recipient>; 3] = Default::default();
        for recipient in all.iter().chain(&all[..2]) {
            let recipient = Arc::clone(recipient) as Arc<dyn StateRecipient>;
            announcer.request_state(&"lobby".into(), recipient);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(all.map(|recipient| recipient.0.load(Ordering::Relaxed)), [1, 1, 1]);
    }

    #[test]
    fn changes_that_a_runtime_left_unannounced_are_announced_by_the_next_one() {
        let runtime = || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_time().start_paused(true).build().expect("a runtime")
        };
        let announcer = announcer();
        let track = |key| TrackGuard::new(&announcer, "lobby", key, serde_json::json!({}));
        let mut changes = announcer.changes.subscribe();
        let first = runtime();
        let entered = first.enter();
        let _ann = track("ann");
        drop(entered);
        drop(first);
        runtime().block_on(async {
            let _bob = track("bob");
            let announced = tokio::time::timeout(Duration::from_secs(1), changes.next());
            let diff = announced.await.expect("it is announced").expect("an endpoint");
            assert_eq!(diff.expect("none is dropped").joins.len(), 2);
        });
    }
}
