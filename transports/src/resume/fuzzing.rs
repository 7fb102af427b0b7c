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
        let moved = session.outbox.clone();
        let ids: Vec<_> = moved.streams.iter().map(|stream| stream.id).collect();
        let sender = outbox::channel(LIMIT).1.into_resumable(received.unwrap_or(0));
        sender.import(moved.clone());
        let again = sender.export();
        assert_eq!(again.map(|again| again.streams), Some(moved.streams.clone()));

        let sender = outbox::channel(LIMIT).1.into_resumable(received.unwrap_or(0));
        sender.import(moved);
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
