use super::super::sent::MAX_RETAINED;
use super::*;

mod numbers;
mod volatile;

/// A buffer in its first epoch, with one stream that is resumed.
fn first_epoch(received: Option<u64>) -> (ReplayBuffer, ByteBudget, StreamId) {
    let (mut buffer, mut budget) = (ReplayBuffer::new(0), ByteBudget::new(1 << 30));
    buffer.attach(received, &mut budget);
    let stream = buffer.stream();
    assert!(resume(&mut buffer, &mut budget, stream));
    (buffer, budget, stream)
}

fn resume(buffer: &mut ReplayBuffer, budget: &mut ByteBudget, stream: StreamId) -> bool {
    let reply = Message::text("joined");
    budget.restore(reply.cost());
    buffer.resume(stream, buffer.epoch(), reply)
}

fn push(buffer: &mut ReplayBuffer, budget: &mut ByteBudget, stream: StreamId, text: &str) {
    let message = Message::with_placeholder(format!("[null{text}"), 1);
    budget.restore(message.cost());
    buffer.push(stream, message);
}

fn take(buffer: &mut ReplayBuffer) -> Vec<String> {
    let mut texts = Vec::new();
    buffer.take(usize::MAX, usize::MAX, |message| {
        texts.push(String::from_utf8_lossy(&message.to_bytes()).into_owned());
    });
    texts
}

fn texts(count: u32) -> Vec<String> {
    (1..=count).map(|n| format!(",{n}")).collect()
}

/// Resumes the stream, and reads what is sent in it after the reply.
fn replay(buffer: &mut ReplayBuffer, budget: &mut ByteBudget, stream: StreamId) -> Vec<String> {
    resume(buffer, budget, stream);
    take(buffer).split_off(1)
}

const TTL: Duration = Duration::from_secs(90);

#[test]
fn what_the_network_acknowledged_is_retained_for_its_ttl_and_less_than_twice_that() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    let start = Instant::now();
    buffer.age(start, TTL, &mut budget);
    push(&mut buffer, &mut budget, stream, ",a");
    take(&mut buffer);
    buffer.acknowledge_network(buffer.position(), &mut budget);
    push(&mut buffer, &mut budget, stream, ",b");
    take(&mut buffer);
    for (seconds, is_retained) in [(89, true), (90, true), (179, true), (180, false)] {
        buffer.age(start + Duration::from_secs(seconds), TTL, &mut budget);
        assert_eq!(buffer.costs().1 > 0, is_retained, "after {seconds} s");
    }
    assert_eq!(buffer.unacknowledged().count(), 1, "what is in flight stays");
}

#[test]
fn a_client_that_has_not_seen_what_was_evicted_cannot_resume() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    texts(3).iter().for_each(|text| push(&mut buffer, &mut budget, stream, text));
    take(&mut buffer);
    buffer.acknowledge_network(buffer.position() - 1, &mut budget);
    let start = Instant::now();
    buffer.age(start, TTL, &mut budget);
    buffer.age(start + TTL, TTL, &mut budget);
    assert!(buffer.attach(Some(1), &mut budget).is_none());
    assert!(buffer.attach(Some(2), &mut budget).is_some());
    assert_eq!(replay(&mut buffer, &mut budget, stream), ["[\"s:4\",3"]);
}

/// The reply to a heartbeat, which is sent at once.
fn beat(buffer: &mut ReplayBuffer, budget: &mut ByteBudget) {
    let reply = Message::text("beat");
    budget.restore(reply.cost());
    buffer.push_heartbeat_reply(reply, budget);
    take(buffer);
}

#[test]
fn a_heartbeat_proves_what_a_client_without_numbers_has_read() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    push(&mut buffer, &mut budget, stream, ",a");
    take(&mut buffer);
    beat(&mut buffer, &mut budget);
    assert_eq!(buffer.unacknowledged().count(), 3);
    beat(&mut buffer, &mut budget);
    assert_eq!(buffer.costs().1, 0, "nothing is retained");
    buffer.detach(buffer.epoch(), Loss::GivenUp);
    buffer.attach(None, &mut budget);
    assert!(replay(&mut buffer, &mut budget, stream).is_empty());
}

#[test]
fn a_heartbeat_does_not_prove_what_a_client_with_numbers_has_read() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    push(&mut buffer, &mut budget, stream, ",a");
    take(&mut buffer);
    (0..2).for_each(|_| beat(&mut buffer, &mut budget));
    assert!(buffer.costs().1 > 0, "it is retained");
    buffer.attach(Some(0), &mut budget);
    assert_eq!(replay(&mut buffer, &mut budget, stream), ["[\"s:2\",a"]);
}

