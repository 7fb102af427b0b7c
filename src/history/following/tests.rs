use bytes::Bytes;

use super::*;

const SEC: Duration = Duration::from_secs(1);

fn position(number: u64) -> Position {
    Position { epoch: 1, number }
}

fn kept(previous: u64, number: u64) -> Kept {
    Kept { position: position(number), previous, content: Bytes::from_static(b"content") }
}

/// A page up to a number, with the messages after another one by one.
fn page(numbers: impl Iterator<Item = u64>, last: u64) -> Page {
    let messages = numbers.map(|number| kept(number - 1, number)).collect();
    Page { messages, is_complete: true, last: position(last) }
}

fn at(number: u64) -> Page {
    page(0..0, number)
}

/// Listens to a topic that ends at a number.
fn heard(following: &mut Following<()>, topic: &str, number: u64) -> Id {
    let Listened::New(id, ()) = following.listen(topic, Duration::ZERO, || ()) else {
        panic!("it is new")
    };
    following.listened(id.clone());
    let read = following.next_read(Duration::ZERO).expect("the head is read");
    assert_eq!(read, Read { id: id.clone(), after: None });
    following.finish_read(&id, Some(at(number)), Duration::ZERO);
    assert_eq!(following.step(&id), Some(Step::Heard(())));
    assert_eq!(following.step(&id), None);
    id
}

/// Takes all steps, and returns the numbers of what is passed on, or why something is missing.
fn steps(following: &mut Following<()>, id: &Id) -> Vec<Result<u64, Cause>> {
    let mut steps = Vec::new();
    while let Some(step) = following.step(id) {
        match step {
            Step::Pass(message) => {
                following.passed(&id.topic, message.position);
                steps.push(Ok(message.position.number));
            }
            Step::Miss(cause) => steps.push(Err(cause)),
            Step::Heard(()) => {}
        }
    }
    steps
}

fn pass(following: &mut Following<()>, topic: &str, message: Kept) -> bool {
    let next = following.kept(topic, message);
    if let Some(message) = &next {
        following.passed(topic, message.position);
    }
    next.is_some()
}

#[test]
fn what_follows_is_passed_on_at_once_and_each_message_once() {
    let mut following = Following::new();
    heard(&mut following, "t", 5);
    assert!(pass(&mut following, "t", kept(5, 6)));
    assert!(!pass(&mut following, "t", kept(5, 6)));
    assert!(!pass(&mut following, "t", kept(3, 4)));
    assert!(pass(&mut following, "t", kept(6, 9)));
    assert!(!pass(&mut following, "other", kept(0, 10)), "nobody listens to it");
    assert_eq!((following.last("t"), following.delivered()), (Some(position(9)), 9));
    assert_eq!(following.next_read(SEC), None);
}

#[test]
fn what_is_missing_is_read_while_what_comes_waits() {
    let mut following = Following::new();
    let id = heard(&mut following, "t", 5);
    assert!(!pass(&mut following, "t", kept(6, 7)));
    let read = following.next_read(SEC).expect("a read");
    assert_eq!(read.after, Some(position(5)));
    assert!(!pass(&mut following, "t", kept(7, 8)));
    assert_eq!(following.delivered(), 0, "nothing after the head was passed on");
    following.finish_read(&id, Some(page(6..8, 7)), SEC);
    assert_eq!(steps(&mut following, &id), [Ok(6), Ok(7), Ok(8)]);
    assert!(pass(&mut following, "t", kept(8, 9)));
    assert_eq!((following.next_read(SEC), following.waiting), (None, 0));
}

#[test]
fn after_an_interruption_every_topic_is_read_and_a_read_under_way_once_more() {
    let mut following = Following::new();
    let [a, b] = ["a", "b"].map(|topic| heard(&mut following, topic, 5));
    following.interrupted(SEC);
    let read = following.next_read(SEC).expect("a read");
    assert_eq!(read.id, a);
    following.interrupted(SEC);
    assert_eq!(following.next_read(SEC).map(|read| read.id), Some(b.clone()));
    following.finish_read(&b, Some(at(5)), SEC);
    assert_eq!(steps(&mut following, &b), []);
    following.finish_read(&a, Some(page(6..7, 6)), SEC);
    assert_eq!(steps(&mut following, &a), [Ok(6)]);
    let again = following.next_read(SEC).expect("a read");
    assert_eq!((again.id, again.after), (a, Some(position(6))));
}

#[test]
fn long_histories_are_read_in_pages() {
    let mut following = Following::new();
    let id = heard(&mut following, "t", 5);
    following.interrupted(SEC);
    for (first, end) in [(6, 8), (8, 10)] {
        let read = following.next_read(SEC).expect("a page is read");
        assert_eq!(read.after, Some(position(first - 1)));
        following.finish_read(&id, Some(page(first..end, 9)), SEC);
        assert_eq!(steps(&mut following, &id), [Ok(first), Ok(first + 1)]);
    }
    assert_eq!(following.next_read(SEC), None);
}

