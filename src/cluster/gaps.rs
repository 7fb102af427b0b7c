//! What is done about broadcasts that may have been lost: [`LostFrames`] by their sender, [`Gaps`] by those who missed
//! them.

use std::collections::BTreeSet;
use std::mem;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::runtime::Handle;
use tower_channels_transports::limited;

use super::config::{ClusterConfig, OnGap, TICK};
use super::wire::Lost;
use crate::telemetry::CHANNELS_ENDED_FOR_GAP;
use crate::topics::Topics;
use crate::topics::subscriber::Inbox;

/// Topics, or all of them. Plain code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scope {
    #[default]
    Nothing,
    Topics(BTreeSet<SmolStr>),
    All,
}

/// How many topics are listed. More are all.
const MAX_TOPICS: usize = 1000;

impl Scope {
    pub(crate) fn topic(topic: &str) -> Self {
        Self::Topics(BTreeSet::from([topic.into()]))
    }

    /// Adds what is in `other`.
    pub(crate) fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (_, Self::Nothing) | (Self::All, _) => {}
            (Self::Topics(topics), Self::Topics(more)) => {
                topics.extend(more);
                if topics.len() > MAX_TOPICS {
                    *self = Self::All;
                }
            }
            (_, other) => *self = other,
        }
    }

    /// Takes everything out.
    pub(crate) fn take(&mut self) -> Option<Self> {
        let scope = mem::take(self);
        (scope != Self::Nothing).then_some(scope)
    }
}

/// The frames of this node that were not sent, for the others. Plain code.
#[derive(Debug, Default)]
pub(super) struct LostFrames {
    topics: Scope,
    numbers: Vec<u64>,
}

/// How many numbers are told. More are missed by those who look for them.
const MAX_NUMBERS: usize = 4096;

impl LostFrames {
    /// Adds frames for these topics. `numbers` are those that were given to them.
    pub(super) fn add(&mut self, topics: Scope, numbers: impl IntoIterator<Item = u64>) {
        self.topics.add(topics);
        let room = MAX_NUMBERS.saturating_sub(self.numbers.len());
        self.numbers.extend(numbers.into_iter().take(room));
    }

    /// Takes everything out, to be sent.
    pub(super) fn take(&mut self) -> Option<Lost> {
        let topics = match self.topics.take()? {
            Scope::Topics(topics) => topics.iter().map(ToString::to_string).collect(),
            Scope::Nothing | Scope::All => Vec::new(),
        };
        Some(Lost { topics, numbers: mem::take(&mut self.numbers) })
    }
}

impl Lost {
    /// The topics.
    pub(super) fn scope(topics: Vec<String>) -> Scope {
        if topics.is_empty() {
            return Scope::All;
        }
        Scope::Topics(topics.into_iter().map(SmolStr::from).collect())
    }
}

/// Ends the channels of resumable sessions that may have missed a broadcast, a few at a time.
pub(crate) struct Gaps {
    topics: Topics,
    on_gap: OnGap,
    /// How long further reports are waited for: one outage is noticed by each node in its own time.
    delay: Duration,
    /// Over how many steps channels are ended.
    steps: usize,
    runtime: Handle,
    state: Mutex<State>,
    /// The histories that the nodes share.
    shared: OnceLock<Weak<dyn Shared>>,
}

/// The topics whose histories the nodes share: what of these may have been missed is read.
pub(crate) trait Shared: Send + Sync {
    fn has(&self, topic: &str) -> bool;

    /// Something may have been missed.
    fn doubt(&self);
}

#[derive(Default)]
struct State {
    waiting: Scope,
    /// The topics with a history of which messages are missing.
    histories: Scope,
    is_running: bool,
}

impl Gaps {
    pub(crate) fn new(topics: Topics, config: &ClusterConfig) -> Arc<Self> {
        let steps = config.gap_pace.as_millis() / TICK.as_millis();
        Arc::new(Self {
            topics,
            on_gap: config.on_gap,
            delay: config.beat.saturating_mul(2),
            runtime: Handle::current(),
            steps: usize::try_from(steps).unwrap_or(usize::MAX).max(1),
            state: Mutex::default(),
            shared: OnceLock::new(),
        })
    }

    /// Returns whether clients have yet to learn that broadcasts may have been missed.
    pub(super) fn are_pending(&self) -> bool {
        self.state.lock().is_running
    }

