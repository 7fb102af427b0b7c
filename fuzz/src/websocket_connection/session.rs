//! The session behind the connection, and what it answers when nothing goes wrong.

use tower_channels_transports::{Close, Inbound, Message, outbox, Session};

use crate::wire::{Event, Reading};

/// Sends back what comes. Some binary messages make it do more.
pub(super) struct Echo(outbox::Sender);

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
    pub(super) fn new(outbox: outbox::Sender) -> Self {
        Self(outbox)
    }
}

impl Session for Echo {
    fn handle_in(&mut self, inbound: Inbound<'_>) -> Result<(), Close> {
        let (message, act) = match inbound {
            Inbound::Text(text) => (Message::text(text.to_owned()), act(text.as_bytes(), false)),
            Inbound::Binary(bytes) => (Message::binary(bytes.to_vec()), act(bytes, true)),
            _ => return Err(Close::Malformed),
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
    /// How many of the Pongs cannot be missing. What the client sent after the application closed is
    /// heard only if it came at the same time.
    pub(super) sure_pongs: usize,
    /// The possible ends: the application's, and what the client did at the same time.
    pub(super) ends: Vec<Close>,
    /// Whether it could be too much for the outbox at any time.
    pub(super) may_overflow: bool,
}

impl Expected {
    /// What the answers are to a client that was silent in the end.
    pub(super) fn to(client: &Reading, outbox: usize) -> Self {
        let mut expected = Self::default();
        let mut cost = 0;
        for event in &client.events {
            let (act, message) = match event {
                Event::Text(text) => (act(text.as_bytes(), false), Message::text(text.clone())),
                Event::Binary(bytes) => (act(bytes, true), Message::binary(bytes.clone())),
                Event::Ping(payload) => {
                    expected.pongs.push(Event::Pong(payload.clone()));
                    expected.sure_pongs += usize::from(expected.ends.is_empty());
                    continue;
                }
                Event::Pong(_) | Event::Close(_) => continue,
            };
            match act {
                Act::Echo(times) if expected.ends.is_empty() => {
                    cost += times * message.cost();
                    expected.messages.extend(std::iter::repeat_n(event.clone(), times));
                }
                Act::Echo(_) => {}
                Act::Close(close) if expected.ends.is_empty() => expected.ends.push(close),
                Act::Close(_) => {}
                Act::Refuse => {
                    expected.ends.push(Close::Malformed);
                    expected.may_overflow = cost > outbox;
                    return expected;
                }
            }
        }
        expected.may_overflow = cost > outbox;
        // The idle timeout is the end of a client that says nothing more.
        expected.ends.push(client.end.unwrap_or(Close::Protocol));
        expected
    }
}
