use bytes::Bytes;

use super::*;

/// What an ear hands over.
#[derive(Default)]
struct Inbox(Mutex<Vec<Bytes>>);

impl NodeInbox for Inbox {
    fn receive(&self, frame: Bytes) {
        self.0.lock().push(frame);
    }

    fn link(&self, _: Link) {}

    fn lost(&self, _: Bytes) {}
}

/// Returns which frames of a sequence of pushes are taken.
fn taken<const N: usize>(pushes: [PushInfo; N]) -> Vec<Bytes> {
    let inbox = Arc::new(Inbox::default());
    let ear = Ear::new(Arc::new(Names::new("chat")), inbox.clone(), Arc::default());
    for push in pushes {
        ear.take(push);
        assert!(ear.has_heard.swap(false, Ordering::Relaxed));
    }
    inbox.0.lock().clone()
}

fn push(kind: PushKind, texts: &[&str]) -> PushInfo {
    let data = texts.iter().map(|text| Value::BulkString((*text).into())).collect();
    PushInfo { kind, data }
}

const PATTERN: &str = "tc:chat:t:*";

fn by_pattern(topic: &str, frame: &str) -> PushInfo {
    push(PushKind::PMessage, &[PATTERN, &format!("tc:chat:t:{topic}"), frame])
}

fn by_name(channel: &str, frame: &str) -> PushInfo {
    push(PushKind::Message, &[&format!("tc:chat:{channel}"), frame])
}

#[test]
fn frames_are_taken_whatever_brings_them() {
    let pushes =
        [by_name("all", "a"), by_name("n:0", "b"), by_name("t:x", "c"), by_pattern("x", "d")];
    assert_eq!(taken(pushes), ["a", "b", "c", "d"]);
}

#[test]
fn while_the_pattern_stands_a_topic_is_taken_once() {
    let pushes = [
        push(PushKind::PSubscribe, &[PATTERN]),
        by_name("t:x", "first"),
        by_pattern("x", "first"),
        by_name("all", "second"),
        by_name("t:x", "third"),
        by_pattern("x", "third"),
        push(PushKind::PUnsubscribe, &[PATTERN]),
        by_name("t:x", "fourth"),
    ];
    assert_eq!(taken(pushes), ["first", "second", "third", "fourth"]);
}

#[test]
fn what_is_kept_of_a_topic_is_taken_once_whatever_brings_it() {
    let names = Arc::new(Names::new("chat"));
    let ear = Ear::new(names, Arc::new(Inbox::default()), Arc::default());
    let kept = "tc:chat:h:x";
    let by_pattern = |text| push(PushKind::PMessage, &["tc:chat:h:*", kept, text]);
    let by_name = |text| push(PushKind::Message, &[kept, text]);
    let pushes = [
        push(PushKind::PSubscribe, &[PATTERN]),
        by_name("first"),
        push(PushKind::PSubscribe, &["tc:chat:h:*"]),
        push(PushKind::PUnsubscribe, &[PATTERN]),
        by_name("second"),
        by_pattern("second"),
        push(PushKind::PUnsubscribe, &["tc:chat:h:*"]),
        by_name("third"),
    ];
    let taken: Vec<_> = pushes.into_iter().filter_map(|push| ear.heard(push)).collect();
    let expected = ["first", "second", "third"];
    assert_eq!(taken, expected.map(|text| Heard::Kept("x".into(), text.into())));
}

#[test]
fn what_is_no_frame_is_not_taken() {
    let odd = PushInfo { kind: PushKind::Message, data: vec![Value::Int(1)] };
    let none = PushInfo { kind: PushKind::PMessage, data: vec![] };
    let pushes = [
        push(PushKind::Subscribe, &["tc:chat:all"]),
        push(PushKind::Invalidate, &["key"]),
        push(PushKind::Disconnection, &[]),
        odd,
        none,
    ];
    assert!(taken(pushes).is_empty());
}
