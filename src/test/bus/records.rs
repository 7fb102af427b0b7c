//! The [`Store`] of a [`Bus`](super::Bus).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::engine::{Engine, Place};
use super::{BusAdapter, PATIENCE};
use crate::adapter::{BoxFuture, Record, Replaced, Revision, Store, StoreError};

/// What happens to a node's calls of the store. By default they are answered at once.
#[derive(Clone, Copy, Debug, Default)]
#[doc(hidden)]
pub struct StorePath {
    /// They are refused, and nothing is done.
    pub is_failing: bool,
    /// They are done at once and answered so much later, with an error if that is over a second.
    pub delay: Duration,
    /// The next so many are done and not answered, which is an error a second later.
    pub lose: u32,
}

/// The largest value, in bytes.
const MAX_VALUE: usize = 128 << 10;

/// The records, with time as an argument.
#[derive(Default)]
pub(super) struct Records {
    kept: BTreeMap<String, Kept>,
    /// Numbers every write. Never begins again, so that no revision is repeated.
    count: u64,
    paths: BTreeMap<Place, StorePath>,
}

struct Kept {
    record: Record,
    /// `None` if it is kept for longer than time can express.
    until: Option<Instant>,
}

impl Records {
    pub(super) fn forget(&mut self) {
        self.kept.clear();
    }

    pub(super) fn set_path(&mut self, place: Place, path: StorePath) {
        self.paths.insert(place, path);
    }

    pub(super) fn read(&mut self, key: &str, now: Instant) -> Option<Record> {
        let kept = self.kept.get(key)?;
        if kept.until.is_some_and(|until| until <= now) {
            self.kept.remove(key);
            return None;
        }
        Some(kept.record.clone())
    }

    pub(super) fn replace(
        &mut self,
        key: &str,
        seen: Option<Revision>,
        value: Option<Bytes>,
        ttl: Duration,
        now: Instant,
    ) -> Replaced {
        let there = self.read(key, now);
        if there.as_ref().map(|record| record.revision) != seen {
            return Replaced::No(there);
        }
        self.count += 1;
        let revision = Revision(self.count);
        match value {
            Some(value) => {
                let record = Record { value, revision };
                self.kept.insert(key.into(), Kept { record, until: now.checked_add(ttl) });
            }
            None => drop(self.kept.remove(key)),
        }
        Replaced::Yes(revision)
    }
}

impl BusAdapter {
    /// Does something with the records, unless they cannot be reached, and answers as the faults want it.
    async fn call<T>(&self, act: impl FnOnce(&mut Records) -> T) -> Result<T, StoreError> {
        let (done, wait) = self.bus.0.lock().call_store(self.place, act);
        if !wait.is_zero() {
            sleep(wait.min(PATIENCE)).await;
        }
        match done {
            Some(done) if wait < PATIENCE => Ok(done),
            None if wait.is_zero() => Err(StoreError::new("it is away")),
            _ => Err(StoreError::new("it does not answer")),
        }
    }
}

impl Engine {
    /// What was done, if it was, and how long the node waits until it knows.
    fn call_store<T>(
        &mut self,
        place: Place,
        act: impl FnOnce(&mut Records) -> T,
    ) -> (Option<T>, Duration) {
        let reachable = self.is_reachable(place);
        let path = self.records.paths.entry(place).or_default();
        match reachable {
            None => return (None, PATIENCE),
            Some(false) => return (None, Duration::ZERO),
            Some(true) if path.is_failing => return (None, Duration::ZERO),
            Some(true) => {}
        }
        let is_lost = path.lose > 0;
        path.lose = path.lose.saturating_sub(1);
        let wait = if is_lost { PATIENCE } else { path.delay };
        (Some(act(&mut self.records)), wait)
    }
}

impl Store for BusAdapter {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Record>, StoreError>> {
        Box::pin(self.call(|records| records.read(key, Instant::now())))
    }

