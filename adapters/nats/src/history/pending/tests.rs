use bytes::Bytes;
use tower_channels::adapter::Keep;

use super::*;

fn append(topic: &str, content: &'static str) -> Append {
    let keep = Keep { messages: 1, bytes: 1, within: PATIENCE };
    Append { topic: topic.into(), content: Bytes::from(content), keep, done: None }
}

fn pending(topics: &[&str]) -> Pending {
    let mut pending = Pending::new(1 << 20);
    for topic in topics {
        pending.push(append(topic, "x"), Instant::now()).expect("room");
    }
    pending
}

fn send(pending: &mut Pending) -> Vec<u64> {
    std::iter::from_fn(|| pending.next(|_| ()).map(|(number, ())| number)).collect()
}

fn topics(appends: Vec<Append>) -> Vec<String> {
    appends.into_iter().map(|append| append.topic.to_string()).collect()
}

#[test]
fn messages_are_sent_once_and_in_their_order() {
    let mut pending = pending(&["a", "b", "c"]);
    assert_eq!(send(&mut pending), [1, 2, 3]);
    assert!(send(&mut pending).is_empty());
    assert_eq!(pending.answered(2).unwrap().topic, "b");
    assert!(pending.answered(2).is_none());
    pending.push(append("d", "x"), Instant::now()).unwrap();
    assert_eq!(send(&mut pending), [4]);
    for number in [1, 3, 4] {
        assert!(!pending.is_empty());
        assert!(pending.answered(number).is_some());
    }
    assert!(pending.is_empty() && pending.bytes == 0);
}

#[test]
fn all_without_an_answer_are_sent_again() {
    let mut pending = pending(&["a", "b", "c", "d"]);
    send(&mut pending);
    pending.answered(1);
    pending.answered(3);
    pending.rewind();
    assert_eq!(send(&mut pending), [2, 4]);
}

#[test]
fn no_more_are_sent_than_answers_are_waited_for() {
    let mut pending = pending(&["t"; WINDOW + 2]);
    assert_eq!(send(&mut pending).len(), WINDOW);
    // Of the first it is not known: the window stays where it is.
    pending.answered(2);
    assert!(send(&mut pending).is_empty());
    pending.answered(1);
    assert_eq!(send(&mut pending), [WINDOW as u64 + 1, WINDOW as u64 + 2]);
}

#[test]
fn a_message_that_was_refused_does_not_come_behind_a_later_one_of_its_topic() {
    let mut pending = pending(&["a", "b", "a", "a"]);
    send(&mut pending);
    for number in [1, 2, 4] {
        pending.refused(number);
    }
    let (kept, overtaken) = pending.kept(3);
    assert_eq!((kept.unwrap().topic.as_str(), topics(overtaken)), ("a", vec!["a".to_owned()]));
    pending.rewind();
    assert_eq!(send(&mut pending), [2, 4]);
    // Sent again, it is not refused any more.
    assert_eq!(pending.refused, 0);
    assert_eq!(topics(pending.kept(4).1), [""; 0]);
}

#[test]
fn what_waits_for_too_long_is_given_up() {
    let begin = Instant::now();
    let mut pending = Pending::new(1 << 20);
    pending.push(append("a", "x"), begin).unwrap();
    pending.push(append("b", "x"), begin).unwrap();
    pending.push(append("c", "x"), begin + PATIENCE).unwrap();
    send(&mut pending);
    pending.answered(1);
    assert_eq!(topics(pending.expire(begin + PATIENCE / 2)), [""; 0]);
    assert_eq!(topics(pending.expire(begin + PATIENCE)), ["b"]);
    // An answer that is late.
    assert!(pending.answered(2).is_none());
    assert_eq!(pending.answered(3).unwrap().topic, "c");
}

#[test]
fn what_waits_is_bounded_in_bytes_with_room_for_one() {
    let mut pending = Pending::new(10);
    pending.push(append("a", "longer than ten"), Instant::now()).unwrap();
    assert_eq!(pending.push(append("b", ""), Instant::now()).unwrap_err().topic, "b");
    pending.answered(1);
    pending.push(append("c", ""), Instant::now()).unwrap();
    assert_eq!(send(&mut pending), [2]);
}