#[test]
fn a_client_with_numbers_cannot_resume_after_what_was_evicted_on_the_word_of_a_heartbeat() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    let start = Instant::now();
    push(&mut buffer, &mut budget, stream, ",a");
    take(&mut buffer);
    (0..2).for_each(|_| beat(&mut buffer, &mut budget));
    buffer.age(start, TTL, &mut budget);
    buffer.age(start + TTL, TTL, &mut budget);
    assert!(!buffer.has_all_after(Some(0)) && buffer.has_all_after(Some(1)));
}

#[test]
fn what_the_network_acknowledged_is_retained_up_to_a_limit() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    let large = "x".repeat(MAX_RETAINED / 4);
    for _ in 0..10 {
        push(&mut buffer, &mut budget, stream, &large);
    }
    take(&mut buffer);
    buffer.acknowledge_network(buffer.position(), &mut budget);
    assert_eq!(budget.bytes(), 0);
    let (_, retained) = buffer.costs();
    assert!(retained <= MAX_RETAINED && retained > MAX_RETAINED / 2, "{retained}");
    assert!(buffer.attach(Some(0), &mut budget).is_none(), "the first seven are evicted");
    buffer.attach(Some(7), &mut budget);
    resume(&mut buffer, &mut budget, stream);
    assert_eq!(take(&mut buffer).len(), 4, "the newest three, and the reply");
}

#[test]
fn a_poll_does_not_prove_that_the_client_has_read_the_numbers() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    push(&mut buffer, &mut budget, stream, ",a");
    take(&mut buffer);
    assert_eq!(buffer.acknowledge(buffer.position(), &mut budget), Ok(()));
    assert_eq!(buffer.unacknowledged().count(), 0);
    buffer.attach(Some(0), &mut budget);
    resume(&mut buffer, &mut budget, stream);
    assert_eq!(take(&mut buffer), ["joined", "[\"s:2\",a"]);
}

#[test]
fn a_reply_that_has_arrived_in_one_epoch_has_arrived_in_the_next() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    take(&mut buffer);
    assert!(!buffer.has_reply_arrived(stream));
    buffer.acknowledge_network(buffer.position(), &mut budget);
    assert!(buffer.has_reply_arrived(stream));
    (0..2).for_each(|_| assert!(buffer.attach(None, &mut budget).is_some()));
    assert!(buffer.has_reply_arrived(stream));
    buffer.expect_reply(stream);
    assert!(!buffer.has_reply_arrived(stream), "the client has asked again");
}

#[test]
fn a_number_that_the_client_brings_back_shows_that_the_reply_before_it_has_arrived() {
    for (received, has_arrived) in [(0, false), (1, true)] {
        let (mut buffer, mut budget, stream) = first_epoch(Some(0));
        push(&mut buffer, &mut budget, stream, ",a");
        take(&mut buffer);
        buffer.attach(Some(received), &mut budget);
        assert_eq!(buffer.has_reply_arrived(stream), has_arrived, "received {received}");
        take(&mut buffer);
        buffer.attach(Some(received), &mut budget);
        assert_eq!(buffer.has_reply_arrived(stream), has_arrived, "received {received}");
    }
}

#[test]
fn a_stream_is_known_once_the_client_has_read_a_reply_and_not_only_its_network() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    take(&mut buffer);
    buffer.acknowledge_network(buffer.position(), &mut budget);
    assert!(!buffer.is_known(stream), "the page may close its connection");
    buffer.detach(1, Loss::Closed);
    buffer.attach(None, &mut budget);
    assert!(!buffer.is_known(stream));
    resume(&mut buffer, &mut budget, stream);
    take(&mut buffer);
    buffer.acknowledge_network(buffer.position(), &mut budget);
    buffer.detach(2, Loss::Cut);
    assert!(
        buffer.is_known(stream),
        "what reaches the network of a client that is cut off is read"
    );
    buffer.attach(None, &mut budget);
    buffer.expect_reply(stream);
    assert!(buffer.is_known(stream), "the client asks again");
    buffer.restart_stream(stream, &mut budget);
    assert!(!buffer.is_known(stream), "it is another one");
    buffer.set_known(stream);
    assert!(buffer.is_known(stream));
}

#[test]
fn a_reply_that_is_sent_after_its_stream_was_restarted_says_nothing_of_the_next() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    buffer.restart_stream(stream, &mut budget);
    take(&mut buffer);
    buffer.acknowledge_all(&mut budget);
    assert!(!buffer.is_known(stream) && !buffer.has_reply_arrived(stream));
}

