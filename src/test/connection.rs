//! [`Connection`]: one connection of the in-memory client.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use serde_json::Value;
use tower_channels_transports::{self as transports, Close, Inbound, Session, outbox};

use super::message::Message;
use super::unread::Unread;
use crate::payload::Payload;

pub(super) struct Connection {
    session: Box<dyn Session>,
    receiver: outbox::Receiver,
    /// The last sequence number received, if the client tracks them.
    received: Option<u64>,
}

impl Connection {
    pub(super) fn new(
        session: impl Session,
        receiver: outbox::Receiver,
        received: Option<u64>,
    ) -> Self {
        Self { session: Box::new(session), receiver, received }
    }

    /// Receives all that waits. Ready with at least one message, or with the close reason.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        unread: &mut Unread,
    ) -> Poll<Result<(), Close>> {
        let mut batch = VecDeque::new();
        let taken = self.receiver.poll_take(cx, &mut batch);
        self.receiver.release(batch.iter().map(transports::Message::cost).sum());
        self.receiver.read();
        for message in batch {
            let mut message = Message::decode(&message);
            if let Some(received) = &mut self.received {
                message.take_number(received);
            }
            unread.push(message);
        }
        taken
    }

    /// Sends a message of protocol 2.0.0. One that ends the session closes the connection.
    pub(super) fn send(
        &mut self,
        join_ref: Option<&str>,
        reference: &str,
        topic: &str,
        event: &str,
        payload: &Payload,
    ) {
        let handled = if let Some(data) = payload.as_binary() {
            let texts = [join_ref.unwrap_or_default(), reference, topic, event];
            let lengths = texts.iter().map(|text| u8::try_from(text.len()).expect("short text"));
            let mut frame: Vec<u8> = std::iter::once(0).chain(lengths).collect();
            texts.iter().for_each(|text| frame.extend_from_slice(text.as_bytes()));
            frame.extend_from_slice(data);
            self.session.handle_in(Inbound::Binary(&frame))
        } else {
            let payload: Value = payload.parse().expect("a payload is JSON or binary");
            let frame = serde_json::json!([join_ref, reference, topic, event, payload]);
            self.session.handle_in(Inbound::Text(&frame.to_string()))
        };
        if let Err(close) = handled {
            self.receiver.close(close);
        }
    }

    /// Closes it, as the client.
    pub(super) fn close(&self) {
        self.receiver.close(Close::Normal);
    }

    /// Returns the last sequence number received, if the client tracks them.
    pub(super) fn received(&self) -> Option<u64> {
        self.received
    }
}

/// Why nothing is received.
pub(super) enum Lost {
    /// The server has closed the connection.
    Closed(Close),
    /// The client has none.
    Absent,
}

/// Receives at least one message.
pub(super) async fn receive(
    connection: &mut Option<Connection>,
    unread: &mut Unread,
) -> Result<(), Lost> {
    let connection = connection.as_mut().ok_or(Lost::Absent)?;
    poll_fn(|cx| connection.poll_receive(cx, unread)).await.map_err(Lost::Closed)
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(close) => write!(f, "the connection was closed: {close:?}"),
            Self::Absent => f.write_str("there is no connection"),
        }
    }
}

/// What came in place of an expected message, for the end of a panic.
pub(super) struct Missing<'a> {
    pub(super) lost: Option<Lost>,
    pub(super) unread: &'a Unread,
}

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(lost) = &self.lost {
            write!(f, ", but {lost}")?;
        }
        write!(f, "; {}", self.unread)
    }
}
