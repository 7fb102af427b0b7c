use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn sorted(registry: &Registry<u8>, name: &str) -> Vec<u8> {
    let mut members = registry.members(name);
    members.sort_unstable();
    members
}

#[test]
fn a_member_is_visited_until_it_is_dropped() {
    let registry = Arc::new(Registry::<u8>::new());
    let a = registry.add(&"t".into(), |()| 1);
    let b = registry.add(&"t".into(), |()| 2);
    assert_eq!(sorted(&registry, "t"), [1, 2]);
    drop(a);
    assert_eq!(sorted(&registry, "t"), [2]);
    assert!(sorted(&registry, "u").is_empty());
    drop(b);
    assert!(sorted(&registry, "t").is_empty());
}

#[test]
fn a_name_without_members_is_forgotten() {
    let registry = Arc::new(Registry::<u8>::new());
    for _ in 0..3 {
        drop(registry.add(&"t".into(), |()| 1));
    }
    assert_eq!(registry.shards.iter().map(|shard| shard.read().len()).sum::<usize>(), 0);
}

#[test]
fn what_comes_first_runs_before_the_member_can_be_visited() {
    let registry = Arc::new(Registry::<u8>::new());
    let mut ran = false;
    let member = registry.add(&"t".into(), |()| {
        ran = true;
        1
    });
    assert!(ran);
    drop(member);
}

#[test]
fn a_list_from_which_a_crowd_has_left_takes_no_more_room_than_before() {
    let mut list = WalkList::default();
    let keys: Vec<_> = (0..100_000).map(|value| list.insert(value)).collect();
    for key in &keys[1..] {
        list.remove(*key);
    }
    assert_eq!((list.values.len(), list.values.keys().next()), (1, Some(&keys[0])));
    assert!(list.values.capacity() < 16, "{}", list.values.capacity());
}

#[derive(Clone, Debug)]
enum Step {
    Visit,
    Join,
    Leave(Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Visit),
        2 => Just(Step::Join),
        3 => any::<Index>().prop_map(Step::Leave),
    ]
}

proptest! {
    /// Several walks one after the other, with joins and leaves in between and during each.
    #[test]
    fn a_walk_visits_every_value_that_stays_once(
        first in 0..20usize,
        walks in vec(vec(step(), 0..60), 1..4),
    ) {
        let mut list = WalkList::default();
        // The keys that are there, and how often the walk has visited each; newcomers have no
        // count.
        let mut there: BTreeMap<u64, Option<u32>> = BTreeMap::new();
        let join = |list: &mut WalkList<u64>| {
            let expected = list.last_key + 1;
            let key = list.insert(expected);
            assert_eq!(key, expected);
            key
        };
        for _ in 0..first {
            there.insert(join(&mut list), None);
        }
        for steps in walks {
            there.values_mut().for_each(|visits| *visits = Some(0));
            list.begin_walk();
            for step in steps {
                match step {
                    Step::Visit => {
                        if let Some(key) = list.next().map(|key| *key) {
                            let visits = there.get_mut(&key).expect("it has not left");
                            *visits.as_mut().expect("a newcomer is not visited") += 1;
                        }
                    }
                    Step::Join => {
                        there.insert(join(&mut list), None);
                    }
                    Step::Leave(which) if !there.is_empty() => {
                        let key = *which.get(&there.keys().copied().collect::<Vec<_>>());
                        there.remove(&key);
                        prop_assert_eq!(list.remove(key), Some(key));
                        prop_assert_eq!(list.remove(key), None);
                    }
                    Step::Leave(_) => {}
                }
                for (key, visits) in &there {
                    let (value, visited) = list.get_mut(*key).expect("it is there");
                    prop_assert_eq!((*value, visited), (*key, *visits != Some(0)));
                }
            }
            while let Some(key) = list.next().map(|key| *key) {
                *there.get_mut(&key).expect("it has not left").as_mut().expect("no newcomer") += 1;
            }
            prop_assert!(there.values().all(|visits| visits.is_none_or(|visits| visits == 1)));
        }
    }
}

#[test]
fn a_member_joins_and_leaves_while_a_walk_is_under_way() {
    const SIZE: usize = 20_000;
    let registry = Arc::new(Registry::<usize>::new());
    let members: Vec<_> = (0..SIZE).map(|n| registry.add(&"t".into(), |()| n)).collect();
    let (has_begun, joins) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (visited, joined) = thread::scope(|scope| {
        let walk = scope.spawn(|| {
            let mut visited = 0;
            let visit = |_: &mut usize, _: &mut ()| {
                visited += 1;
                if joins.load(Ordering::Relaxed) < 2 {
                    thread::sleep(Duration::from_millis(1));
                }
            };
            let begin = |(): &mut ()| has_begun.store(true, Ordering::Relaxed);
            registry.walk("t", begin, |_| (), visit, |()| ());
            (visited, joins.load(Ordering::Relaxed))
        });
        while !has_begun.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        while !walk.is_finished() {
            drop(registry.add(&"t".into(), |()| SIZE));
            joins.fetch_add(1, Ordering::Relaxed);
        }
        walk.join().expect("no panic")
    });
    assert_eq!(visited, SIZE);
    assert!(joined >= 2, "{joined} joins while it was under way");
    drop(members);
}
