//! The session behind the connection, and what it answers when nothing goes wrong.

use tower_channels_transports::{Close, Inbound, Message, Outbox, Session};

use crate::wire::Event;

/// Sends back what comes. Some binary messages make it do more.
pub(super) struct Echo(Outbox);

/// What a message calls for.
enum Act {
    /// Send it back, so many times.
    Echo(usize),
    /// Close from outside, as the application and the server do.
    Close(Close),
    /// Refuse the message.
    Refuse,
}

fn act(message: &[u8], binary: bool) -> Act {
    match message {
        [0xff, 0, ..] if binary => Act::Close(Close::GoingAway),
        [0xff, 1, ..] if binary => Act::Close(Close::Restart),
        [0xff, _, ..] if binary => Act::Refuse,
        [0xfe, times, ..] if binary => Act::Echo((*times).into()),
        _ => Act::Echo(1),
    }
}

impl Echo {
    pub(super) fn new(outbox: Outbox) -> Self {
        Self(outbox)
    }
}

impl Session for Echo {
    fn handle_in(&mut self, inbound: Inbound<'_>) -> Result<(), Close> {
        let (message, act) = match inbound {
            Inbound::Text(text) => (Message::text(text.to_owned()), act(text.as_bytes(), false)),
            Inbound::Binary(bytes) => (Message::binary(bytes.to_vec()), act(bytes, true)),
        };
        match act {
            Act::Echo(times) => (0..times).for_each(|_| self.0.push(message.clone())),
            Act::Close(close) => self.0.close(close),
            Act::Refuse => return Err(Close::Malformed),
        }
        Ok(())
    }
}

/// What a client gets that takes everything.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) messages: Vec<Event>,
    pub(super) pongs: Vec<Event>,
    /// The session's own reason for an end.
    pub(super) end: Option<Close>,
    /// Whether it could be too much for the outbox at any time.
    pub(super) may_overflow: bool,
}

pub(super) fn expected(events: &[Event], outbox: usize) -> Expected {
    let mut expected = Expected::default();
    let mut cost = 0;
    for event in events {
        let act = match event {
            Event::Ping(payload) => {
                expected.pongs.push(Event::Pong(payload.clone()));
                continue;
            }
            Event::Text(text) => act(text.as_bytes(), false),
            Event::Binary(bytes) => act(bytes, true),
            Event::Pong(_) | Event::Close(_) => continue,
        };
        match act {
            Act::Echo(times) => {
                let size = match event {
                    Event::Text(text) => Message::text(text.clone()).cost(),
                    Event::Binary(bytes) => Message::binary(bytes.clone()).cost(),
                    _ => 0,
                };
                cost += times * size;
                expected.messages.extend(std::iter::repeat_n(event.clone(), times));
            }
            Act::Close(close) => {
                expected.end = Some(close);
                break;
            }
            Act::Refuse => {
                expected.end = Some(Close::Malformed);
                break;
            }
        }
    }
    expected.may_overflow = cost > outbox;
    expected
}