#[test]
fn what_is_forgotten_of_another_epoch_or_no_chain_is_missing() {
    let forgotten = Page { is_complete: false, ..page(8..10, 9) };
    let other = Page { last: Position { epoch: 2, number: 9 }, ..at(9) };
    let earlier = at(4);
    let broken = page([6, 8].into_iter(), 9);
    for page in [forgotten, other, earlier, broken] {
        let mut following = Following::new();
        let id = heard(&mut following, "t", 5);
        following.interrupted(SEC);
        following.next_read(SEC).expect("a read");
        let last = page.last;
        following.finish_read(&id, Some(page), SEC);
        assert_eq!(following.step(&id), Some(Step::Miss(Cause::Forgotten)));
        assert_eq!(following.last("t"), Some(position(5)), "until it is told");
        assert_eq!(following.step(&id), None);
        assert_eq!(following.last("t"), Some(last));
        let next = last.number + 1;
        let next = Kept { position: Position { number: next, ..last }, ..kept(last.number, next) };
        assert!(pass(&mut following, "t", next));
    }
}

#[test]
fn a_message_of_another_epoch_is_believed_once_the_store_was_read() {
    let mut following = Following::new();
    let id = heard(&mut following, "t", 5);
    let other = |number| Position { epoch: 2, number };
    assert!(!pass(&mut following, "t", Kept { position: other(1), ..kept(0, 1) }));
    following.next_read(SEC).expect("a read");
    following.finish_read(&id, Some(Page { last: other(1), ..at(1) }), SEC);
    assert_eq!(steps(&mut following, &id), [Err(Cause::Forgotten)]);
    assert_eq!(following.last("t"), Some(other(1)));
    // One of before is nothing new.
    assert!(!pass(&mut following, "t", kept(5, 6)));
    following.next_read(SEC).expect("a read");
    following.finish_read(&id, Some(Page { last: other(1), ..at(1) }), SEC);
    assert_eq!(steps(&mut following, &id), []);
    assert!(pass(&mut following, "t", Kept { position: other(2), ..kept(1, 2) }));
}

#[test]
fn who_reads_another_epoch_tells_of_it_and_the_old_one_is_not_passed_on_any_more() {
    let mut following = Following::new();
    let id = heard(&mut following, "t", 5);
    let other = |number| Position { epoch: 2, number };
    assert!(!following.saw("t", position(9)), "a later message is on its way");
    assert!(following.saw("t", other(1)));
    assert!(!pass(&mut following, "t", kept(5, 6)));
    following.next_read(SEC).expect("a read");
    following.finish_read(&id, Some(Page { last: other(1), ..at(1) }), SEC);
    assert_eq!(steps(&mut following, &id), [Err(Cause::Forgotten)]);
    assert_eq!(following.last("t"), Some(other(1)));
}

#[test]
fn reads_that_fail_are_made_again_more_and_more_rarely_until_something_waits_too_long() {
    let mut following = Following::new();
    let id = heard(&mut following, "t", 5);
    following.interrupted(SEC);
    let (mut now, mut reads) = (SEC, 0);
    while now < 61 * SEC {
        if following.next_read(now).is_some() {
            reads += 1;
            following.finish_read(&id, None, now);
            assert_eq!(steps(&mut following, &id), [], "nothing waits");
        }
        now += Duration::from_millis(50);
    }
    assert!((60..80).contains(&reads), "{reads} reads in a minute");
    assert!(!pass(&mut following, "t", kept(7, 8)));
    now += SEC;
    following.next_read(now).expect("a read");
    following.finish_read(&id, None, now);
    assert_eq!(steps(&mut following, &id), [Err(Cause::Unavailable), Ok(8)]);
    assert!(pass(&mut following, "t", kept(8, 9)));
}

#[test]
fn a_thousand_topics_are_read_many_at_a_time_and_few_while_the_store_is_away() {
    let mut following = Following::new();
    let names: Vec<_> = (0..1000).map(|number| number.to_string()).collect();
    for name in &names {
        heard(&mut following, name, 5);
    }
    following.interrupted(SEC);
    let out = |following: &mut Following<()>, now| -> Vec<_> {
        std::iter::from_fn(|| following.next_read(now)).collect()
    };
    let first = out(&mut following, SEC);
    assert_eq!(first.len(), READS);
    for Read { id, .. } in &first {
        following.finish_read(id, None, SEC);
        steps(&mut following, id);
    }
    assert_eq!(out(&mut following, SEC).len(), 0);
    // The engine is back.
    following.interrupted(2 * SEC);
    let mut rounds = 0;
    loop {
        let round = out(&mut following, 2 * SEC);
        if round.is_empty() {
            break;
        }
        rounds += 1;
        for Read { id, .. } in &round {
            following.finish_read(id, Some(at(5)), 2 * SEC);
            steps(&mut following, id);
        }
    }
    assert_eq!(rounds, 1000_usize.div_ceil(READS));
}