#[test]
fn a_stream_is_known_by_a_number_that_the_client_brings_to_another_node() {
    for (received, is_known) in [(None, false), (Some(0), false), (Some(1), true), (Some(9), false)]
    {
        let (mut buffer, mut budget, stream) = first_epoch(Some(0));
        push(&mut buffer, &mut budget, stream, ",a");
        take(&mut buffer);
        buffer.fence(received, &mut budget);
        assert_eq!(buffer.is_known(stream), is_known, "{received:?}");
    }
}

#[test]
fn what_a_stream_leaves_behind_goes_before_the_reply_to_the_next_join() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    let (next, other) = (buffer.stream(), buffer.stream());
    resume(&mut buffer, &mut budget, other);
    take(&mut buffer);
    push(&mut buffer, &mut budget, other, ",other");
    push(&mut buffer, &mut budget, stream, ",end");
    buffer.end_stream(stream, &mut budget);
    resume(&mut buffer, &mut budget, next);
    assert_eq!(take(&mut buffer), ["[null,end", "joined", "[null,other"]);
}

#[test]
fn nothing_of_a_stream_that_was_restarted_is_replayed() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    push(&mut buffer, &mut budget, stream, ",sent");
    take(&mut buffer);
    push(&mut buffer, &mut budget, stream, ",waiting");
    buffer.restart_stream(stream, &mut budget);
    push(&mut buffer, &mut budget, stream, ",next");
    assert_eq!(take(&mut buffer), ["[null,waiting"], "the next one waits to be resumed");
    assert_eq!(replay(&mut buffer, &mut budget, stream), ["[null,next"]);
    buffer.attach(None, &mut budget);
    assert_eq!(replay(&mut buffer, &mut budget, stream), ["[null,next"]);
    buffer.attach(None, &mut budget);
    buffer.restart_stream(stream, &mut budget);
    assert!(replay(&mut buffer, &mut budget, stream).is_empty());
    assert_eq!(budget.bytes(), buffer.costs().0);
}

#[test]
fn the_last_message_of_a_stream_does_not_wait_for_the_client_to_resume_it() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    take(&mut buffer);
    let mut push_last = |buffer: &mut ReplayBuffer| {
        let message = Message::text("left");
        budget.restore(message.cost());
        assert!(buffer.push_last(stream, message));
        take(buffer)
    };
    assert_eq!(push_last(&mut buffer), ["left"]);
    buffer.attach(None, &mut ByteBudget::new(0));
    assert_eq!(push_last(&mut buffer), ["left"]);
}

#[test]
fn a_reply_for_an_epoch_that_is_over_resumes_nothing() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    buffer.attach(None, &mut budget);
    assert!(!buffer.resume(stream, buffer.epoch() - 1, Message::text("late")));
    assert!(take(&mut buffer).is_empty());
}

#[test]
fn each_lost_connection_halves_what_is_sent_at_once() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    let text = format!(",{}", "x".repeat(900));
    (0..100).for_each(|_| push(&mut buffer, &mut budget, stream, &text));
    let mut sent = Vec::new();
    for _ in 0..12 {
        let mut count = 0;
        buffer.take_up_to(64 << 10, |_| count += 1);
        sent.push(count - 1);
        // Once for each epoch.
        (0..3).for_each(|_| buffer.count_try(buffer.epoch()));
        buffer.attach(None, &mut budget);
        resume(&mut buffer, &mut budget, stream);
    }
    assert!(sent[0] >= 60 && sent[11] == 0, "{sent:?}");
    assert!(sent.windows(2).all(|sent| sent[1] <= sent[0] / 2), "{sent:?}");
    buffer.take_up_to(64 << 10, |_| {});
    buffer.acknowledge(buffer.position(), &mut budget).unwrap();
    assert_eq!(take_up_to(&mut buffer), 1, "at least one message");
    buffer.acknowledge(buffer.position(), &mut budget).unwrap();
    assert_eq!(take_up_to(&mut buffer), sent[0], "the rest was not tried");
}

fn take_up_to(buffer: &mut ReplayBuffer) -> usize {
    let mut count = 0;
    buffer.take_up_to(64 << 10, |_| count += 1);
    count
}

#[test]
fn a_priority_message_goes_first_and_counts_in_an_answer() {
    let (mut buffer, mut budget, stream) = first_epoch(None);
    assert_eq!(take_up_to(&mut buffer), 1);
    buffer.acknowledge(buffer.position(), &mut budget).unwrap();
    push(&mut buffer, &mut budget, stream, "large");
    let priority = Message::text("x".repeat(64 << 10));
    assert!(budget.try_acquire(priority.cost()));
    buffer.push(PRIORITY, priority);
    assert_eq!(take_up_to(&mut buffer), 1);
    assert_eq!(buffer.streams.first().map(Message::size), Some("[nulllarge".len()));
}
