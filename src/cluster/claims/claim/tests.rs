use super::super::record::Deposit;
use super::*;

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);
const THIRD: NodeId = NodeId(3);
const SOCKET: u64 = 7;
const NOW: u64 = 1000;

fn record(owner: NodeId, generation: u64, revision: u64) -> Record {
    let value = SessionRecord::new(owner, generation, SOCKET).encode();
    Record { value, revision: Revision(revision) }
}

fn deposit(expires: u64) -> Record {
    let mut record = SessionRecord::new(OTHER, 2000, SOCKET);
    record.deposit = Some(Deposit { state: "state".into(), expires });
    Record { value: record.encode(), revision: Revision(5) }
}

fn replaced(revision: u64) -> Event {
    Event::Replaced(Revision(revision))
}

fn refused(record: Record) -> Event {
    Event::Refused(Some(record))
}

fn replace(seen: u64, generation: u64) -> Step {
    let seen = (seen > 0).then_some(Revision(seen));
    Step::Replace { seen, generation }
}

fn held(generation: u64, seen: u64, is_recorded: bool) -> Held {
    Held { generation, seen: (seen > 0).then_some(Revision(seen)), is_recorded }
}

fn new(cause: Cause, held: Held, unheard: Option<NodeId>) -> Step {
    Step::Done(Outcome::Own { cause, held, unheard })
}

/// Tells a claim what came of each step, and returns what it does next.
fn steps(events: impl IntoIterator<Item = Event>) -> Vec<Step> {
    let (mut claim, first) = Claim::new(ME, SOCKET, NOW, None, None);
    assert_eq!(first, replace(0, NOW));
    events.into_iter().map(|event| claim.on(event)).collect()
}

#[test]
fn an_id_that_nobody_has_belongs_to_the_node() {
    let new = new(Cause::Unknown, held(NOW, 9, true), None);
    assert_eq!(steps([replaced(9)]), [new]);
}

#[test]
fn an_id_of_another_client_is_taken() {
    let value = SessionRecord::new(OTHER, 1, SOCKET + 1).encode();
    let record = Record { value, revision: Revision(5) };
    let (ask, taken) = (Step::Ask(OTHER), Step::Done(Outcome::Taken));
    for answer in [Answer::Taken, Answer::Silent] {
        let events = [refused(record.clone()), Event::Answered(answer)];
        assert_eq!(steps(events), [ask.clone(), taken.clone()]);
    }
    for (answer, cause, unheard) in
        [(Answer::Gone, Cause::DeadNode, Some(OTHER)), (Answer::None, Cause::Unknown, Some(OTHER))]
    {
        let events = [refused(record.clone()), Event::Answered(answer), replaced(9)];
        let new = new(cause, held(NOW, 9, true), unheard);
        assert_eq!(steps(events), [ask.clone(), replace(5, NOW), new]);
    }
    let mut record = SessionRecord::new(OTHER, 1, SOCKET + 1);
    for (expires, step) in [(NOW + 1, taken), (NOW, replace(5, NOW))] {
        record.deposit = Some(Deposit { state: "state".into(), expires });
        let record = Record { value: record.encode(), revision: Revision(5) };
        assert_eq!(steps([refused(record)]), [step]);
    }
}

#[test]
fn a_record_of_an_unknown_version_is_replaced() {
    let garbage = Record { value: "\x02..".into(), revision: Revision(5) };
    let new = new(Cause::Unknown, held(NOW, 9, true), None);
    assert_eq!(steps([refused(garbage), replaced(9)]), [replace(5, NOW), new]);
}

#[test]
fn a_deposit_is_offered() {
    let deposited = Outcome::Deposited { held: held(2001, 5, false), state: "state".into() };
    assert_eq!(steps([refused(deposit(NOW + 1))]), [Step::Done(deposited)]);
}

#[test]
fn an_expired_deposit_is_that_of_a_node_that_is_gone() {
    let new = new(Cause::Unknown, held(2001, 9, true), None);
    assert_eq!(steps([refused(deposit(NOW)), replaced(9)]), [replace(5, 2001), new]);
}

