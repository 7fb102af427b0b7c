//! Access to the encoded form of sessions for the fuzz target.

#![allow(missing_docs)]

use std::collections::VecDeque;
use std::task::{Context, Waker};

use bytes::Bytes;

use super::moved::MovedSession;
use crate::outbox;

/// Decodes a session, encodes it again, and lets a client use its outbox.
///
/// # Panics
///
/// If anything of it does not survive that.
pub fn move_session(bytes: &[u8]) {
    let Ok(session) = MovedSession::decode(Bytes::copy_from_slice(bytes), LIMIT) else { return };
    assert_eq!(MovedSession::decode(session.encode(), LIMIT).as_ref(), Ok(&session));
    for received in [None, Some(0), Some(session.outbox.next_number)] {
        let arrive = |moved| {
            let sender = outbox::channel(LIMIT).1.into_resumable(received.unwrap_or(0));
            let _ = sender.import(moved);
            sender
        };
        // Without what no client will receive.
        let moved = arrive(session.outbox.clone()).export().expect("an open outbox");
        let ids: Vec<_> = moved.streams.iter().map(|stream| stream.id).collect();
        assert_eq!(arrive(moved.clone()).export().as_ref(), Some(&moved));
        let sender = arrive(moved);
        let Some(mut receiver) = sender.attach(received) else { continue };
        for id in ids {
            sender.stream_of(id).resume(receiver.epoch(), crate::Message::text("reply"));
        }
        let (mut batch, mut cx) = (VecDeque::new(), Context::from_waker(Waker::noop()));
        let _ = receiver.poll_take(&mut cx, &mut batch);
        receiver.read();
        assert_eq!(sender.backlog(), 0, "everything is read");
    }
}

const LIMIT: usize = 1 << 20;
