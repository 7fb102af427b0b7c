use tower_channels_transports::Memory;

use super::*;

const LIMIT: Limit = Limit { messages: 1000, bytes: 1000 };

fn windows(capacity: usize) -> Windows<u64> {
    Windows::new(&Memory::new(usize::MAX).account(), capacity)
}

fn at(number: u64) -> Position {
    Position { epoch: 7, number }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn item(number: u64, previous: u64) -> Item<u64> {
    Item { epoch: at(number).epoch, number, previous, bytes: 10, message: number }
}

fn push(windows: &Windows<u64>, topic: &str, number: u64, previous: u64, now: u64) {
    windows.push(topic, item(number, previous), seconds(now), &mut Vec::new());
}

/// What is read of messages with the numbers from `since` on.
fn read(since: u64, last: u64) -> Read<u64> {
    let messages = (since + 1..=last).map(|number| item(number, number - 1)).collect();
    Read { since, is_final: false, messages, last: at(last) }
}

fn complete(messages: &[u64], last: u64) -> Option<Found<u64>> {
    Some(Found { messages: messages.to_vec(), last: at(last), is_complete: true })
}

fn gap(last: u64) -> Option<Found<u64>> {
    Some(Found { messages: Vec::new(), last: at(last), is_complete: false })
}

/// Reads for one client.
fn fill(windows: &Windows<u64>, topic: &str, since: u64, last: u64, now: u64) {
    let topic = topic.into();
    let mut waiter = windows.wait(&topic, Some(at(since)));
    assert_eq!(waiter.begin(Some(at(since)), LIMIT), Some(at(since)));
    let found = waiter.finish(Some(at(since)), Some(read(since, last)), LIMIT, seconds(now));
    assert!(found.is_some_and(|found| found.is_complete));
}

#[test]
fn who_returns_later_finds_what_another_has_read_and_what_has_come_since() {
    let windows = windows(1 << 20);
    let find = |since, now| windows.find("t", Some(at(since)), seconds(now));
    assert_eq!(find(5, 0), None);
    fill(&windows, "t", 5, 8, 0);
    assert_eq!(find(5, 1), complete(&[6, 7, 8], 8));
    push(&windows, "t", 11, 8, 1);
    assert_eq!(find(7, 1), complete(&[8, 11], 11));
    assert_eq!(find(11, 1), complete(&[], 11));
    assert_eq!(windows.find("t", None, seconds(1)), complete(&[], 11));
    assert_eq!(find(4, 1), None, "from before what was read");
    assert_eq!(find(12, 1), None, "a number that nobody was given");
    assert_eq!(windows.find("t", Some(Position { epoch: 8, number: 7 }), seconds(1)), None);
    assert_eq!(find(7, 5), None, "too old");
    assert_eq!(windows.held(seconds(9)), 0);
}

#[test]
fn a_window_that_has_missed_a_message_is_given_up() {
    let windows = windows(1 << 20);
    fill(&windows, "t", 5, 8, 0);
    push(&windows, "t", 11, 10, 1);
    assert_eq!(windows.find("t", Some(at(7)), seconds(1)), None);
    assert_eq!(windows.held(seconds(1)), 0);
}

#[test]
fn a_window_is_given_up_when_another_epoch_begins() {
    let windows = windows(1 << 20);
    fill(&windows, "t", 5, 8, 0);
    // Its number is one of those that the window knows.
    let other = Item { epoch: 8, ..item(6, 0) };
    windows.push("t", other, seconds(1), &mut Vec::new());
    assert_eq!(windows.find("t", Some(at(8)), seconds(1)), None);
}

#[test]
fn one_read_begins_where_the_one_does_who_has_missed_most() {
    let windows = windows(1 << 20);
    let topic = "t".into();
    let foreign = Position { epoch: 8, number: 1 };
    let waiting = [Some(at(9)), Some(at(4)), Some(foreign), None];
    let others = waiting.map(|since| windows.wait(&topic, since));
    let mut first = windows.wait(&topic, Some(at(7)));
    assert_eq!(first.begin(Some(at(7)), LIMIT), Some(at(4)));
    push(&windows, "t", 11, 10, 0);
    let found = first.finish(Some(at(7)), Some(read(4, 10)), LIMIT, seconds(0));
    assert_eq!(found, complete(&[8, 9, 10, 11], 11));
    assert_eq!(windows.find("t", Some(at(4)), seconds(0)).map(|it| it.messages.len()), Some(7));
    drop((first, others));
}

#[test]
fn what_comes_while_it_is_read_is_there_once() {
    for last in 5..=9 {
        let windows = windows(1 << 20);
        let topic = "t".into();
        let mut waiter = windows.wait(&topic, Some(at(5)));
        let since = waiter.begin(Some(at(5)), LIMIT);
        for number in 6..=9 {
            push(&windows, "t", number, number - 1, 0);
        }
        let found = waiter.finish(since, Some(read(5, last)), LIMIT, seconds(0));
        assert_eq!(found, complete(&[6, 7, 8, 9], 9), "{last}");
    }
}

#[test]
fn what_is_no_chain_is_a_gap() {
    for (messages, last) in
        [(&[(6, 5), (8, 7)][..], 8), (&[(7, 6)], 7), (&[(6, 5), (7, 6)], 8), (&[(6, 5), (7, 6)], 6)]
    {
        let windows = windows(1 << 20);
        let topic = "t".into();
        let mut waiter = windows.wait(&topic, Some(at(5)));
        waiter.begin(Some(at(5)), LIMIT);
        let messages = messages.iter().map(|(number, previous)| item(*number, *previous)).collect();
        let read = Read { since: 5, is_final: false, messages, last: at(last) };
        let found = waiter.finish(Some(at(5)), Some(read), LIMIT, seconds(0));
        assert_eq!(found, gap(last));
    }
    // The chain of those that come meanwhile begins behind what was read.
    let windows = windows(1 << 20);
    let topic = "t".into();
    let mut waiter = windows.wait(&topic, Some(at(5)));
    waiter.begin(Some(at(5)), LIMIT);
    push(&windows, "t", 9, 8, 0);
    let found = waiter.finish(Some(at(5)), Some(read(5, 7)), LIMIT, seconds(0));
    assert_eq!(found, gap(7));
    assert_eq!(windows.find("t", Some(at(7)), seconds(0)), None);
}

#[test]
fn who_has_missed_more_than_may_be_sent_has_a_gap_and_others_have_not() {
    let limit = Limit { messages: 3, bytes: 1000 };
    for limit in [limit, Limit { messages: 1000, bytes: 39 }] {
        let windows = windows(1 << 20);
        let topic = "t".into();
        let mut waiter = windows.wait(&topic, Some(at(5)));
        waiter.begin(Some(at(5)), limit);
        let found = waiter.finish(Some(at(5)), Some(read(5, 10)), limit, seconds(0));
        assert_eq!(found, gap(10));
        let find = |since| windows.find("t", Some(at(since)), seconds(0));
        assert_eq!((find(2), find(6), find(7)), (gap(10), gap(10), complete(&[8, 9, 10], 10)));
        push(&windows, "t", 11, 10, 0);
        assert_eq!((find(7), find(8)), (gap(11), complete(&[9, 10, 11], 11)));
    }
}

#[test]
fn a_read_that_fails_fails_for_all_who_wait_for_it_and_one_that_is_cancelled_for_none() {
    let windows = windows(1 << 20);
    let topic = "t".into();
    let [mut first, mut second, third] = [1, 2, 3].map(|at_| windows.wait(&topic, Some(at(at_))));
    first.begin(Some(at(1)), LIMIT);
    drop(first);
    assert!(!second.has_failed());
    second.begin(Some(at(2)), LIMIT);
    assert_eq!(second.finish(Some(at(2)), None, LIMIT, seconds(0)), None);
    assert!(third.has_failed());
    assert!(!windows.wait(&topic, None).has_failed());
    drop((second, third));
    assert!(windows.state.lock().topics.is_empty());
}

#[test]
fn the_oldest_windows_make_room_for_others() {
    let windows = windows(3 * (SLOT + COPIES * 10));
    for topic in 0..5 {
        fill(&windows, &topic.to_string(), 5, 6, 0);
        assert!(windows.held(seconds(0)) <= windows.capacity);
    }
    let knows = |topic: &str| windows.find(topic, Some(at(5)), seconds(0)).is_some();
    assert_eq!(["0", "1", "2", "3", "4"].map(knows).iter().filter(|knows| **knows).count(), 3);
    assert_eq!(windows.state.lock().topics.len(), 3);
    for number in 7..1000 {
        push(&windows, "4", number, number - 1, 0);
        assert!(windows.held(seconds(0)) <= windows.capacity);
    }
}

#[test]
fn too_much_that_comes_while_it_is_read_is_a_gap() {
    let windows = windows(1 << 20);
    let topic = "t".into();
    let mut waiter = windows.wait(&topic, Some(at(5)));
    waiter.begin(Some(at(5)), LIMIT);
    for number in 7..200 {
        push(&windows, "t", number, number - 1, 0);
    }
    let found = waiter.finish(Some(at(5)), Some(read(5, 6)), LIMIT, seconds(0));
    assert!(found.is_some_and(|found| !found.is_complete));
}

#[test]
fn whatever_happens_between_nothing_is_missing_where_nothing_is_said_to_be() {
    for seed in 1..200_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |end: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % end
        };
        let limit = Limit { messages: 20, bytes: 150 };
        let windows = windows(4000);
        let topic = "t".into();
        // All messages, and how many are forgotten.
        let (mut all, mut forgotten, mut now) = (vec![0], 0, 0);
        let (mut reading, mut answers) = (None::<(Waiter<'_, u64>, u64, Option<Read<u64>>)>, 0);
        for _ in 0..500 {
            now += u64::from(random(8) == 0);
            let last = all[all.len() - 1];
            match random(6) {
                0 | 1 => {
                    let number = last + 1 + random(3);
                    // Now and then one does not come, and a later one shows it.
                    if random(30) > 0 {
                        push(&windows, "t", number, last, now);
                    }
                    all.push(number);
                }
                2 => forgotten = (forgotten + random(4) as usize).min(all.len() - 1),
                3 if reading.is_none() => {
                    let since = random(last + 1);
                    let mut waiter = windows.wait(&topic, Some(at(since)));
                    let oldest = waiter.begin(Some(at(since)), limit).expect("a position");
                    reading = Some((waiter, since, None));
                    assert!(oldest.number <= since);
                }
                4 => {
                    let Some((mut waiter, since, read)) = reading.take() else { continue };
                    let Some(read) = read else {
                        // The store reads at some moment between.
                        let start = since.max(all[forgotten]);
                        let messages = (1..all.len()).filter(|at| all[*at] > start);
                        let messages = messages.map(|at| item(all[at], all[at - 1])).collect();
                        let is_final = since < start;
                        let read = Read { since: start, is_final, messages, last: at(last) };
                        reading = Some((waiter, since, Some(read)));
                        continue;
                    };
                    let up_to = read.last.number;
                    let found = waiter.finish(Some(at(since)), Some(read), limit, seconds(now));
                    let found = found.expect("it did not fail");
                    if found.is_complete {
                        answers += 1;
                        check(&all, since, up_to, &found, seed);
                    }
                }
                _ => {
                    let since = random(last + 1);
                    if let Some(found) = windows.find("t", Some(at(since)), seconds(now))
                        && found.is_complete
                    {
                        answers += 1;
                        check(&all, since, 0, &found, seed);
                    }
                }
            }
        }
        assert!(answers > 10, "{seed}: {answers}");
    }
}

/// What was found is a part of all messages without a hole, from `since` on and at least up to `up_to`.
fn check(all: &[u64], since: u64, up_to: u64, found: &Found<u64>, seed: u64) {
    let expected = all.iter().filter(|number| **number > since && **number <= found.last.number);
    assert_eq!(found.messages, expected.copied().collect::<Vec<_>>(), "{seed}");
    assert!(found.last.number >= up_to, "{seed}");
}