#[test]
fn a_session_that_has_ended_on_the_node_itself_begins_anew() {
    let new = new(Cause::Unknown, held(3001, 9, true), None);
    assert_eq!(steps([refused(record(ME, 3000, 5)), replaced(9)]), [replace(5, 3001), new]);
}

/// Tells a claim of a session that the node has, of generation 3000, what came of each step.
fn own_steps(events: impl IntoIterator<Item = Event>) -> Vec<Step> {
    let (mut claim, first) = Claim::new(ME, SOCKET, NOW, Some(held(3000, 4, false)), None);
    assert_eq!(first, replace(4, 3001));
    events.into_iter().map(|event| claim.on(event)).collect()
}

#[test]
fn a_session_that_the_node_has_begins_a_generation() {
    let kept = |held, unheard| new(Cause::Kept, held, unheard);
    assert_eq!(own_steps([replaced(9)]), [kept(held(3001, 9, true), None)]);
    assert_eq!(own_steps([Event::Failed]), [kept(held(3001, 4, false), None)]);
    for (there, seen, unheard) in [
        (None, 0, None),
        (Some(record(OTHER, 2999, 5)), 5, Some(OTHER)),
        (Some(deposit(NOW + 1)), 5, Some(OTHER)),
    ] {
        let done = kept(held(3001, 9, true), unheard);
        assert_eq!(own_steps([Event::Refused(there), replaced(9)]), [replace(seen, 3001), done]);
    }
    // It was written though the store did not say so.
    let done = kept(held(3002, 9, true), None);
    assert_eq!(own_steps([refused(record(ME, 3001, 5)), replaced(9)]), [replace(5, 3002), done]);
    let events = [(OTHER, 5), (THIRD, 6), (OTHER, 7)];
    let events = events.map(|(owner, revision)| refused(record(owner, 2000, revision)));
    let done = kept(held(3001, 0, false), Some(THIRD));
    assert_eq!(own_steps(events), [replace(5, 3001), replace(6, 3001), done]);
}

#[test]
fn a_session_that_the_node_has_is_lost_to_a_later_one() {
    for generation in [3000, 4000] {
        let events = [refused(record(OTHER, generation, 5)), Event::Answered(Answer::Offered)];
        let held = held(generation + 1, 5, false);
        let offered = Outcome::Offered { owner: OTHER, held };
        assert_eq!(own_steps(events), [Step::Ask(OTHER), Step::Done(offered)]);
    }
    let events = [refused(record(OTHER, 3000, 5)), Event::Answered(Answer::Silent), replaced(9)];
    let done = new(Cause::DeadNode, held(3001, 9, true), Some(OTHER));
    assert_eq!(own_steps(events), [Step::Ask(OTHER), replace(5, 3001), done]);
}

#[test]
fn a_session_that_the_node_has_just_given_away_is_asked_for_where_it_is() {
    for (answer, done) in [
        (Answer::Offered, Outcome::Offered { owner: OTHER, held: held(3001, 5, false) }),
        (Answer::Taken, Outcome::Taken),
    ] {
        let (mut claim, _) = Claim::new(ME, SOCKET, NOW, None, Some(OTHER));
        assert_eq!(claim.on(refused(record(ME, 3000, 5))), Step::Ask(OTHER));
        assert_eq!(claim.on(Event::Answered(answer)), Step::Done(done));
    }
    let (mut claim, _) = Claim::new(ME, SOCKET, NOW, None, Some(OTHER));
    assert_eq!(claim.on(refused(record(ME, 3000, 5))), Step::Ask(OTHER));
    assert_eq!(claim.on(Event::Answered(Answer::None)), replace(5, 3001));
    assert_eq!(claim.on(refused(record(ME, 3000, 6))), replace(6, 3001), "it is asked once");
}

#[test]
fn the_owner_decides_what_becomes_of_its_session() {
    let offered = Outcome::Offered { owner: OTHER, held: held(NOW, 5, false) };
    for (answer, outcome) in [(Answer::Offered, offered), (Answer::Taken, Outcome::Taken)] {
        let steps = steps([refused(record(OTHER, 10, 5)), Event::Answered(answer)]);
        assert_eq!(steps, [Step::Ask(OTHER), Step::Done(outcome)]);
    }
}