#[test]
fn what_there_is_no_room_for_is_read() {
    let mut following = Following::new();
    let id = heard(&mut following, "t", 5);
    following.interrupted(SEC);
    following.next_read(SEC).expect("a read");
    for number in 7..20 {
        let content = Bytes::from(vec![0; 200 << 10]);
        assert!(!pass(&mut following, "t", Kept { content, ..kept(number - 1, number) }));
    }
    assert!(following.waiting <= 1 << 20);
    following.finish_read(&id, Some(page(6..7, 6)), SEC);
    assert_eq!(steps(&mut following, &id), (6..12).map(Ok).collect::<Vec<_>>());
    assert_eq!(following.waiting, 0);
    assert_eq!(following.next_read(SEC).map(|read| read.after), Some(Some(position(11))));
    following.finish_read(&id, Some(page(12..20, 19)), SEC);
    assert_eq!(steps(&mut following, &id), (12..20).map(Ok).collect::<Vec<_>>());
    assert_eq!(following.next_read(SEC), None);
}

#[test]
fn a_topic_that_is_heard_too_late_says_so_to_those_who_have_joined() {
    let mut following = Following::new();
    let Listened::New(id, ()) = following.listen("t", Duration::ZERO, || ()) else { panic!() };
    following.listened(id.clone());
    following.next_read(SEC).expect("a read");
    following.finish_read(&id, None, SEC);
    assert_eq!(following.step(&id), None);
    assert_eq!(following.last("t"), None);
    assert!(matches!(following.listen("t", SEC, || ()), Listened::Unheard(())));
    following.next_read(2 * SEC).expect("a read");
    following.finish_read(&id, Some(at(5)), 2 * SEC);
    assert_eq!(following.step(&id), Some(Step::Miss(Cause::Unheard)));
    assert_eq!(following.step(&id), Some(Step::Heard(())));
    assert_eq!(following.last("t"), Some(position(5)));
}

#[test]
fn a_topic_without_subscribers_is_ignored_after_a_while_and_a_late_read_of_it_counts_for_nothing() {
    let mut following = Following::new();
    let id = heard(&mut following, "t", 5);
    assert!(!pass(&mut following, "t", kept(8, 9)));
    following.next_read(SEC).expect("a read");
    assert!(following.quiet(9 * SEC).is_empty());
    assert_eq!(following.quiet(10 * SEC), ["t"]);
    following.listen("t", 10 * SEC, || ());
    assert!(!following.ignore("t", 10 * SEC), "it is about to have one");
    assert!(following.ignore("t", 20 * SEC));
    assert_eq!((following.waiting, following.last("t")), (0, None));
    let Listened::New(new, ()) = following.listen("t", 20 * SEC, || ()) else { panic!() };
    following.finish_read(&id, Some(page(6..10, 9)), 20 * SEC);
    assert_eq!(following.step(&id), None);
    assert_ne!(id, new);
    assert_eq!((following.last("t"), following.reading), (None, 0));
}

#[test]
fn what_was_passed_on_does_not_come_again_although_the_store_cannot_be_read_for_long() {
    let mut following = Following::new();
    let id = heard(&mut following, "t", 5);
    assert!(pass(&mut following, "t", kept(5, 6)));
    following.interrupted(Duration::ZERO);
    let fail = |following: &mut Following<()>, now| {
        following.next_read(now).expect("a read");
        following.finish_read(&id, None, now);
        following.step(&id)
    };
    // It is handed over once more, and then something behind a hole.
    assert!(!pass(&mut following, "t", kept(5, 6)));
    assert_eq!((following.waiting, fail(&mut following, SEC)), (0, None));
    assert_eq!(fail(&mut following, 40 * SEC), None, "nothing waits");
    assert!(!pass(&mut following, "t", kept(8, 9)));
    assert_eq!(fail(&mut following, 50 * SEC), Some(Step::Miss(Cause::Unavailable)));
    assert_eq!(following.step(&id), Some(Step::Pass(kept(8, 9))));
}

#[test]
fn nothing_is_missing_whatever_the_store_does() {
    for seed in 1..=500_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        let steps: Vec<_> = (0..200).map(|_| next()).collect();
        if let Err(panic) = std::panic::catch_unwind(|| model::walk(&steps)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
