use super::*;

const EPOCH: u64 = 7;

fn at(number: u64) -> Position {
    Position { epoch: EPOCH, number }
}

fn kept(number: u64, previous: u64) -> Kept {
    Kept { position: at(number), previous, content: "x".into() }
}

/// An answer of a server that lost nothing since 100.
fn answer(last: u64, messages: &[(u64, u64)]) -> Answer {
    Answer {
        topic: entry::Topic { epoch: EPOCH, last, is_new: false },
        since: 100,
        oldest: 0,
        messages: messages.iter().map(|(number, previous)| kept(*number, *previous)).collect(),
        is_first: false,
    }
}

fn is_complete(answer: Answer, since: Since) -> bool {
    page(answer, since).is_complete
}

#[test]
fn a_page_after_a_position_is_complete_unless_what_follows_was_forgotten() {
    let after = |number, messages: &[(u64, u64)]| {
        is_complete(answer(400, messages), Since::After(at(number)))
    };
    assert!(after(200, &[(300, 200), (400, 300)]));
    assert!(after(250, &[(300, 200), (400, 300)]), "a number between two messages");
    assert!(after(400, &[]));
    assert!(!after(199, &[(300, 200), (400, 300)]));
    assert!(!after(399, &[]), "the last is forgotten");
    assert!(!after(401, &[]), "it never was");
    let other = Position { epoch: 8, number: 400 };
    assert!(!is_complete(answer(400, &[]), Since::After(other)));
}

#[test]
fn what_stands_before_a_loss_is_a_gap_and_the_last_position_is_not() {
    let lost = |last| Answer { since: 500, ..answer(last, &[]) };
    assert!(!is_complete(lost(400), Since::After(at(400))));
    let last = page(lost(400), Since::Newest).last;
    assert_eq!(last, at(500));
    assert!(is_complete(lost(400), Since::After(last)));
    let next = Answer { since: 500, ..answer(600, &[(600, 400)]) };
    assert!(is_complete(next, Since::After(last)));
    let before = |since| Answer { since, ..answer(600, &[(400, 300)]) };
    assert!(!is_complete(before(500), Since::Before(at(600))));
    assert!(is_complete(before(400), Since::Before(at(600))));
    assert!(is_complete(before(601), Since::Before(at(600))), "both are older");
}

#[test]
fn messages_that_are_too_old_are_in_no_page() {
    let aged = || Answer { oldest: 350, ..answer(400, &[(300, 200), (400, 300)]) };
    let read = page(aged(), Since::After(at(200)));
    assert_eq!((read.messages, read.is_complete), (vec![kept(400, 300)], false));
    assert!(is_complete(aged(), Since::After(at(300))));
    let hides_others = |since, limit| aged().hides_others(since, limit);
    assert!(hides_others(Since::After(at(200)), 2));
    assert!(!hides_others(Since::After(at(200)), 3), "it has all");
    assert!(!hides_others(Since::Newest, 2), "the newest come first");
}

#[test]
fn a_topic_without_messages_has_all_of_them() {
    let new = || Answer {
        topic: entry::Topic { epoch: EPOCH, last: 200, is_new: true },
        is_first: true,
        ..answer(200, &[])
    };
    assert!(is_complete(new(), Since::After(at(200))));
    assert!(is_complete(new(), Since::Before(at(200))));
    assert!(!is_complete(new(), Since::After(at(201))));
    assert_eq!(page(new(), Since::Newest).last, at(200));
    assert!(is_complete(answer(300, &[(300, 0)]), Since::After(at(200))));
}

#[test]
fn pages_that_go_backwards_are_in_their_order() {
    let messages = [(400, 300), (300, 200)];
    for since in [Since::Newest, Since::Before(at(401))] {
        let read = Answer { is_first: false, ..answer(500, &messages) };
        let page = page(read, since);
        assert_eq!(page.messages, [kept(300, 200), kept(400, 300)]);
        assert!(page.is_complete);
    }
    assert!(!is_complete(answer(400, &[]), Since::Before(at(200))), "they are forgotten");
    let unknown = Since::Before(Position { epoch: 8, number: 400 });
    assert!(page(answer(400, &messages), unknown).messages.is_empty());
}
