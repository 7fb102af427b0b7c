//! [`Windows`]: reads of the store that clients share which return to a topic together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::sync::Mutex as Gate;
use tower_channels_transports::{Account, Reservation};

use super::position::Position;
use super::window::{Answer, Item, Limit, Window};

/// The windows of all topics that clients return to at the moment.
///
/// One of them reads for all. Until the window is too old, others find there what they have missed, also what has come
/// meanwhile.
pub(super) struct Windows<T> {
    state: Mutex<State<T>>,
    /// How many bytes all windows may take.
    capacity: usize,
}

struct State<T> {
    topics: HashMap<SmolStr, Slot<T>>,
    /// What all windows take.
    held: usize,
    reservation: Reservation,
    swept: Duration,
    last_key: u64,
}

struct Slot<T> {
    window: Option<(Window<T>, Duration)>,
    /// What comes while the store is read.
    fresh: Option<Fresh<T>>,
    /// Held by whoever reads.
    gate: Arc<Gate<()>>,
    /// Those who wait for a read, or make it, and where they begin.
    waiting: BTreeMap<u64, Option<Position>>,
    /// How many reads have failed.
    failures: u64,
}

struct Fresh<T> {
    items: Vec<Item<T>>,
    bytes: usize,
    limit: Limit,
    is_broken: bool,
}

/// What a client has missed.
#[derive(Debug, PartialEq)]
pub(super) struct Found<T> {
    pub(super) messages: Vec<T>,
    pub(super) last: Position,
    pub(super) is_complete: bool,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Read<T> {
    /// The number after which nothing is missing.
    pub(super) since: u64,
    /// Whether what precedes it is gone.
    pub(super) is_final: bool,
    pub(super) messages: Vec<Item<T>>,
    pub(super) last: Position,
}

/// Waits for a read, or makes it, until it is dropped.
pub(super) struct Waiter<'a, T: Clone> {
    windows: &'a Windows<T>,
    topic: &'a SmolStr,
    key: u64,
    pub(super) gate: Arc<Gate<()>>,
    failures: u64,
    is_reading: bool,
}

/// For how long a window is used: a message that is too old may be sent for so much longer.
const LIFETIME: Duration = Duration::from_secs(5);

/// What a window takes for each byte that a client receives: the message, and two ways to encode it.
const COPIES: usize = 3;

/// What a window takes beside.
const SLOT: usize = 512;

impl<T: Clone> Windows<T> {
    pub(super) fn new(account: &Arc<Account>, capacity: usize) -> Self {
        let state = State {
            topics: HashMap::new(),
            held: 0,
            reservation: Reservation::new(Arc::clone(account)),
            swept: Duration::ZERO,
            last_key: 0,
        };
        Self { state: Mutex::new(state), capacity }
    }

    /// Returns what all windows take that are not too old.
    pub(super) fn held(&self, now: Duration) -> usize {
        // What it holds is dropped after the lock.
        let mut dropped = Vec::new();
        let state = &mut *self.state.lock();
        state.sweep(now, &mut dropped);
        state.held
    }

    /// Takes a message that is delivered now. Called under the topic's lock. What is given up is left to the caller.
    pub(super) fn push(&self, topic: &str, item: Item<T>, now: Duration, dropped: &mut Vec<T>) {
        let state = &mut *self.state.lock();
        let Some(slot) = state.topics.get_mut(topic) else { return };
        if let Some(fresh) = &mut slot.fresh {
            fresh.push(item.clone(), dropped);
        }
        let before = slot.held();
        let is_of_use = slot
            .window
            .as_mut()
            .is_some_and(|(window, read)| !is_old(*read, now) && window.push(item, dropped));
        if !is_of_use {
            slot.give_up(dropped);
        }
        let after = slot.held();
        state.set_held(before, after);
        state.make_room(self.capacity, dropped);
    }

