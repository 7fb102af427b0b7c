//! What must be true of any frame and any parts. Used by the fuzz targets; not part of the API.

use std::time::Duration;

use bytes::Bytes;

use super::parts::{self, MAX_BYTES, MAX_UNFINISHED, Parts};
use super::wire::questions::{self, Answer, Notice, Question};
use super::wire::{self, Body, Part};
use crate::adapter::NodeId;

/// Reads arbitrary bytes as a frame, and as a body.
///
/// # Panics
/// If what was read does not survive encoding and decoding.
pub fn decode(bytes: &[u8]) {
    let frame = Bytes::copy_from_slice(bytes);
    check(frame.clone());
    if let Ok((header, body)) = wire::decode_header(frame.clone(), wire::VERSIONS) {
        check(body.clone());
        if let Ok(Some(body)) = wire::decode_body(body) {
            let mut again = wire::encode(frame[0] & 0xf, header.from, body.clone());
            wire::set_number(&mut again, header.number);
            let (other, rest) =
                wire::decode_header(again.freeze(), wire::VERSIONS).expect("it was encoded");
            assert_eq!((other, wire::decode_body(rest)), (header, Ok(Some(body))));
        }
    }
}

/// Returns whether this is a frame whose body is known.
pub fn is_readable(frame: &[u8]) -> bool {
    let decoded = wire::decode_header(Bytes::copy_from_slice(frame), wire::VERSIONS);
    decoded.is_ok_and(|(_, body)| matches!(wire::decode_body(body), Ok(Some(_))))
}

fn check(body: Bytes) {
    if let Ok(Some(body)) = wire::decode_body(body) {
        let encoded = wire::encode(1, NodeId(1), body.clone());
        let decoded = wire::decode_body(wire::body_of(encoded.clone()));
        assert_eq!(decoded, Ok(Some(body.clone())));
        assert_eq!(wire::encode(1, NodeId(1), body), encoded, "there is one encoding");
    }
}

/// Cuts arbitrary bytes into parts, and takes arbitrary parts of several senders.
///
/// # Panics
/// If the parts of a body do not give it back, or those of several hold more than is allowed.
pub fn reassemble(bytes: &[u8]) {
    let mut all = Parts::default();
    let mut now = Duration::ZERO;
    for group in bytes.chunks_exact(5) {
        let [from, id, index, count, length] = [0, 1, 2, 3, 4].map(|at| group[at]);
        let body = Bytes::from(vec![id; usize::from(length).pow(2) * 64]);
        let (id, index, count) = (u64::from(id), u32::from(index), u32::from(count));
        let part = Part { id, index, count, bytes: body, ..Part::default() };
        let _ = all.add(NodeId(u64::from(from % 8)), &part, now);
        now += Duration::from_millis(10);
        all.expire(now);
        let (unfinished, held) = all.size();
        assert!(
            unfinished <= MAX_UNFINISHED && held <= 8 * MAX_BYTES,
            "{unfinished} of {held} bytes"
        );
    }
    let Some(size) = bytes.first().map(|size| usize::from(*size)) else { return };
    let mut all = Parts::default();
    let parts = parts::cut(7, Bytes::copy_from_slice(bytes), size);
    let whole: Vec<_> = parts.filter_map(|part| all.add(NodeId(1), &part, now)).collect();
    assert_eq!(whole, [bytes]);
    assert_eq!(all.size(), (0, 0));
}

pub use super::questions::model::walk as ask;

/// Returns frames of each kind, as seeds.
pub fn frames() -> Vec<Vec<u8>> {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let broadcast = wire::Broadcast {
        topic: bytes("room:1"),
        event: bytes("news"),
        payload: bytes("{}"),
        is_binary: false,
    };
    let part = Part { id: 1, count: 2, bytes: bytes("\x0a\x04\x0a\x02"), ..Part::default() };
    let message = wire::ShardMessage { shard: 1, json: bytes("{}") };
    let ask = |question| Body::Ask(questions::Ask { id: 1, endpoint: 0, question: Some(question) });
    let answer = |answer| Body::Answer(questions::Answered { id: 1, answer: Some(answer) });
    let notice = |notice| Body::Notice(questions::Notify { notice: Some(notice) });
    let ids = || questions::Ids { ids: vec![1, 300] };
    let token = || "phx-lp.0123456789012345678901".to_owned();
    let offer = questions::Offer {
        id: "abcdefghijklmnopqrstu".into(),
        socket_id: Some("ann".into()),
        received: Some(3),
    };
    let post = questions::Post { token: token(), is_ndjson: false, body: bytes("[]") };
    let relayed = questions::Relayed { status: 200, retry_after: Some(3), body: bytes("{}") };
    let took = questions::Took { endpoint: 0, id: offer.id.clone(), generation: 2 };
    let offered = questions::Offered { ticket: 1, outline: bytes("outline") };
    let bodies = [
        Body::Broadcast(broadcast),
        Body::Beat(wire::Beat { age: 9, max_version: 1, is_hello: true, ..Default::default() }),
        Body::Bye(1),
        Body::Disconnects(wire::Disconnects {
            first: 1,
            ids: vec!["ann".into()],
            is_answer: false,
        }),
        Body::Resend(wire::Resend { first: 1, since: 0 }),
        Body::Lost(wire::Lost { topics: vec!["room:1".into()], numbers: vec![1] }),
        Body::Presence(wire::Presence { messages: vec![message] }),
        Body::Part(part),
        Body::Probe(()),
        ask(Question::Poll(questions::Poll { token: token() })),
        ask(Question::Post(post)),
        ask(Question::Offer(offer)),
        ask(Question::take(1, bytes("prepared"))),
        answer(Answer::NotHere(())),
        answer(Answer::Busy(())),
        answer(Answer::Relayed(relayed)),
        answer(Answer::Offered(offered)),
        answer(Answer::InUse(())),
        answer(Answer::Given(bytes("state"))),
        Body::Accepted(ids()),
        Body::Cancel(ids()),
        notice(Notice::Took(took)),
        notice(Notice::Settled(1)),
    ];
    bodies.map(|body| wire::encode(1, NodeId(2), body).to_vec()).into()
}
