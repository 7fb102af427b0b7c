//! The records that an engine keeps.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tower_channels::adapter::{Record, Replaced, Revision, Store, StoreError};

use super::node::{Node, PATIENCE, eventually};
use super::{Harness, Settings, World};

/// Longer than any test.
const TTL: Duration = Duration::from_secs(600);

/// Within this a call has to end that may take a second: more, as the machine may be busy.
const SOON: Duration = Duration::from_secs(10);

/// The records of a node, as soon as they can be used.
async fn store(node: &Node) -> &dyn Store {
    let store = node.adapter.store().expect("an engine that keeps records");
    eventually("records", async || store.read("ready").await.is_ok()).await;
    store
}

async fn read(store: &dyn Store, key: &str) -> Option<Record> {
    let record = timeout(PATIENCE, store.read(key)).await.expect("an end of read");
    record.expect("an engine that answers")
}

async fn replace(
    store: &dyn Store,
    key: &str,
    seen: Option<Revision>,
    value: Option<Bytes>,
) -> Replaced {
    let replaced = timeout(PATIENCE, store.replace(key, seen, value, TTL)).await;
    replaced.expect("an end of replace").expect("an engine that answers")
}

/// Writes a record where this must be possible.
async fn put(
    store: &dyn Store,
    key: &str,
    seen: Option<Revision>,
    value: impl Into<Bytes>,
) -> Revision {
    match replace(store, key, seen, Some(value.into())).await {
        Replaced::Yes(revision) => revision,
        Replaced::No(there) => panic!("{key}, seen {seen:?}: {there:?} is there"),
    }
}

/// Removes a record where this must be possible.
async fn remove(store: &dyn Store, key: &str, seen: Revision) {
    let removed = replace(store, key, Some(seen), None).await;
    assert!(matches!(removed, Replaced::Yes(_)), "{key}, seen {seen:?}: {removed:?}");
}

fn record(value: &'static str, revision: Revision) -> Record {
    Record { value: value.into(), revision }
}

/// Polls all until they are done.
async fn all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    let mut done = Vec::new();
    poll_fn(|context| {
        for slot in &mut running {
            if let Some(future) = slot
                && let Poll::Ready(output) = Pin::new(future).poll(context)
            {
                done.push(output);
                *slot = None;
            }
        }
        if running.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done
}

/// Asserts that a call ends, and with an error.
async fn fails<T>(what: &str, call: impl Future<Output = Result<T, StoreError>>) {
    let ended = timeout(SOON, pin!(call)).await;
    let result = ended.unwrap_or_else(|_| panic!("{what} has not ended within {SOON:?}"));
    assert!(result.is_err(), "{what} succeeds without an engine");
}

pub async fn a_record_that_one_node_writes_is_read_replaced_and_removed_by_another<H: Harness>(
    world: World<H>,
) {
    let [a, b] = world.nodes().await;
    let (a, b) = (store(&a).await, store(&b).await);
    for store in [a, b] {
        assert_eq!(read(store, "k").await, None);
    }
    let first = put(a, "k", None, "one").await;
    for store in [a, b] {
        assert_eq!(read(store, "k").await, Some(record("one", first)));
    }
    let second = put(b, "k", Some(first), "two").await;
    for store in [a, b] {
        assert_eq!(read(store, "k").await, Some(record("two", second)));
    }
    remove(a, "k", second).await;
    for store in [a, b] {
        assert_eq!(read(store, "k").await, None);
    }
    let nothing = replace(a, "k", None, None).await;
    assert!(matches!(nothing, Replaced::Yes(_)), "{nothing:?}");
    assert_eq!(read(b, "k").await, None);
}

pub async fn a_replacement_that_has_seen_another_record_is_refused_and_shown_it<H: Harness>(
    world: World<H>,
) {
    let [a, b] = world.nodes().await;
    let (a, b) = (store(&a).await, store(&b).await);
    let refused = async |store: &dyn Store, seen, there: Option<Record>| {
        for value in [Some(Bytes::from("x")), None] {
            let expected = Replaced::No(there.clone());
            assert_eq!(replace(store, "k", seen, value).await, expected);
        }
        assert_eq!(read(a, "k").await, there);
    };
    refused(a, Some(Revision(77)), None).await;
    let first = put(a, "k", None, "one").await;
    refused(b, None, Some(record("one", first))).await;
    refused(b, Some(Revision(first.0 ^ 1)), Some(record("one", first))).await;
    let second = put(a, "k", Some(first), "one").await;
    refused(b, Some(first), Some(record("one", second))).await;
    remove(b, "k", second).await;
    refused(a, Some(second), None).await;
    let third = put(a, "k", None, "three").await;
    refused(b, Some(second), Some(record("three", third))).await;
}

pub async fn one_of_fifty_that_race_for_a_record_wins<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    let stores = [store(&a).await, store(&b).await];
    let mut seen = None;
    // Absent, there, and absent again after a removal.
    for round in 0..9 {
        let racing = (0..50_usize).map(async |number| {
            let value = Bytes::from(format!("{round}: {number}"));
            let replaced = replace(stores[number % 2], "k", seen, Some(value.clone())).await;
            (value, replaced)
        });
        let results = all(racing).await;
        let there = read(stores[0], "k").await.expect("one has won");
        let mut winners = 0;
        for (value, replaced) in results {
            match replaced {
                Replaced::Yes(revision) => {
                    winners += 1;
                    assert_eq!(there, Record { value, revision });
                }
                Replaced::No(shown) => assert_eq!(shown.as_ref(), Some(&there)),
            }
        }
        assert_eq!(winners, 1, "round {round}");
        seen = Some(there.revision);
        if round % 3 == 2 {
            remove(stores[round % 2], "k", there.revision).await;
            seen = None;
        }
    }
}