    /// Gives up what is known of a topic: messages are missing. What is being read of it is of no use either.
    pub(super) fn forget(&self, topic: &str) {
        // What it holds is dropped after the lock.
        let mut dropped = Vec::new();
        let state = &mut *self.state.lock();
        let Some(slot) = state.topics.get_mut(topic) else { return };
        let before = slot.held();
        slot.give_up(&mut dropped);
        if let Some(fresh) = &mut slot.fresh {
            fresh.is_broken = true;
        }
        state.set_held(before, 0);
    }

    /// Returns what has been missed since a position, or only where the topic ends, if a window knows it.
    pub(super) fn find(
        &self,
        topic: &str,
        since: Option<Position>,
        now: Duration,
    ) -> Option<Found<T>> {
        // What it holds is dropped after the lock.
        let mut dropped = Vec::new();
        let state = &mut *self.state.lock();
        state.sweep(now, &mut dropped);
        let (window, read) = state.topics.get(topic)?.window.as_ref()?;
        if is_old(*read, now) { None } else { find(window, since) }
    }

    /// Waits for its turn to read, by [`Waiter::gate`].
    pub(super) fn wait<'a>(&'a self, topic: &'a SmolStr, since: Option<Position>) -> Waiter<'a, T> {
        let state = &mut *self.state.lock();
        state.last_key += 1;
        let key = state.last_key;
        let slot = state.topics.entry(topic.clone()).or_default();
        slot.waiting.insert(key, since);
        let (gate, failures) = (Arc::clone(&slot.gate), slot.failures);
        Waiter { windows: self, topic, key, gate, failures, is_reading: false }
    }
}

impl<T: Clone> Waiter<'_, T> {
    /// Returns whether a read has failed for which it has waited.
    pub(super) fn has_failed(&self) -> bool {
        let state = self.windows.state.lock();
        state.topics.get(self.topic).is_some_and(|slot| slot.failures != self.failures)
    }

    /// Begins to read, with the gate locked. Returns from where, so that it serves all who wait: they have the same epoch.
    pub(super) fn begin(&mut self, since: Option<Position>, limit: Limit) -> Option<Position> {
        self.is_reading = true;
        let state = &mut *self.windows.state.lock();
        let slot = state.topics.get_mut(self.topic)?;
        slot.fresh = Some(Fresh { items: Vec::new(), bytes: 0, limit, is_broken: false });
        let epoch = since?.epoch;
        let all = slot.waiting.values().flatten().filter(|position| position.epoch == epoch);
        all.min_by_key(|position| position.number).copied()
    }

    /// Takes what was read, or `None` if that has failed, and returns what has been missed.
    pub(super) fn finish(
        &mut self,
        since: Option<Position>,
        read: Option<Read<T>>,
        limit: Limit,
        now: Duration,
    ) -> Option<Found<T>> {
        // What it holds is dropped after the lock.
        let mut dropped = Vec::new();
        let state = &mut *self.windows.state.lock();
        let slot = state.topics.get_mut(self.topic)?;
        self.is_reading = false;
        let fresh = slot.fresh.take()?;
        let before = slot.held();
        let Some(Read { since: start, is_final, messages, last }) = read else {
            slot.failures += 1;
            dropped.extend(fresh.items.into_iter().map(|item| item.message));
            return None;
        };
        let window = Window::of(start, is_final, messages, last, limit, &mut dropped);
        let mut window = window.unwrap_or_else(|| Window::at(last, limit));
        let mut is_chain = true;
        for item in fresh.items {
            is_chain &= window.push(item, &mut dropped);
        }
        let gap = Found { messages: Vec::new(), last: window.last(), is_complete: false };
        slot.give_up(&mut dropped);
        let found = if is_chain && !fresh.is_broken {
            let found = find(&window, since);
            slot.window = Some((window, now));
            found
        } else {
            dropped.extend(window.into_messages());
            None
        };
        let after = slot.held();
        state.set_held(before, after);
        let is_scarce = state.reservation.account().memory().is_scarce();
        let capacity = if is_scarce { 0 } else { self.windows.capacity };
        state.make_room(capacity, &mut dropped);
        Some(found.unwrap_or(gap))
    }
}

