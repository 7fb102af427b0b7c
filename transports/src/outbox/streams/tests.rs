use super::*;

fn push(streams: &mut Streams, stream: StreamId, text: &str) {
    assert!(streams.push(stream, Message::text(text.to_owned()), false));
}

fn pop_all(streams: &mut Streams) -> Vec<String> {
    let text =
        |(_, message): (StreamId, Message)| String::from_utf8_lossy(&message.to_bytes()).into();
    std::iter::from_fn(|| streams.pop()).map(text).collect()
}

#[test]
fn before_the_first_epoch_streams_are_resumed_and_keep_their_order() {
    let mut streams = Streams::default();
    let (a, b) = (streams.add(), streams.add());
    push(&mut streams, a, "1");
    push(&mut streams, b, "2");
    streams.pause(a);
    streams.push_priority(Message::text("3"));
    push(&mut streams, a, "4");
    assert_eq!(pop_all(&mut streams), ["1", "2", "3", "4"]);
}

#[test]
fn a_paused_stream_waits_aside_and_keeps_its_order_when_it_is_resumed() {
    let mut streams = Streams::default();
    let (a, b) = (streams.add(), streams.add());
    push(&mut streams, a, "a2");
    push(&mut streams, b, "b1");
    let sent = [(a, Message::text("a1")), (PRIORITY, Message::text("priority"))];
    assert_eq!(streams.pause_all(sent.into()), Message::text("priority").cost());
    push(&mut streams, a, "a3");
    streams.resume(b, 0);
    push(&mut streams, b, "b2");
    assert_eq!((pop_all(&mut streams), streams.paused()), (vec!["b1".into(), "b2".into()], 3));
    streams.resume(a, 0);
    push(&mut streams, a, "a4");
    assert_eq!(pop_all(&mut streams), ["a1", "a2", "a3", "a4"]);
}

#[test]
fn pausing_a_stream_takes_its_messages_out_of_the_queue() {
    let mut streams = Streams::default();
    streams.pause_all(VecDeque::new());
    let (a, b) = (streams.add(), streams.add());
    streams.resume(a, 0);
    streams.resume(b, 0);
    push(&mut streams, a, "a1");
    push(&mut streams, b, "b1");
    push(&mut streams, a, "a2");
    streams.pause(a);
    assert_eq!(pop_all(&mut streams), ["b1"]);
    streams.resume(a, 0);
    assert_eq!(pop_all(&mut streams), ["a1", "a2"]);
}

#[test]
fn an_empty_queue_keeps_no_allocation() {
    let mut streams = Streams::default();
    let stream = streams.add();
    for count in [1, 100] {
        (0..count).for_each(|_| push(&mut streams, stream, "x"));
        assert_eq!(pop_all(&mut streams).len(), count);
        assert_eq!(streams.ready.capacity(), 0);
    }
}

#[test]
fn the_last_messages_of_a_resumed_stream_are_sent_and_those_of_a_paused_one_are_not() {
    let mut streams = Streams::default();
    streams.pause_all(VecDeque::new());
    let (resumed, paused) = (streams.add(), streams.add());
    streams.resume(resumed, 0);
    push(&mut streams, resumed, "resumed");
    push(&mut streams, paused, "paused");
    let lost = Message::text("paused").cost();
    assert_eq!((streams.end(resumed), streams.end(paused)), (Cost::default(), lost));
    assert_eq!(pop_all(&mut streams), ["resumed"]);
}

#[test]
fn the_id_of_a_stream_never_wraps_around_to_the_priority_queue() {
    let mut streams = Streams { last: u64::from(u32::MAX), ..Streams::default() };
    assert!(streams.add() > u64::from(u32::MAX));
}