pub async fn a_revision_is_not_repeated_after_a_removal<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    let stores = [store(&a).await, store(&b).await];
    let mut revisions = HashSet::new();
    for round in 0..6 {
        let first = put(stores[round % 2], "k", None, "same").await;
        let second = put(stores[(round + 1) % 2], "k", Some(first), "same").await;
        for revision in [first, second] {
            assert!(revisions.insert(revision), "{revision:?} again, in round {round}");
        }
        remove(stores[0], "k", second).await;
    }
}

pub async fn values_up_to_128_kib_are_kept_unchanged<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    let (a, b) = (store(&a).await, store(&b).await);
    let values = [0, 1, 256, 5000, 65_536, 128 << 10].map(|length| {
        let bytes =
            (0..length).map(|at: usize| u8::try_from((at ^ (at >> 8)) & 0xff).expect("8 bits"));
        Bytes::from_iter(bytes)
    });
    let mut seen = None;
    for value in values {
        let revision = put(a, "k", seen, value.clone()).await;
        let there = Record { value, revision };
        assert!(read(b, "k").await == Some(there.clone()), "{} bytes", there.value.len());
        let refused = replace(b, "k", None, Some("x".into())).await;
        assert!(refused == Replaced::No(Some(there.clone())), "{} bytes", there.value.len());
        seen = Some(revision);
    }
    let too_large = Bytes::from(vec![0; (128 << 10) + 1]);
    assert!(a.replace("large", None, Some(too_large), TTL).await.is_err());
    assert_eq!(read(b, "large").await, None);
}

pub async fn records_with_different_keys_do_not_meet<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let store = store(&node).await;
    let long = "x".repeat(100);
    let keys = ["a", "A", "a.b", "a.b.c", "a-b", "a_b", "1.0.AZaz09_-", "b", &long];
    let mut written = Vec::new();
    for key in keys {
        written.push((key, put(store, key, None, key.to_owned()).await));
    }
    for (key, revision) in &written {
        let there = read(store, key).await.expect("it was written");
        assert_eq!((&there.value[..], there.revision), (key.as_bytes(), *revision));
    }
    remove(store, "a.b", written[2].1).await;
    assert!(read(store, "a").await.is_some() && read(store, "a.b.c").await.is_some());
}

pub async fn records_of_two_applications_do_not_meet<H: Harness>(world: World<H>) {
    let a = world.node().await;
    let b = world.node_with(Settings { app: "contract2", ..Settings::default() }).await;
    let (a, b) = (store(&a).await, store(&b).await);
    let one = put(a, "k", None, "one").await;
    assert_eq!(read(b, "k").await, None);
    let two = put(b, "k", None, "two").await;
    assert_eq!(read(a, "k").await, Some(record("one", one)));
    remove(a, "k", one).await;
    assert_eq!(read(b, "k").await, Some(record("two", two)));
}

