use super::*;

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const ID: &str = "0123456789abcdefghij";
const SOCKET: u64 = 7;

fn held(generation: u64, seen: u64) -> Held {
    Held { generation, seen: Some(Revision(seen)), is_recorded: true }
}

fn unrecorded(generation: u64, seen: Option<u64>) -> Held {
    Held { generation, seen: seen.map(Revision), is_recorded: false }
}

/// One session with a record of generation 100 and revision 5.
fn recorded() -> Records {
    let mut records = Records::new(ME);
    records.own(&ID.into(), SOCKET, held(100, 5), 0);
    records
}

fn there(owner: NodeId, generation: u64, revision: u64) -> Answer {
    let value = SessionRecord::new(owner, generation, SOCKET).encode();
    Answer::There(Some(Record { value, revision: Revision(revision) }))
}

fn write(seen: Option<u64>, generation: u64) -> Call {
    let record = SessionRecord::new(ME, generation, SOCKET);
    Call::Write { seen: seen.map(Revision), record }
}

fn check(records: &mut Records) -> Task {
    records.check_all();
    let task = records.next_check().expect("a check");
    assert_eq!(task.call, Call::Read);
    task
}

/// What follows at once.
fn again(next: Next) -> Task {
    match next {
        Next::Again(task) => task,
        next => panic!("{next:?}"),
    }
}

fn is_idle(records: &mut Records) -> bool {
    records.next(u64::MAX).is_none() && records.owned.is_empty()
}

#[test]
fn a_record_is_written_again_every_20_minutes() {
    let mut records = recorded();
    let mut now = 0;
    for revision in 5..8 {
        assert!(records.next(now + REFRESH - 1).is_none());
        now += REFRESH;
        let task = records.next(now).expect("a refresh");
        assert_eq!(task.call, write(Some(revision), 100));
        assert!(records.next(now).is_none(), "it is being written");
        let next = records.done(task, Answer::Replaced(Revision(revision + 1)), now);
        assert!(matches!(next, Next::Nothing));
    }
}

#[test]
fn a_session_is_recorded_as_soon_as_the_store_is_back() {
    let mut records = Records::new(ME);
    records.own(&ID.into(), SOCKET, unrecorded(100, None), 0);
    assert_eq!(records.unrecorded(), 1);
    let mut now = 0;
    for pause in [1, 2, 4, 4, 4] {
        assert!(records.next(now + pause * 1000 - 1).is_none());
        now += pause * 1000;
        let task = records.next(now).expect("a try");
        assert_eq!(task.call, write(None, 100));
        assert!(matches!(records.done(task, Answer::Failed, now), Next::Nothing));
    }
    now += 4000;
    let task = records.next(now).expect("a try");
    records.done(task, Answer::Replaced(Revision(9)), now);
    assert_eq!(records.unrecorded(), 0);
    assert_eq!(records.forget(ID), Some(held(100, 9)));
}

#[test]
fn a_write_that_was_thought_lost_is_recognized() {
    let mut records = Records::new(ME);
    records.own(&ID.into(), SOCKET, unrecorded(100, None), 0);
    let task = records.next(1000).expect("a try");
    assert!(matches!(records.done(task, there(ME, 100, 9), 1000), Next::Nothing));
    assert_eq!(records.forget(ID), Some(held(100, 9)));
}

#[test]
fn a_session_that_was_taken_from_another_node_is_recorded_at_once() {
    let mut records = Records::new(ME);
    records.take(&ID.into(), SOCKET, unrecorded(100, Some(5)), 0);
    let task = records.next(0).expect("a try");
    assert_eq!(task.call, write(Some(5), 100));
    assert!(matches!(records.done(task, there(OTHER, 100, 6), 0), Next::End), "a later one");
    assert!(is_idle(&mut records));
}

#[test]
fn a_check_that_finds_everything_as_it_was_changes_nothing() {
    let mut records = recorded();
    let task = check(&mut records);
    assert!(records.next_check().is_none());
    assert!(matches!(records.done(task, there(ME, 100, 5), 50), Next::Nothing));
    assert!(records.next(REFRESH - 1).is_none());
    assert!(records.next(REFRESH).is_some());
}

