//! The numbers of messages, and what a client acknowledges with them.

use super::*;

#[test]
fn what_was_sent_waits_for_its_stream_in_the_next_epoch_and_gets_new_numbers() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    push(&mut buffer, &mut budget, stream, ",a");
    push(&mut buffer, &mut budget, stream, ",b");
    assert_eq!(take(&mut buffer), ["joined", "[\"s:1\",a", "[\"s:2\",b"]);
    buffer.attach(Some(1), &mut budget);
    assert!(take(&mut buffer).is_empty());
    resume(&mut buffer, &mut budget, stream);
    assert_eq!(take(&mut buffer), ["joined", "[\"s:3\",b"]);
}

#[test]
fn a_client_that_no_longer_reads_numbers_gets_none() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    push(&mut buffer, &mut budget, stream, ",a");
    take(&mut buffer);
    buffer.attach(None, &mut budget);
    resume(&mut buffer, &mut budget, stream);
    assert_eq!(take(&mut buffer), ["joined", "[null,a"]);
}

#[test]
fn numbers_go_on_from_what_the_client_has_seen_of_another_session() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(41));
    push(&mut buffer, &mut budget, stream, ",a");
    assert_eq!(take(&mut buffer), ["joined", "[\"s:42\",a"]);
}

#[test]
fn a_number_of_an_earlier_epoch_acknowledges_nothing_of_the_last_one() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    texts(2).iter().for_each(|text| push(&mut buffer, &mut budget, stream, text));
    assert_eq!(take(&mut buffer), ["joined", "[\"s:1\",1", "[\"s:2\",2"]);
    buffer.attach(Some(0), &mut budget);
    assert_eq!(replay(&mut buffer, &mut budget, stream), ["[\"s:3\",1", "[\"s:4\",2"]);
    buffer.attach(Some(2), &mut budget);
    assert_eq!(replay(&mut buffer, &mut budget, stream), ["[\"s:5\",1", "[\"s:6\",2"]);
}

#[test]
fn a_number_of_the_last_epoch_acknowledges_what_that_epoch_sent_and_nothing_that_waits() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    let other = buffer.stream();
    resume(&mut buffer, &mut budget, other);
    push(&mut buffer, &mut budget, other, ",other");
    texts(2).iter().for_each(|text| push(&mut buffer, &mut budget, stream, text));
    assert_eq!(take(&mut buffer).len(), 5);
    buffer.attach(Some(0), &mut budget);
    assert_eq!(replay(&mut buffer, &mut budget, stream), ["[\"s:4\",1", "[\"s:5\",2"]);
    buffer.attach(Some(4), &mut budget);
    assert_eq!(replay(&mut buffer, &mut budget, stream), ["[\"s:6\",2"]);
    assert_eq!(replay(&mut buffer, &mut budget, other), ["[\"s:7\",other"]);
}

#[test]
fn epochs_that_send_nothing_keep_the_numbers_of_the_one_before() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    texts(3).iter().for_each(|text| push(&mut buffer, &mut budget, stream, text));
    take(&mut buffer);
    for _ in 0..3 {
        buffer.attach(Some(1), &mut budget);
        assert!(take(&mut buffer).is_empty());
    }
    assert_eq!(replay(&mut buffer, &mut budget, stream), ["[\"s:4\",2", "[\"s:5\",3"]);
}

#[test]
fn a_number_that_was_never_given_acknowledges_nothing() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    texts(2).iter().for_each(|text| push(&mut buffer, &mut budget, stream, text));
    take(&mut buffer);
    buffer.attach(Some(9), &mut budget);
    assert_eq!(replay(&mut buffer, &mut budget, stream), ["[\"s:10\",1", "[\"s:11\",2"]);
}

#[test]
fn a_number_acknowledges_nothing_of_an_epoch_without_numbers() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    texts(2).iter().for_each(|text| push(&mut buffer, &mut budget, stream, text));
    take(&mut buffer);
    buffer.attach(None, &mut budget);
    assert_eq!(replay(&mut buffer, &mut budget, stream), ["[null,1", "[null,2"]);
    buffer.attach(Some(2), &mut budget);
    assert_eq!(replay(&mut buffer, &mut budget, stream), ["[\"s:3\",1", "[\"s:4\",2"]);
}

#[test]
fn a_number_of_another_session_acknowledges_nothing_on_another_node_either() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    texts(2).iter().for_each(|text| push(&mut buffer, &mut budget, stream, text));
    assert_eq!(take(&mut buffer), ["joined", "[\"s:1\",1", "[\"s:2\",2"]);
    buffer.fence(None, &mut budget);
    for (received, expected) in [
        (0, vec!["[\"s:3\",1", "[\"s:4\",2"]),
        (1, vec!["[\"s:3\",2"]),
        (15, vec!["[\"s:16\",1", "[\"s:17\",2"]),
    ] {
        let (mut there, mut budget) = (ReplayBuffer::new(received), ByteBudget::new(1000));
        there.attach(None, &mut budget);
        there.detach(1, Loss::GivenUp);
        there.import(buffer.export(), &mut budget);
        there.attach(Some(received), &mut budget);
        assert_eq!(replay(&mut there, &mut budget, stream), expected, "{received}");
    }
}

#[test]
fn a_number_of_a_session_on_a_node_that_could_not_be_asked_acknowledges_nothing() {
    let (mut older, mut budget, stream) = first_epoch(Some(0));
    older.keep_apart(1_000_000);
    texts(2).iter().for_each(|text| push(&mut older, &mut budget, stream, text));
    take(&mut older);
    // The client has seen 1, and comes to another node, whose reply to its join it does not hear.
    let mut newer = ReplayBuffer::new(1);
    newer.keep_apart(1000);
    newer.attach(Some(1), &mut budget);
    assert_eq!(newer.stream(), stream);
    resume(&mut newer, &mut budget, stream);
    texts(3).iter().for_each(|text| push(&mut newer, &mut budget, stream, text));
    let sent = ["joined", "[\"s:1002\",1", "[\"s:1003\",2", "[\"s:1004\",3"];
    assert_eq!(take(&mut newer), sent);
    // It goes on in the older session for a while, and comes back.
    older.attach(Some(1), &mut budget);
    assert_eq!(replay(&mut older, &mut budget, stream), ["[\"s:3\",2"]);
    newer.attach(Some(3), &mut budget);
    let again = replay(&mut newer, &mut budget, stream);
    assert_eq!(again, ["[\"s:1005\",1", "[\"s:1006\",2", "[\"s:1007\",3"]);
    // And the other way round.
    push(&mut older, &mut budget, stream, ",4");
    older.attach(Some(1007), &mut budget);
    let again = replay(&mut older, &mut budget, stream);
    assert_eq!(again, ["[\"s:1001008\",2", "[\"s:1001009\",4"]);
}

#[test]
fn a_number_of_another_session_does_not_hide_a_gap() {
    let (mut buffer, mut budget, stream) = first_epoch(Some(0));
    let start = Instant::now();
    push(&mut buffer, &mut budget, stream, ",a");
    take(&mut buffer);
    buffer.acknowledge_network(buffer.position(), &mut budget);
    for seconds in [0, 90, 180] {
        buffer.age(start + Duration::from_secs(seconds), TTL, &mut budget);
    }
    let can_go_on = [0, 1, 2, 50].map(|received| buffer.has_all_after(Some(received)));
    assert_eq!(can_go_on, [false, true, false, false]);
}
