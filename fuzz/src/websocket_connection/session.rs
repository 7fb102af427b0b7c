//! The session behind the connection, and its expected answers.

use tower_channels_transports::{Close, Inbound, Message, Session, outbox};

use crate::wire::{Event, Reading};

/// Echoes messages. Some binary messages trigger other actions.
pub(super) struct Echo(outbox::Sender);

/// The action that a message triggers.
enum Action {
    /// Echo the message the given number of times.
    Echo(usize),
    /// Close from outside, as the application or the server does.
    Close(Close),
    /// Reject the message.
    Reject,
}

fn action(message: &[u8], binary: bool) -> Action {
    match message {
        [0xff, 0, ..] if binary => Action::Close(Close::GoingAway),
        [0xff, 1, ..] if binary => Action::Close(Close::Restart),
        [0xff, _, ..] if binary => Action::Reject,
        [0xfe, times, ..] if binary => Action::Echo((*times).into()),
        _ => Action::Echo(1),
    }
}

impl Echo {
    pub(super) fn new(outbox: outbox::Sender) -> Self {
        Self(outbox)
    }
}

impl Session for Echo {
    fn handle_in(&mut self, inbound: Inbound<'_>) -> Result<(), Close> {
        let (message, action) = match inbound {
            Inbound::Text(text) => (Message::text(text.to_owned()), action(text.as_bytes(), false)),
            Inbound::Binary(bytes) => (Message::binary(bytes.to_vec()), action(bytes, true)),
            _ => return Err(Close::Malformed),
        };
        match action {
            Action::Echo(times) => (0..times).for_each(|_| self.0.push(message.clone())),
            Action::Close(close) => self.0.close(close),
            Action::Reject => return Err(Close::Malformed),
        }
        Ok(())
    }
}

/// The expected output for a client that accepts everything.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) messages: Vec<Event>,
    pub(super) pongs: Vec<Event>,
    /// The number of Pongs that must be present. Frames sent after the application closed are
    /// handled only if they arrived together with earlier ones.
    pub(super) sure_pongs: usize,
    /// The possible close reasons: the application's, and one caused by the client at the same
    /// time.
    pub(super) ends: Vec<Close>,
    /// Whether the outbox could overflow at some point.
    pub(super) may_overflow: bool,
}

impl Expected {
    /// Computes the expected output for a client that is silent in the end.
    pub(super) fn to(client: &Reading, outbox: usize) -> Self {
        let mut expected = Self::default();
        let mut cost = 0;
        for event in &client.events {
            let (action, message) = match event {
                Event::Text(text) => (action(text.as_bytes(), false), Message::text(text.clone())),
                Event::Binary(bytes) => (action(bytes, true), Message::binary(bytes.clone())),
                Event::Ping(payload) => {
                    expected.pongs.push(Event::Pong(payload.clone()));
                    expected.sure_pongs += usize::from(expected.ends.is_empty());
                    continue;
                }
                Event::Pong(_) | Event::Close(_) => continue,
            };
            match action {
                Action::Echo(times) if expected.ends.is_empty() => {
                    cost += times * message.cost().bytes();
                    expected.messages.extend(std::iter::repeat_n(event.clone(), times));
                }
                Action::Echo(_) => {}
                Action::Close(close) if expected.ends.is_empty() => expected.ends.push(close),
                Action::Close(_) => {}
                Action::Reject => {
                    expected.ends.push(Close::Malformed);
                    expected.may_overflow = cost > outbox;
                    return expected;
                }
            }
        }
        expected.may_overflow = cost > outbox;
        // A client that sends nothing more is closed by the idle timeout.
        expected.ends.push(client.end.unwrap_or(Close::Protocol));
        expected
    }
}