pub async fn a_record_outlives_the_node_that_wrote_it<H: Harness>(world: World<H>) {
    let [a, b] = world.nodes().await;
    let revision = put(store(&a).await, "k", None, "one").await;
    drop(a);
    let b = store(&b).await;
    assert_eq!(read(b, "k").await, Some(record("one", revision)));
    put(b, "k", Some(revision), "two").await;
}

pub async fn a_record_is_forgotten_after_its_time<H: Harness>(world: World<H>) {
    let node = world.node().await;
    let store = store(&node).await;
    let brief = Duration::from_millis(100);
    let stays = put(store, "stays", None, "there").await;
    let seen = put(store, "k", None, "one").await;
    let shortened = store.replace("k", Some(seen), Some("two".into()), brief).await;
    let Ok(Replaced::Yes(shortened)) = shortened else { panic!("{shortened:?}") };
    eventually("the record to be forgotten", async || read(store, "k").await.is_none()).await;
    let refused = replace(store, "k", Some(shortened), Some("x".into())).await;
    assert_eq!(refused, Replaced::No(None));
    assert_ne!(put(store, "k", None, "three").await, shortened);
    assert_eq!(read(store, "stays").await, Some(record("there", stays)));
    // At once.
    let nothing = store.replace("none", None, Some("x".into()), Duration::ZERO).await;
    assert!(nothing.is_ok(), "{nothing:?}");
    eventually("the record to be forgotten", async || read(store, "none").await.is_none()).await;
    assert!(store.replace("ever", None, Some("x".into()), Duration::MAX).await.is_ok());
    assert!(read(store, "ever").await.is_some());
}

pub async fn calls_fail_soon_while_the_engine_is_dead<H: Harness>(mut world: World<H>) {
    let [a, b] = world.nodes().await;
    let (a, b) = (store(&a).await, store(&b).await);
    let seen = put(a, "k", None, "one").await;
    world.engine.kill().await;
    for _ in 0..3 {
        for store in [a, b] {
            fails("read", store.read("k")).await;
            fails("replace", store.replace("k", Some(seen), Some("two".into()), TTL)).await;
        }
    }
    let many = (0..1000).map(|_| fails("one of 1000 reads", a.read("k")));
    all(many).await;
}

pub async fn an_engine_that_is_back_without_records_keeps_new_ones<H: Harness>(
    mut world: World<H>,
) {
    let [a, b] = world.nodes().await;
    let (first, second) = {
        let store = store(&a).await;
        let first = put(store, "k", None, "one").await;
        (first, put(store, "k", Some(first), "one").await)
    };
    world.engine.kill().await;
    world.engine.restart().await;
    let (a, b) = (store(&a).await, store(&b).await);
    for store in [a, b] {
        assert_eq!(read(store, "k").await, None);
    }
    for seen in [first, second] {
        let refused = replace(b, "k", Some(seen), Some("x".into())).await;
        assert_eq!(refused, Replaced::No(None));
    }
    let third = put(b, "k", None, "one").await;
    let fourth = put(b, "k", Some(third), "one").await;
    for seen in [first, second] {
        assert!(seen != third && seen != fourth);
    }
    assert_eq!(read(a, "k").await, Some(record("one", fourth)));
}

pub async fn calls_over_a_stalled_line_fail_soon_and_work_when_it_is_healed<H: Harness>(
    world: World<H>,
) {
    let [a, b] = world.nodes().await;
    put(store(&b).await, "other", None, "there").await;
    let seen = put(store(&a).await, "k", None, "one").await;
    a.line.stall();
    let stalled = a.adapter.store().expect("it has one");
    fails("read", stalled.read("k")).await;
    all((0..300).map(|_| fails("one of 300 reads", stalled.read("k")))).await;
    assert_eq!(read(store(&b).await, "k").await, Some(record("one", seen)));
    a.line.heal();
    // It has to connect anew first, perhaps.
    assert!(read(store(&a).await, "other").await.is_some());
    put(store(&a).await, "k", Some(seen), "two").await;
}