#[test]
fn a_session_that_its_owner_does_not_have_begins_anew() {
    for (answer, cause, unheard) in [
        (Answer::None, Cause::Unknown, Some(OTHER)),
        (Answer::Gone, Cause::DeadNode, Some(OTHER)),
        (Answer::Silent, Cause::DeadNode, Some(OTHER)),
    ] {
        let events = [refused(record(OTHER, 3000, 5)), Event::Answered(answer), replaced(9)];
        let done = new(cause, held(3001, 9, true), unheard);
        assert_eq!(steps(events), [Step::Ask(OTHER), replace(5, 3001), done]);
    }
}

#[test]
fn a_session_that_has_moved_on_is_followed() {
    let events = [
        refused(record(OTHER, 10, 5)),
        Event::Answered(Answer::None),
        refused(record(THIRD, 1100, 6)),
        Event::Answered(Answer::Offered),
    ];
    let offered = Outcome::Offered { owner: THIRD, held: held(1101, 6, false) };
    let expected = [Step::Ask(OTHER), replace(5, NOW), Step::Ask(THIRD), Step::Done(offered)];
    assert_eq!(steps(events), expected);
}

#[test]
fn a_session_whose_record_was_removed_meanwhile_begins_anew() {
    let events = [
        refused(record(OTHER, 10, 5)),
        Event::Answered(Answer::None),
        Event::Refused(None),
        replaced(9),
    ];
    let new = new(Cause::Unknown, held(NOW, 9, true), Some(OTHER));
    assert_eq!(steps(events), [Step::Ask(OTHER), replace(5, NOW), replace(0, NOW), new]);
}

#[test]
fn a_claim_that_is_refused_three_times_begins_unrecorded() {
    let none = || Event::Answered(Answer::None);
    let events = [
        refused(record(OTHER, 10, 5)),
        none(),
        refused(record(THIRD, 1100, 6)),
        none(),
        refused(record(OTHER, 1101, 7)),
    ];
    let expected = [
        Step::Ask(OTHER),
        replace(5, NOW),
        Step::Ask(THIRD),
        replace(6, 1101),
        new(Cause::Unknown, held(1101, 0, false), Some(THIRD)),
    ];
    assert_eq!(steps(events), expected);
}

#[test]
fn a_store_that_fails_leaves_a_session_unrecorded() {
    let unrecorded = |generation, seen| new(Cause::Unknown, held(generation, seen, false), None);
    assert_eq!(steps([Event::Failed]), [unrecorded(NOW, 0)]);
    let events = [refused(record(ME, 3000, 5)), Event::Failed];
    assert_eq!(steps(events), [replace(5, 3001), unrecorded(3001, 5)]);
    // The time is over while the owner is asked.
    let events = [refused(record(OTHER, 3000, 5)), Event::Failed];
    let silent = new(Cause::Unknown, held(3001, 5, false), Some(OTHER));
    assert_eq!(steps(events), [Step::Ask(OTHER), silent]);
}

#[test]
fn every_claim_ends_whatever_it_is_told() {
    let events = |choice: usize| match choice {
        0 => refused(record(OTHER, u64::MAX, 5)),
        1 => refused(record(ME, 10, 5)),
        2 => Event::Refused(None),
        3 => refused(deposit(NOW + 1)),
        4 => Event::Answered(Answer::None),
        5 => Event::Answered(Answer::Silent),
        6 => Event::Answered(Answer::Gone),
        7 => Event::Failed,
        _ => replaced(9),
    };
    // All sequences of events, until the claim ends.
    let mut open = vec![Vec::new()];
    while let Some(choices) = open.pop() {
        let own = choices.first().is_some_and(|first| first % 2 == 1).then(|| held(NOW, 4, false));
        let (mut claim, _) = Claim::new(ME, SOCKET, NOW, own, None);
        let last = choices.iter().map(|choice| claim.on(events(*choice))).last();
        if !matches!(last, Some(Step::Done(_))) {
            assert!(choices.len() < 6, "{choices:?}");
            open.extend((0..=8).map(|choice| [&choices[..], &[choice]].concat()));
        }
    }
}
