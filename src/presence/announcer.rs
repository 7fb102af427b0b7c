//! The task that says what happened on a topic. There is one while there is something to say.

use std::sync::Arc;

use smol_str::SmolStr;

use super::store::{Announcement, PresenceStore};
use crate::payload::Payload;

/// Collects for the configured interval, announces, and so on until nothing has happened.
///
/// One task a topic, so that what waits for the fetch hook keeps its order.
pub(super) fn run(store: Arc<PresenceStore>, topic: SmolStr) -> impl Future<Output = ()> {
    // Made before the task, so that it does its work even if the task never runs.
    let guard = ExitGuard { store, topic, done: false };
    async move {
        // All of it, not some fields.
        let mut guard = guard;
        let ExitGuard { store, topic, .. } = &guard;
        loop {
            if store.config.interval.is_zero() {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(store.config.interval).await;
            }
            let Some(announcement) = store.announcement(topic) else { break };
            if let Err(error) = announcement.say(store).await {
                tracing::error!(%topic, %error, "presence could not be announced");
            }
        }
        guard.done = true;
    }
}

impl Announcement {
    async fn say(self, store: &PresenceStore) -> Result<(), serde_json::Error> {
        let Self { topic, mut list, waiting, mut diff } = self;
        let mut keys: Vec<_> =
            [&list, &diff.joins, &diff.leaves].into_iter().flat_map(|all| all.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        let fetched = store.fetch(&topic, keys.into_iter().map(Into::into).collect()).await;
        for presences in [&mut list, &mut diff.joins, &mut diff.leaves] {
            presences.fetched(&fetched);
        }
        // First the list: it holds what the diff says, and a client that has neither can use the diff
        // only after it.
        if !waiting.is_empty() {
            let state = Payload::json(&list)?;
            waiting.iter().for_each(|recipient| recipient.receive_state(&state));
        }
        if diff.joins.is_empty() && diff.leaves.is_empty() {
            return Ok(());
        }
        store.broadcast(topic, diff)
    }
}

/// Sees to it that an announcer that ends before its time, as with its runtime, is previous.
struct ExitGuard {
    store: Arc<PresenceStore>,
    topic: SmolStr,
    done: bool,
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        if !self.done {
            self.store.unannounced(&self.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::presence::{Presence, PresenceConfig, StateRecipient};
    use crate::pubsub::PubSub;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl StateRecipient for Counting {
        fn receive_state(&self, _: &Payload) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_the_state_twice_before_it_comes_receives_it_once() {
        let store = Arc::new(PresenceStore::new(PresenceConfig::default(), PubSub::new(1000)));
        let all: [Arc<Counting>; 3] = Default::default();
        for recipient in all.iter().chain(&all[..2]) {
            store.request_state(&"lobby".into(), Arc::clone(recipient) as Arc<dyn StateRecipient>);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(all.map(|recipient| recipient.0.load(Ordering::Relaxed)), [1, 1, 1]);
    }

    #[test]
    fn after_a_runtime_that_ended_before_it_announced_another_one_announces_all() {
        let runtime = || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_time().start_paused(true).build().expect("a runtime")
        };
        let presence =
            Presence::new(PresenceStore::new(PresenceConfig::default(), PubSub::new(1000)));
        let mut changes = presence.changes();
        let first = runtime();
        let entered = first.enter();
        let _ann = presence.track_task("lobby", "ann", serde_json::json!({}));
        drop(entered);
        drop(first);
        runtime().block_on(async {
            let _bob = presence.track_task("lobby", "bob", serde_json::json!({}));
            let announced = tokio::time::timeout(Duration::from_secs(1), changes.next());
            let diff = announced.await.expect("it is announced").expect("an endpoint");
            assert_eq!(diff.expect("none is missed").joins.len(), 2);
        });
    }
}