    fn replace<'a>(
        &'a self,
        key: &'a str,
        seen: Option<Revision>,
        value: Option<Bytes>,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Replaced, StoreError>> {
        Box::pin(async move {
            if let Some(value) = value.as_ref().filter(|value| value.len() > MAX_VALUE) {
                return Err(StoreError::new(format!("a value of {} bytes", value.len())));
            }
            self.call(|records| records.replace(key, seen, value, ttl, Instant::now())).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Bus;
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const TTL: Duration = Duration::from_secs(60);

    async fn put(store: &BusAdapter, seen: Option<Revision>, value: &'static str) -> Replaced {
        store.replace("k", seen, Some(value.into()), TTL).await.unwrap()
    }

    async fn value(store: &BusAdapter) -> Option<Bytes> {
        store.read("k").await.unwrap().map(|record| record.value)
    }

    #[tokio::test(start_paused = true)]
    async fn all_nodes_see_one_record_and_replace_it_in_turn() {
        let bus = Bus::new();
        let (a, b) = (bus.adapter(), bus.adapter());
        let Replaced::Yes(first) = put(&a, None, "a").await else { panic!() };
        let there = Record { value: "a".into(), revision: first };
        assert_eq!(b.read("k").await, Ok(Some(there.clone())));
        assert_eq!(put(&b, None, "b").await, Replaced::No(Some(there)));
        let Replaced::Yes(second) = put(&b, Some(first), "b").await else { panic!() };
        assert!(matches!(put(&a, Some(first), "a").await, Replaced::No(Some(_))));
        assert!(matches!(b.replace("k", Some(second), None, TTL).await, Ok(Replaced::Yes(_))));
        assert_eq!(put(&a, Some(second), "a").await, Replaced::No(None));
        let Replaced::Yes(third) = put(&a, None, "a").await else { panic!() };
        assert!(![first, second].contains(&third));
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_forgotten_after_its_time_and_with_the_engine() {
        let bus = Bus::new();
        let store = bus.adapter();
        let Replaced::Yes(first) = put(&store, None, "a").await else { panic!() };
        sleep(TTL - MS).await;
        assert!(value(&store).await.is_some());
        sleep(MS).await;
        assert_eq!(value(&store).await, None);
        let Replaced::Yes(second) = put(&store, None, "a").await else { panic!() };
        bus.stop();
        assert!(store.read("k").await.is_err());
        bus.restart();
        assert!(value(&store).await.is_some());
        bus.forget_records();
        assert_eq!(value(&store).await, None);
        let Replaced::Yes(third) = put(&store, None, "a").await else { panic!() };
        assert!(first != second && second != third && third != first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_fails_is_late_or_is_done_without_an_answer() {
        let bus = Bus::new();
        let (a, b) = (bus.adapter(), bus.adapter());
        bus.set_store(a.place(), StorePath { is_failing: true, ..StorePath::default() });
        assert!(a.replace("k", None, Some("a".into()), TTL).await.is_err());
        assert_eq!(value(&b).await, None);

        bus.set_store(a.place(), StorePath { delay: 300 * MS, ..StorePath::default() });
        let began = Instant::now();
        assert!(matches!(put(&a, None, "a").await, Replaced::Yes(_)));
        assert_eq!(began.elapsed(), 300 * MS);

        bus.set_store(a.place(), StorePath { lose: 1, ..StorePath::default() });
        let there = b.read("k").await.unwrap().unwrap();
        let began = Instant::now();
        assert!(a.replace("k", Some(there.revision), Some("b".into()), TTL).await.is_err());
        assert_eq!(began.elapsed(), PATIENCE);
        assert_eq!(value(&a).await, Some("b".into()));

        bus.set_store(a.place(), StorePath { delay: 3 * PATIENCE, ..StorePath::default() });
        let began = Instant::now();
        assert!(a.read("k").await.is_err());
        assert_eq!(began.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_line_is_an_error_at_once_and_a_stalled_one_after_a_second() {
        let bus = Bus::new();
        let (a, b) = (bus.adapter(), bus.adapter());
        for (fault, wait) in [(Bus::cut as fn(&Bus, Place), Duration::ZERO), (Bus::stall, PATIENCE)]
        {
            fault(&bus, a.place());
            let began = Instant::now();
            assert!(a.read("k").await.is_err());
            assert_eq!(began.elapsed(), wait);
            assert!(b.read("k").await.is_ok());
            bus.heal(a.place());
            assert!(a.read("k").await.is_ok());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_has_at_most_128_kib() {
        let store = Bus::new().adapter();
        let largest = Bytes::from(vec![7; MAX_VALUE]);
        let larger = Bytes::from(vec![7; MAX_VALUE + 1]);
        assert!(store.replace("k", None, Some(larger), TTL).await.is_err());
        assert!(store.replace("k", None, Some(largest), TTL).await.is_ok());
    }
}