impl<T: Clone> Drop for Waiter<'_, T> {
    fn drop(&mut self) {
        // What it holds is dropped after the lock.
        let mut dropped = Vec::new();
        let state = &mut *self.windows.state.lock();
        let Some(slot) = state.topics.get_mut(self.topic) else { return };
        slot.waiting.remove(&self.key);
        if self.is_reading {
            let fresh = slot.fresh.take().into_iter();
            dropped.extend(fresh.flat_map(|fresh| fresh.items).map(|item| item.message));
        }
        if slot.waiting.is_empty() && slot.window.is_none() {
            state.topics.remove(self.topic);
        }
    }
}

impl<T> State<T> {
    /// Gives up the windows that are too old, at most once a second.
    fn sweep(&mut self, now: Duration, dropped: &mut Vec<T>) {
        if now.saturating_sub(self.swept) < Duration::from_secs(1) {
            return;
        }
        self.swept = now;
        let mut freed: usize = 0;
        self.topics.retain(|_, slot| {
            if slot.window.as_ref().is_some_and(|(_, read)| is_old(*read, now)) {
                freed = freed.saturating_add(slot.held());
                slot.give_up(dropped);
            }
            slot.window.is_some() || !slot.waiting.is_empty()
        });
        self.set_held(freed, 0);
    }

    /// Gives up the oldest windows until the rest fits.
    fn make_room(&mut self, capacity: usize, dropped: &mut Vec<T>) {
        while self.held > capacity {
            let all = self.topics.iter_mut();
            let windows =
                all.filter_map(|(topic, slot)| Some((slot.window.as_ref()?.1, topic, slot)));
            let oldest = windows.min_by_key(|(read, ..)| *read);
            let Some((_, topic, slot)) = oldest else { return };
            let (topic, before) = (topic.clone(), slot.held());
            slot.give_up(dropped);
            if slot.waiting.is_empty() {
                self.topics.remove(&topic);
            }
            self.set_held(before, 0);
        }
    }

    fn set_held(&mut self, before: usize, after: usize) {
        if before != after {
            self.held = self.held.saturating_sub(before).saturating_add(after);
            self.reservation.set(self.held);
        }
    }
}

impl<T> Slot<T> {
    /// What the window takes.
    fn held(&self) -> usize {
        let size = self.window.as_ref().map(|(window, _)| window.bytes());
        size.map_or(0, |bytes| bytes.saturating_mul(COPIES).saturating_add(SLOT))
    }

    fn give_up(&mut self, dropped: &mut Vec<T>) {
        let window = self.window.take();
        dropped.extend(window.into_iter().flat_map(|(window, _)| window.into_messages()));
    }
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            window: None,
            fresh: None,
            gate: Arc::default(),
            waiting: BTreeMap::new(),
            failures: 0,
        }
    }
}

impl<T> Fresh<T> {
    fn push(&mut self, item: Item<T>, dropped: &mut Vec<T>) {
        let Limit { messages, bytes } = self.limit;
        self.bytes = self.bytes.saturating_add(item.bytes);
        if self.is_broken || self.items.len() >= messages || self.bytes > bytes {
            self.is_broken = true;
            let all = std::mem::take(&mut self.items).into_iter().map(|item| item.message);
            dropped.extend(all.chain([item.message]));
        } else {
            self.items.push(item);
        }
    }
}

fn find<T: Clone>(window: &Window<T>, since: Option<Position>) -> Option<Found<T>> {
    let last = window.last();
    let (messages, is_complete) = match since.map(|since| window.after(since)) {
        None => (Vec::new(), true),
        Some(Answer::All(messages)) => (messages, true),
        Some(Answer::Gap) => (Vec::new(), false),
        Some(Answer::Unknown) => return None,
    };
    Some(Found { messages, last, is_complete })
}

fn is_old(read: Duration, now: Duration) -> bool {
    now.saturating_sub(read) >= LIFETIME
}

#[cfg(test)]
mod tests;