    /// Broadcasts on these topics may have been missed.
    pub(super) fn report(self: &Arc<Self>, scope: Scope) {
        if scope == Scope::All {
            self.doubt();
        }
        if self.on_gap == OnGap::Ignore {
            return;
        }
        self.begin(|state| state.waiting.add(scope));
    }

    /// Messages of a topic with a history are missing. Clients that want positions receive nothing more of it until they
    /// join again, whatever is done about other gaps: a position stands for everything before it.
    pub(crate) fn report_history(self: &Arc<Self>, topic: &str) {
        self.begin(|state| state.histories.add(Scope::topic(topic)));
        self.topics.interrupt(topic);
    }

    /// Sets the histories that the nodes share: once.
    pub(crate) fn share(&self, histories: Weak<dyn Shared>) {
        let _ = self.shared.set(histories);
    }

    fn shared(&self) -> Option<Arc<dyn Shared>> {
        self.shared.get()?.upgrade()
    }

    /// Parts of the engine may not have reached each other.
    pub(super) fn doubt(&self) {
        self.shared().into_iter().for_each(|shared| shared.doubt());
    }

    fn begin(self: &Arc<Self>, add: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        add(&mut state);
        let is_first = !mem::replace(&mut state.is_running, true);
        drop(state);
        if is_first {
            self.runtime.spawn(run(Arc::downgrade(self)));
        }
    }

    /// Returns whether channels are about to end.
    #[cfg(all(test, feature = "test-util"))]
    pub(super) fn is_pending(&self) -> bool {
        self.state.lock().is_running
    }

    /// Takes the topics that wait, and whether they have a history, or ends the task.
    fn next(&self) -> Option<(Scope, bool)> {
        let mut state = self.state.lock();
        let histories = state.histories.take().map(|scope| (scope, true));
        let next = histories.or_else(|| state.waiting.take().map(|scope| (scope, false)));
        state.is_running = next.is_some();
        next
    }
}

/// Ends the channels on the topics that wait, until none wait.
async fn run(gaps: Weak<Gaps>) {
    loop {
        let Some(delay) = gaps.upgrade().map(|gaps| gaps.delay) else { return };
        tokio::time::sleep(delay).await;
        let Some(gaps) = gaps.upgrade() else { return };
        let Some((scope, have_histories)) = gaps.next() else { return };
        let all_are_told = gaps.on_gap != OnGap::Ignore;
        let names: Box<dyn Iterator<Item = SmolStr> + Send> = match scope {
            Scope::Nothing => continue,
            Scope::Topics(topics) => Box::new(topics.into_iter()),
            // What is missing of a history is read, and reported by itself.
            Scope::All => {
                let shared = gaps.shared();
                let has_history =
                    move |topic: &str| shared.as_ref().is_some_and(|shared| shared.has(topic));
                let names = gaps.topics.names();
                Box::new(names.filter(move |topic| has_history(topic) == have_histories))
            }
        };
        let mut inboxes: Vec<Weak<dyn Inbox>> = Vec::new();
        for (index, name) in names.enumerate() {
            inboxes.extend(gaps.topics.miss(&name, all_are_told));
            if index % 256 == 255 {
                tokio::task::yield_now().await;
            }
        }
        let per_step = inboxes.len().div_ceil(gaps.steps).max(1);
        drop(gaps);
        if !inboxes.is_empty() {
            let channels = inboxes.len();
            limited!(
                WARN,
                channels,
                "broadcasts of other nodes may have been lost: clients join again"
            );
        }
        for step in inboxes.chunks(per_step) {
            let alive: Vec<_> = step.iter().filter_map(Weak::upgrade).collect();
            alive.iter().for_each(|inbox| inbox.miss());
            CHANNELS_ENDED_FOR_GAP.add(alive.len() as u64);
            drop(alive);
            tokio::time::sleep(TICK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics<const N: usize>(names: [&str; N]) -> Scope {
        Scope::Topics(names.map(SmolStr::new).into())
    }

    #[test]
    fn topics_add_up_and_too_many_of_them_are_all() {
        let mut scope = Scope::default();
        assert_eq!(scope.take(), None);
        scope.add(topics(["a"]));
        scope.add(Scope::Nothing);
        scope.add(topics(["a", "b"]));
        assert_eq!(scope.clone(), topics(["a", "b"]));
        (0..MAX_TOPICS).for_each(|number| scope.add(Scope::topic(&number.to_string())));
        assert_eq!(scope, Scope::All);
        scope.add(topics(["a"]));
        assert_eq!((scope.take(), scope.take()), (Some(Scope::All), None));
    }
}
