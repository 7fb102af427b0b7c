//! Volatile messages.

use super::*;

fn push_volatile(
    buffer: &mut ReplayBuffer,
    budget: &mut ByteBudget,
    stream: StreamId,
    text: &str,
) -> bool {
    let message = Message::with_placeholder(format!("[null{text}"), 1).volatile();
    budget.restore(message.cost());
    buffer.push(stream, message)
}

#[test]
fn volatile_messages_are_not_replayed_into_a_stream_that_discards_them() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    buffer.discard_volatile(stream);
    assert!(push_volatile(&mut buffer, &mut budget, stream, ",sent"));
    push(&mut buffer, &mut budget, stream, ",lasting");
    take(&mut buffer);
    assert!(push_volatile(&mut buffer, &mut budget, stream, ",waiting"));
    buffer.detach(buffer.epoch(), Loss::Cut);
    assert!(!push_volatile(&mut buffer, &mut budget, stream, ",detached"));
    buffer.attach(None, &mut budget);
    assert!(!push_volatile(&mut buffer, &mut budget, stream, ",paused"));
    resume(&mut buffer, &mut budget, stream);
    assert!(push_volatile(&mut buffer, &mut budget, stream, ",fresh"));
    assert_eq!(take(&mut buffer), ["joined", "[null,lasting", "[null,fresh"]);
}

#[test]
fn pausing_a_stream_discards_its_volatile_messages() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    buffer.discard_volatile(stream);
    take(&mut buffer);
    let before = budget.bytes();
    assert!(push_volatile(&mut buffer, &mut budget, stream, ",waiting"));
    buffer.pause(stream, &mut budget);
    assert_eq!(budget.bytes(), before);
    resume(&mut buffer, &mut budget, stream);
    assert_eq!(take(&mut buffer), ["joined"]);
}

#[test]
fn volatile_messages_wait_for_a_connection_that_is_only_idle() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    buffer.discard_volatile(stream);
    take(&mut buffer);
    buffer.set_idle(buffer.epoch());
    assert!(push_volatile(&mut buffer, &mut budget, stream, ",a"));
    buffer.set_active(buffer.epoch());
    assert_eq!(take(&mut buffer), ["[null,a"]);
}

#[test]
fn volatile_messages_are_replayed_into_a_stream_that_does_not_discard_them() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    take(&mut buffer);
    buffer.detach(buffer.epoch(), Loss::Cut);
    assert!(push_volatile(&mut buffer, &mut budget, stream, ",a"));
    buffer.attach(None, &mut budget);
    resume(&mut buffer, &mut budget, stream);
    assert_eq!(take(&mut buffer), ["joined", "[null,a"]);
}
