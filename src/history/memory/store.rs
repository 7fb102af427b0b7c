//! [`MemoryStore`]: what is kept in memory, behind the contract of stores.

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::sync::Arc;

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::time::Instant;

use super::{Group, Rings};
use crate::adapter::{
    Append, BoxFuture, HistoryInbox, HistoryStore, Keep, Kept, NodeId, Page, PublishError, Since,
    StoreError,
};

/// Keeps everything in memory, as a [`PubSub`](crate::PubSub) without a store does. For the tests of the contract.
pub struct MemoryStore {
    state: Mutex<State>,
    started: Instant,
}

struct State {
    rings: Rings,
    /// The group of each topic that was written.
    groups: HashMap<SmolStr, usize>,
    inbox: Option<Arc<dyn HistoryInbox>>,
}

impl MemoryStore {
    /// Creates an empty store, of so many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let rings = Rings::new(NodeId::random().0, limit, [].into_iter());
        let state = State { rings, groups: HashMap::new(), inbox: None };
        Self { state: Mutex::new(state), started: Instant::now() }
    }
}

impl State {
    /// Finds the group with this policy, or makes one.
    fn group(&mut self, keep: Keep) -> usize {
        let groups = &mut self.rings.groups;
        groups.iter().position(|group| group.keep == keep).unwrap_or_else(|| {
            groups.push(Group::new(keep));
            groups.len() - 1
        })
    }
}

impl HistoryStore for MemoryStore {
    fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        self.state.lock().inbox = Some(inbox);
    }

    fn append(&self, message: Append) -> Result<(), PublishError> {
        let Append { topic, content, keep, done } = message;
        let now = self.started.elapsed();
        // Locked until it is handed over: what comes next comes behind it.
        let state = &mut *self.state.lock();
        let group = state.group(keep);
        state.groups.insert(topic.clone(), group);
        let (position, previous) = state.rings.append(&topic, group, content.clone(), now);
        done.into_iter().for_each(|done| drop(done.send(Ok(position))));
        let kept = Kept { position, previous, content };
        state.inbox.iter().for_each(|inbox| inbox.kept(&topic, kept.clone()));
        Ok(())
    }

    fn read<'a>(
        &'a self,
        topic: &'a str,
        since: Since,
        limit: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        let now = self.started.elapsed();
        let state = &mut *self.state.lock();
        let group = match state.groups.get(topic) {
            Some(group) => *group,
            None => state.group(NOTHING),
        };
        Box::pin(ready(Ok(state.rings.read(topic, group, since, limit, now))))
    }
}

/// For topics of which nothing was kept.
const NOTHING: Keep = Keep { messages: 0, bytes: 0, within: std::time::Duration::ZERO };

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
