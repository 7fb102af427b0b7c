use super::*;

fn outbox() -> MovedOutbox {
    let numbered = |number| {
        let mut message = Message::with_placeholder("[null]", 1);
        message.set_number(number);
        message
    };
    let stream = |id, waiting| MovedStream {
        id,
        has_reply_arrived: id == 1,
        discards_volatile: id == 2,
        waiting,
    };
    MovedOutbox {
        next_number: 9,
        evicted: 3,
        was_cut: true,
        last_stream: 7,
        streams: vec![
            stream(1, vec![Message::text("a").volatile(), Message::binary("b").numbered()]),
            stream(2, vec![]),
        ],
        sent: vec![(1, numbered(4)), (2, Message::text("é")), (1, numbered(8))],
        acked: 2,
    }
}

fn session(outbox: MovedOutbox) -> MovedSession {
    let age = Duration::from_millis;
    let conduct = Conduct { conflicts: vec![age(5), age(70)], short_lived: 3 };
    MovedSession { conduct, packed: "packed".into(), outbox }
}

const LIMIT: usize = 1 << 20;

fn reads(session: &MovedSession, limit: usize) -> bool {
    let decoded = MovedSession::decode(session.encode(), limit);
    assert!(decoded.as_ref().is_ok_and(|it| it == session) || decoded == Err(NotUnderstood));
    decoded.is_ok()
}

#[test]
fn a_session_arrives_as_it_left() {
    assert!(reads(&session(outbox()), LIMIT));
    assert!(reads(&session(MovedOutbox { next_number: 1, ..MovedOutbox::default() }), LIMIT));
}

#[test]
fn another_version_and_anything_else_is_not_understood() {
    let encoded = session(outbox()).encode();
    let other = [&[2], &encoded[1..]].concat();
    for bytes in [&[][..], &other, &encoded[1..], &encoded[..encoded.len() - 1], b"\x01\xff"] {
        let bytes = Bytes::copy_from_slice(bytes);
        assert_eq!(MovedSession::decode(bytes, LIMIT), Err(NotUnderstood));
    }
}

#[test]
fn numbers_and_streams_that_no_outbox_has_are_not_understood() {
    let changed = |change: fn(&mut MovedOutbox)| {
        let mut outbox = outbox();
        change(&mut outbox);
        session(outbox)
    };
    for changed in [
        changed(|outbox| outbox.next_number = 0),
        changed(|outbox| outbox.next_number = u64::MAX),
        changed(|outbox| outbox.evicted = u64::MAX),
        changed(|outbox| outbox.last_stream = u64::MAX),
        changed(|outbox| outbox.last_stream = 1),
        changed(|outbox| outbox.streams[0].id = 0),
        changed(|outbox| outbox.streams.swap(0, 1)),
        changed(|outbox| outbox.streams[1].id = 1),
        changed(|outbox| outbox.acked = 4),
    ] {
        assert!(!reads(&changed, LIMIT), "{changed:?}");
    }
}

#[test]
fn a_session_is_as_large_as_an_outbox_of_the_limit_and_no_larger() {
    let with = |count: usize| {
        let waiting = vec![Message::text("x".repeat(1000)); count];
        session(MovedOutbox {
            streams: vec![MovedStream { waiting, ..outbox().streams[0].clone() }],
            ..outbox()
        })
    };
    let cost = Message::text("x".repeat(1000)).cost().bytes();
    let most = (LIMIT + MAX_RETAINED) / cost;
    assert!(reads(&with(most), LIMIT));
    assert!(!reads(&with(most + 2), LIMIT));
    assert!(!reads(&with(most), LIMIT / 2));
    let streams = (1..=LIMIT as u64).map(|id| MovedStream {
        id,
        waiting: vec![],
        ..outbox().streams[0].clone()
    });
    let many = MovedOutbox { streams: streams.collect(), last_stream: LIMIT as u64, ..outbox() };
    assert!(!reads(&session(many), LIMIT));
}

#[test]
fn a_decoded_outbox_can_be_used() {
    let encoded = session(outbox()).encode();
    crate::resume::fuzzing::move_session(&encoded);
}