#[test]
fn a_record_that_the_store_has_lost_is_written_again() {
    let mut records = recorded();
    let task = check(&mut records);
    let task = again(records.done(task, Answer::There(None), 0));
    assert_eq!((&task.call, records.unrecorded()), (&write(None, 100), 1));
    assert!(matches!(records.done(task, Answer::Replaced(Revision(9)), 0), Next::Nothing));
    assert_eq!(records.forget(ID), Some(held(100, 9)));
    assert_eq!(records.unrecorded(), 0);
}

#[test]
fn of_two_owners_the_one_with_the_higher_generation_is_right() {
    for theirs in [100, 101] {
        let mut records = recorded();
        let task = check(&mut records);
        assert!(matches!(records.done(task, there(OTHER, theirs, 6), 0), Next::End));
        assert!(is_idle(&mut records));
    }
    let mut records = recorded();
    let task = check(&mut records);
    let task = again(records.done(task, there(OTHER, 99, 6), 0));
    assert_eq!(task.call, write(Some(6), 100));
    let next = records.done(task, Answer::Replaced(Revision(7)), 0);
    assert!(matches!(next, Next::Tell { loser: OTHER, generation: 100 }));
}

#[test]
fn what_another_release_has_written_is_replaced() {
    let mut records = recorded();
    let task = check(&mut records);
    let garbage = Record { value: "\x02".into(), revision: Revision(6) };
    let task = again(records.done(task, Answer::There(Some(garbage)), 0));
    assert_eq!(task.call, write(Some(6), 100));
}

#[test]
fn a_check_that_fails_is_repeated() {
    let mut records = recorded();
    let task = check(&mut records);
    assert!(matches!(records.done(task, Answer::Failed, 0), Next::Nothing));
    assert!(records.next(1999).is_none());
    assert_eq!(records.next(2000).map(|task| task.call), Some(write(Some(5), 100)));
}

#[test]
fn a_check_reaches_every_session_and_begins_anew_if_there_is_another_reason() {
    let mut records = Records::new(ME);
    for number in 0..5 {
        records.own(&format!("{number}").into(), SOCKET, held(100, number), 0);
    }
    let mut checked = |count| {
        let mut ids = Vec::new();
        for _ in 0..count {
            let Some(task) = records.next_check() else { break };
            ids.push(task.id.to_string());
            let revision = task.id.parse().expect("a number");
            records.done(task, there(ME, 100, revision), 0);
        }
        if count == 3 {
            records.check_all();
        }
        ids
    };
    assert!(checked(3).is_empty());
    assert_eq!(checked(3), ["0", "1", "2"]);
    assert_eq!(checked(9), ["0", "1", "2", "3", "4"]);
    assert!(checked(9).is_empty());
}

#[test]
fn a_session_belongs_to_a_socket_id() {
    let mut records = recorded();
    assert!(records.is_of_another(ID, SOCKET + 1));
    assert!(!records.is_of_another(ID, SOCKET));
    records.release(ID, 0);
    assert!(!records.is_of_another(ID, SOCKET + 1));
}

#[test]
fn another_node_is_told_that_its_record_was_overwritten_whatever_has_happened_since() {
    let mut records = Records::new(ME);
    records.own(&ID.into(), SOCKET, unrecorded(100, None), 0);
    let task = records.next(1000).expect("a try");
    let task = again(records.done(task, there(OTHER, 50, 6), 1000));
    records.own(&ID.into(), SOCKET, held(200, 8), 1000);
    let next = records.done(task, Answer::Replaced(Revision(7)), 1000);
    assert!(matches!(next, Next::Tell { loser: OTHER, generation: 100 }));
}

#[test]
fn another_node_ends_a_session_with_a_higher_generation_alone() {
    let mut records = recorded();
    assert!(!records.is_taken(ID, 99));
    assert!(!records.is_taken(ID, 100));
    assert!(!records.is_taken("another", 101));
    assert!(records.is_taken(ID, 101));
    assert!(!records.is_taken(ID, 102));
    assert!(is_idle(&mut records));
    let mut records = recorded();
    assert!(records.has(ID));
    records.release(ID, 0);
    assert!(!records.has(ID) && !records.is_taken(ID, 101), "it has ended already");
}

