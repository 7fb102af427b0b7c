use super::*;

const DAY: Duration = QUIET;

fn keep(messages: usize, bytes: usize, within: Duration) -> Keep {
    Keep { messages, bytes, within }
}

fn rings(limit: usize, keeps: &[Keep]) -> Rings {
    Rings::new(7, limit, keeps.iter().copied())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn at(number: u64) -> Position {
    Position { epoch: 7, number }
}

fn content(len: usize) -> Bytes {
    vec![0; len].into()
}

fn numbers(page: &Page) -> Vec<u64> {
    page.messages.iter().map(|message| message.position.number).collect()
}

/// Reads everything after a position.
fn after(rings: &mut Rings, topic: &str, number: u64, now: u64) -> (Vec<u64>, bool) {
    let page = rings.read(topic, 0, Since::After(at(number)), usize::MAX, seconds(now));
    (numbers(&page), page.is_complete)
}

#[test]
fn the_newest_messages_are_kept_and_each_names_the_one_before_it() {
    let mut rings = rings(1 << 20, &[keep(3, 1000, DAY)]);
    for topic in ["a", "b", "a", "a", "b", "a"] {
        rings.append(&topic.into(), 0, content(1), seconds(0));
    }
    let page = rings.read("a", 0, Since::Newest, 10, seconds(0));
    let chain = page.messages.iter().map(|message| (message.previous, message.position.number));
    assert_eq!(chain.collect::<Vec<_>>(), [(1, 3), (3, 4), (4, 6)]);
    assert_eq!(page.last, at(6));
    assert_eq!(after(&mut rings, "a", 0, 0), (vec![3, 4, 6], false));
    assert_eq!(after(&mut rings, "a", 1, 0), (vec![3, 4, 6], true));
    assert_eq!(after(&mut rings, "a", 4, 0), (vec![6], true));
    assert_eq!(after(&mut rings, "a", 6, 0), (vec![], true));
    assert_eq!(after(&mut rings, "a", 7, 0), (vec![], false), "a number that was never given");
    assert_eq!(after(&mut rings, "b", 0, 0), (vec![2, 5], true));
}

#[test]
fn pages_go_back_to_what_was_forgotten() {
    let mut rings = rings(1 << 20, &[keep(5, 1000, DAY)]);
    for _ in 0..7 {
        rings.append(&"a".into(), 0, content(1), seconds(0));
    }
    let mut before = |number, limit| {
        let page = rings.read("a", 0, Since::Before(at(number)), limit, seconds(0));
        (numbers(&page), page.is_complete)
    };
    assert_eq!(before(7, 3), (vec![4, 5, 6], true));
    assert_eq!(before(4, 3), (vec![3], true));
    assert_eq!(before(3, 3), (vec![], false));
    let page = rings.read("a", 0, Since::Newest, 2, seconds(0));
    assert_eq!((numbers(&page), page.is_complete), (vec![6, 7], true));
    let foreign = Position { epoch: 8, number: 5 };
    for since in [Since::After(foreign), Since::Before(foreign)] {
        let page = rings.read("a", 0, since, 9, seconds(0));
        assert!(page.messages.is_empty() && !page.is_complete, "{since:?}");
    }
}

#[test]
fn a_message_that_is_larger_than_all_that_may_be_kept_is_kept_alone() {
    let mut rings = rings(10, &[keep(9, 10, DAY)]);
    for number in 1..4 {
        rings.append(&"a".into(), 0, content(100), seconds(0));
        assert_eq!(after(&mut rings, "a", number - 1, 0), (vec![number], true));
    }
}

#[test]
fn the_position_of_a_quiet_topic_outlives_its_messages_by_a_day() {
    let mut rings = rings(1 << 20, &[keep(9, 1000, seconds(60))]);
    rings.append(&"quiet".into(), 0, content(1), seconds(0));
    rings.append(&"other".into(), 0, content(1), seconds(59));
    assert_eq!(after(&mut rings, "quiet", 0, 59), (vec![1], true));
    assert_eq!(after(&mut rings, "quiet", 0, 60), (vec![], false));
    assert_eq!(after(&mut rings, "quiet", 1, 60), (vec![], true));
    let day = QUIET.as_secs();
    rings.append(&"other".into(), 0, content(1), seconds(day + 59));
    assert_eq!((rings.len(), after(&mut rings, "quiet", 1, day + 59)), (2, (vec![], true)));
    rings.append(&"other".into(), 0, content(1), seconds(day + 60));
    assert_eq!(rings.len(), 1);
    // It has missed nothing.
    assert_eq!(after(&mut rings, "quiet", 1, day + 60), (vec![], true));
    assert_eq!(after(&mut rings, "quiet", 0, day + 60), (vec![], false));
}

#[test]
fn a_topic_without_messages_has_a_position() {
    let mut rings = rings(1 << 20, &[keep(9, 1000, DAY)]);
    rings.append(&"other".into(), 0, content(1), seconds(0));
    let head = rings.read("new", 0, Since::Newest, 1, seconds(0)).last;
    assert_eq!(head, at(1));
    rings.append(&"new".into(), 0, content(1), seconds(0));
    assert_eq!(after(&mut rings, "new", head.number, 0), (vec![2], true));
}

#[test]
fn topics_that_have_been_quiet_for_longest_are_forgotten_first() {
    let one = ring_cost(&"a".into()) + cost(&content(100));
    let mut rings = rings(3 * one, &[keep(9, 1000, DAY), keep(9, 1000, DAY)]);
    for (topic, group) in [("a", 0), ("b", 1), ("c", 0), ("d", 1)] {
        rings.append(&topic.into(), group, content(100), seconds(0));
    }
    assert_eq!((rings.len(), rings.take_displaced(), rings.take_displaced()), (3, 1, 0));
    // Seen as a gap by those who have missed it, and by no other topic of which something is kept.
    assert_eq!(after(&mut rings, "a", 0, 0), (vec![], false));
    assert_eq!(after(&mut rings, "c", 0, 0), (vec![3], true));
    // A topic of which nothing was ever kept cannot be told from one that was forgotten.
    assert_eq!(after(&mut rings, "e", 0, 0), (vec![], false));
    // When it begins again, what was forgotten is missing still.
    rings.append(&"a".into(), 0, content(1), seconds(0));
    assert_eq!(after(&mut rings, "a", 0, 0), (vec![5], false));
    assert_eq!(after(&mut rings, "a", 1, 0), (vec![5], true));
}

#[test]
fn many_topics_that_become_old_at_once_are_forgotten_by_later_writes() {
    let mut rings = rings(1 << 30, &[keep(9, 1000, seconds(60))]);
    for topic in 0..1000 {
        rings.append(&format!("t:{topic}").into(), 0, content(100), seconds(0));
    }
    let full = rings.bytes();
    for _ in 0..1000 {
        rings.append(&"busy".into(), 0, content(1), seconds(100));
    }
    assert!(rings.len() == 1001 && rings.bytes() < full - 100_000, "{}", rings.bytes());
    for _ in 0..1000 {
        rings.append(&"busy".into(), 0, content(1), seconds(200) + QUIET);
    }
    assert_eq!(rings.len(), 1);
    rings.sweep(seconds(400) + 3 * QUIET, 10);
    assert_eq!((rings.len(), rings.bytes()), (0, 0));
}

/// A generator of numbers for the model.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// All that was ever kept, in its order.
#[derive(Default)]
struct Model(Vec<(usize, u64, usize, Duration)>);

impl Model {
    /// What a topic has after a number.
    fn after(&self, topic: usize, number: u64) -> Vec<u64> {
        let all = self.0.iter().filter(|(of, at, ..)| *of == topic && *at > number);
        all.map(|(_, at, ..)| *at).collect()
    }

    /// How many of the newest messages of a topic its pattern allows.
    fn allowed(&self, topic: usize, keep: &Keep, now: Duration) -> usize {
        let (mut count, mut bytes) = (0, 0);
        for (_, _, len, at) in self.0.iter().rev().filter(|(of, ..)| *of == topic) {
            bytes += len;
            let is_too_much = count > 0 && (count >= keep.messages || bytes > keep.bytes);
            if is_too_much || now - *at >= keep.within {
                break;
            }
            count += 1;
        }
        count
    }
}

#[test]
fn nothing_is_missing_where_nothing_is_said_to_be() {
    for seed in 0..24 {
        let mut random = Random(seed);
        let keeps = [keep(5, 300, seconds(50)), keep(1000, 100, seconds(20)), keep(9, 1000, DAY)];
        // In a third of the runs nothing is forgotten for other topics.
        let limit = [1 << 30, 4000, 1500][seed as usize % 3];
        let mut rings = rings(limit, &keeps);
        let (mut model, mut now, mut incomplete) = (Model::default(), Duration::ZERO, 0);
        for _ in 0..1500 {
            let topic = random.below(12);
            let (group, name) = (topic % 3, format!("topic {topic}"));
            now += seconds([0, 0, 0, 1, 30][random.below(5)]);
            if random.below(400) == 0 {
                now += DAY + DAY;
            }
            if random.below(3) > 0 {
                let len = random.below(120);
                let (position, previous) =
                    rings.append(&name.as_str().into(), group, content(len), now);
                assert!(previous < position.number);
                model.0.push((topic, position.number, len, now));
                assert!(rings.bytes() <= limit || rings.len() == 1);
                continue;
            }
            let last = model.0.last().map_or(0, |(_, number, ..)| *number);
            let from = random.below(last as usize + 1) as u64;
            let page = rings.read(&name, group, Since::After(at(from)), usize::MAX, now);
            let (expected, found) = (model.after(topic, from), numbers(&page));
            let allowed = model.allowed(topic, &keeps[group], now);
            assert!(expected.ends_with(&found), "{seed}: {found:?} of {expected:?}");
            assert!(found.len() <= allowed, "{seed}");
            if limit == 1 << 30 {
                assert_eq!(found.len(), expected.len().min(allowed), "{seed}");
            }
            if page.is_complete {
                assert_eq!(found, expected, "{seed}");
            } else {
                incomplete += 1;
            }
            let chain = page.messages.windows(2);
            assert!(chain.into_iter().all(|it| it[1].previous == it[0].position.number));
            assert!(page.messages.first().is_none_or(|it| it.previous < it.position.number));
        }
        assert!(incomplete > 0, "{seed}: the model proves nothing");
        let held = rings.topics.iter().map(|(name, ring)| {
            ring_cost(name) + ring.messages.iter().map(|it| cost(&it.content)).sum::<usize>()
        });
        assert_eq!(held.sum::<usize>(), rings.bytes(), "{seed}");
        let places = rings.groups.iter().map(|group| group.order.len()).sum::<usize>();
        assert_eq!(places, rings.len());
    }
}
