//! [`Interest`]: which topics a node has the engine send it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indexmap::IndexMap;
use parking_lot::Mutex;
use smol_str::SmolStr;

use super::config::{ClusterConfig, Listen};
use crate::adapter::{Adapter, BoxFuture};
use crate::topics::Topics;

/// Which topics a node has the engine send it.
pub(super) struct Interest {
    /// Whether it is all of them, and no topic needs to be listened to. Spares joins the lock.
    hears_all: AtomicBool,
    max_topics: usize,
    linger: Duration,
    /// The adapter learns of changes under this lock, and so in order.
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// What was chosen last.
    chosen: Listen,
    /// The topics that are heard one by one, and when each was last subscribed to.
    topics: IndexMap<SmolStr, Duration>,
    /// When to stop hearing all topics.
    narrow_at: Option<Duration>,
    /// Where the search for topics without subscribers goes on.
    next: usize,
}

/// For how long all topics are heard beside those that are subscribed to, so that a join which was under way when the
/// choice changed has subscribed.
const OVERLAP: Duration = Duration::from_secs(1);

/// How many topics are looked at in a row.
const SLICE: usize = 1000;

impl Interest {
    pub(super) fn new(config: &ClusterConfig) -> Self {
        Self {
            hears_all: AtomicBool::new(true),
            max_topics: config.max_topics,
            linger: config.linger,
            heard: Mutex::default(),
        }
    }

    fn hears_all(&self) -> bool {
        self.hears_all.load(Ordering::Acquire)
    }

    /// A topic is about to have a subscriber. Returns what to wait for until it is heard; `None` if it is.
    pub(super) fn listen(
        &self,
        topic: &str,
        adapter: &dyn Adapter,
        now: Duration,
    ) -> Option<BoxFuture<'static, ()>> {
        if self.hears_all() {
            return None;
        }
        let mut heard = self.heard.lock();
        // It may have changed meanwhile.
        if self.hears_all() {
            return None;
        }
        heard.topics.insert(topic.into(), now);
        Some(adapter.listen(topic))
    }

    /// Chooses which topics are heard. Returns what to wait for before [`widen`](Self::widen), if that is to follow.
    pub(super) fn choose(
        &self,
        listen: Listen,
        adapter: &dyn Adapter,
        now: Duration,
    ) -> Option<BoxFuture<'static, ()>> {
        let mut heard = self.heard.lock();
        if std::mem::replace(&mut heard.chosen, listen) == listen {
            return None;
        }
        match listen {
            Listen::All => {
                heard.narrow_at = None;
                Some(adapter.hear_all(true))
            }
            Listen::Topics => {
                self.hears_all.store(false, Ordering::Release);
                heard.narrow_at = Some(now.saturating_add(OVERLAP));
                None
            }
        }
    }

    /// All topics are heard now. Returns whether that is still what was chosen.
    pub(super) fn widen(&self, adapter: &dyn Adapter) -> bool {
        let mut heard = self.heard.lock();
        let is_chosen = heard.chosen == Listen::All;
        if is_chosen {
            self.hears_all.store(true, Ordering::Release);
            heard.topics.drain(..).for_each(|(topic, _)| adapter.ignore(&topic));
        }
        is_chosen
    }

    /// Ignores topics that have had no subscriber for a while. Returns whether more are heard than should be one by one. To be
    /// called several times a second.
    pub(super) fn sweep(&self, subscribed: &Topics, adapter: &dyn Adapter, now: Duration) -> bool {
        if self.hears_all() {
            return false;
        }
        self.narrow(subscribed, adapter, now);
        let heard = &mut *self.heard.lock();
        for _ in 0..SLICE.min(heard.topics.len()) {
            heard.next = if heard.next == 0 { heard.topics.len() } else { heard.next } - 1;
            let Some((topic, since)) = heard.topics.get_index_mut(heard.next) else { continue };
            if subscribed.subscribers(topic) > 0 {
                *since = now;
            } else if now.saturating_sub(*since) >= self.linger {
                adapter.ignore(topic);
                heard.topics.swap_remove_index(heard.next);
            }
        }
        heard.chosen == Listen::Topics && heard.topics.len() > self.max_topics
    }

    /// Stops hearing all topics, if it is time.
    fn narrow(&self, subscribed: &Topics, adapter: &dyn Adapter, now: Duration) {
        let is_due = self.heard.lock().narrow_at.is_some_and(|at| now >= at);
        if !is_due {
            return;
        }
        // Joins do not wait for all of it.
        for topic in subscribed.names() {
            let mut heard = self.heard.lock();
            heard.topics.entry(topic).or_insert_with_key(|topic| {
                drop(adapter.listen(topic));
                now
            });
        }
        let mut heard = self.heard.lock();
        // It may have been chosen otherwise meanwhile.
        if heard.narrow_at.take().is_some() {
            drop(adapter.hear_all(false));
        }
    }
}