#[test]
fn the_record_of_a_session_that_has_ended_is_removed() {
    let mut records = recorded();
    records.release(ID, 50);
    let task = records.next(50).expect("a removal");
    assert_eq!(task.call, Call::Remove { seen: Revision(5) });
    records.done(task, Answer::Replaced(Revision(0)), 50);
    assert!(is_idle(&mut records));
}

#[test]
fn a_removal_is_given_up_if_the_record_is_another_nodes_or_the_store_keeps_failing() {
    let mut records = recorded();
    records.release(ID, 0);
    let task = records.next(0).expect("a removal");
    records.done(task, there(OTHER, 50, 6), 0);
    assert!(is_idle(&mut records));
    let mut records = recorded();
    records.release(ID, 0);
    for _ in 0..REMOVALS {
        let task = records.next(u64::MAX / 2).expect("a removal");
        records.done(task, Answer::Failed, 0);
    }
    assert!(is_idle(&mut records));
}

#[test]
fn a_session_may_end_while_its_record_is_being_written() {
    for (answer, removed) in [
        (Answer::Replaced(Revision(6)), Some(6)),
        (there(ME, 100, 7), Some(7)),
        (Answer::Failed, Some(5)),
        (there(OTHER, 101, 8), None),
        (Answer::There(None), None),
    ] {
        let mut records = recorded();
        let task = records.next(REFRESH).expect("a refresh");
        records.release(ID, REFRESH);
        assert!(records.next(REFRESH).is_none(), "one thing at a time");
        records.done(task, answer, REFRESH);
        let removal = records.next(2 * REFRESH).map(|task| task.call);
        assert_eq!(removal, removed.map(|seen| Call::Remove { seen: Revision(seen) }));
    }
}

#[test]
fn a_session_that_was_never_recorded_leaves_nothing_behind() {
    let mut records = Records::new(ME);
    records.own(&ID.into(), SOCKET, unrecorded(100, None), 0);
    let task = records.next(1000).expect("a try");
    records.release(ID, 1000);
    records.done(task, Answer::Failed, 1000);
    assert!(is_idle(&mut records));
    records.own(&ID.into(), SOCKET, unrecorded(100, None), 0);
    records.release(ID, 0);
    assert!(is_idle(&mut records));
    assert_eq!(records.unrecorded(), 0);
}

#[test]
fn what_concerned_an_earlier_session_of_the_id_does_not_concern_the_next() {
    let mut records = recorded();
    records.release(ID, 0);
    let task = records.next(0).expect("a removal");
    records.own(&ID.into(), SOCKET, held(200, 8), 0);
    records.done(task, there(OTHER, 300, 9), 0);
    assert_eq!(records.forget(ID), Some(held(200, 8)));
    assert!(is_idle(&mut records));
}

#[test]
fn a_node_knows_to_whom_it_gives_a_session_until_it_has_it_again() {
    let mut records = recorded();
    records.begin_giving(&ID.into(), OTHER, 0);
    assert_eq!((records.given_to(ID, GIVEN, 0), records.has(ID)), (Some(OTHER), true));
    records.keep(ID);
    assert_eq!(records.given_to(ID, GIVEN, 0), None);
    records.give(&ID.into(), OTHER, 0);
    assert_eq!((records.given_to(ID, GIVEN, 0), records.has(ID)), (Some(OTHER), false));
    records.own(&ID.into(), SOCKET, held(200, 8), 0);
    assert_eq!(records.given_to(ID, GIVEN, 0), None);
}

#[test]
fn two_nodes_that_keep_writing_do_not_keep_each_other_busy() {
    let mut records = Records::new(ME);
    records.own(&ID.into(), SOCKET, unrecorded(100, None), 0);
    let mut task = records.next(1000).expect("a try");
    for revision in 1..=u64::from(ROUNDS) {
        task = again(records.done(task, there(OTHER, 50, revision), 1000));
    }
    assert!(matches!(records.done(task, there(OTHER, 50, 9), 1000), Next::Nothing));
    assert!(records.next(1999).is_none());
    assert_eq!(records.next(2000).map(|task| task.call), Some(write(Some(9), 100)));
}

#[test]
fn a_session_takes_few_bytes() {
    assert!(size_of::<Owned>() <= 56);
}
