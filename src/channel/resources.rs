//! [`Resources`]: what a channel has acquired beside its own topic, and gives up when it ends.

use std::collections::HashMap;

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::task::AbortHandle;
use tower_channels_transports::FixedReservation;

use crate::topics::Membership;

/// The subscriptions of a channel to other topics, and its timers. Most channels have neither.
#[derive(Default)]
pub(crate) struct Resources {
    /// The lock of a topic is taken under it. Held for a few steps in a map or a list.
    state: Mutex<State>,
}

#[derive(Default)]
enum State {
    #[default]
    None,
    Some(Box<Acquired>),
    /// The channel has ended, and acquires nothing more.
    Over,
}

#[derive(Default)]
pub(super) struct Acquired {
    /// By topic.
    pub(super) subscriptions: HashMap<SmolStr, Subscription>,
    /// The tasks of timers. Those that are done keep their memory until they are removed.
    timers: Vec<TimerTask>,
    /// How many timers have fired since those that are done were removed.
    fired: usize,
}

/// The task of a timer, and what is reserved for it, which it holds until this is dropped.
pub(super) type TimerTask = (AbortHandle, Option<FixedReservation>);

/// A subscription to another topic, and what is reserved for it.
pub(super) struct Subscription {
    _membership: Membership,
    _memory: Option<FixedReservation>,
}

impl Resources {
    /// Calls `work` under the lock, which must not call foreign code. `None` if the channel has ended.
    pub(super) fn acquire<R>(&self, work: impl FnOnce(&mut Acquired) -> R) -> Option<R> {
        let mut state = self.state.lock();
        if let State::None = *state {
            *state = State::Some(Box::default());
        }
        if let State::Some(acquired) = &mut *state { Some(work(acquired)) } else { None }
    }

    /// Removes the subscription to a topic.
    pub(super) fn unsubscribe(&self, topic: &str) {
        let mut state = self.state.lock();
        let State::Some(acquired) = &mut *state else { return };
        let all = &mut acquired.subscriptions;
        let removed = all.remove(topic);
        if all.len() < all.capacity() / 8 {
            all.shrink_to(2 * all.len());
        }
        drop(state);
        drop(removed);
    }

    /// Returns whether the channel has subscribed to a topic.
    pub(super) fn hears(&self, topic: &str) -> bool {
        matches!(&*self.state.lock(), State::Some(it) if it.subscriptions.contains_key(topic))
    }

    /// Counts a timer that has fired. The memory of the tasks that are done stays below that of the others.
    pub(super) fn count_fired(&self) {
        if let State::Some(acquired) = &mut *self.state.lock() {
            acquired.fired += 1;
            if acquired.fired > acquired.timers.len() / 2 {
                acquired.remove_done_timers();
            }
        }
    }

    /// Gives everything up: the channel has ended.
    pub(super) fn end(&self) {
        let state = std::mem::replace(&mut *self.state.lock(), State::Over);
        if let State::Some(acquired) = state {
            acquired.timers.iter().for_each(|(task, _)| task.abort());
        }
    }
}

impl Subscription {
    pub(super) fn new(membership: Membership, memory: Option<FixedReservation>) -> Self {
        Self { _membership: membership, _memory: memory }
    }
}

impl Acquired {
    /// Adds the task of a timer.
    pub(super) fn add_timer(&mut self, task: TimerTask) {
        if self.timers.len() == self.timers.capacity() {
            self.remove_done_timers();
            // As many again, so that all are looked at once per that many new ones.
            self.timers.reserve(self.timers.len().max(4));
        }
        self.timers.push(task);
    }

    fn remove_done_timers(&mut self) {
        self.fired = 0;
        self.timers.retain(|(task, _)| !task.is_finished());
        self.timers.shrink_to(2 * self.timers.len());
    }
}
