//! [`ServerMessage`], what the serializers encode.

use crate::history::Position;
use crate::message::{Ref, Topic};
use crate::payload::Payload;

/// A message for a client, not yet encoded.
#[derive(Clone, Copy, Debug)]
pub enum ServerMessage<'a> {
    /// `phx_reply`, the reply to a message.
    Reply {
        /// The join that the message belongs to.
        join_ref: &'a Ref,
        /// The ref of the message.
        reference: &'a Ref,
        /// The topic of the message.
        topic: &'a Topic<'a>,
        /// `ok` or `error`.
        status: &'a str,
        /// The response.
        response: &'a Payload,
    },
    /// A message to one channel of one client.
    Push {
        /// The join of the channel.
        join_ref: &'a Ref,
        /// The topic.
        topic: &'a str,
        /// The event.
        event: &'a str,
        /// The payload.
        payload: &'a Payload,
        /// Where it stands in the history of the topic, for a client that wants to know. It takes the place of the ref,
        /// or in a binary message of the join_ref.
        position: Option<Position>,
    },
    /// A message to all subscribers of a topic, the same for each.
    Broadcast {
        /// The topic.
        topic: &'a str,
        /// The event.
        event: &'a str,
        /// The payload.
        payload: &'a Payload,
        /// Where it stands in the history of the topic, for a client that wants to know. It takes the place of the ref,
        /// or in a binary message of the join_ref.
        position: Option<Position>,
    },
    /// `phx_close` or `phx_error`, the end of a channel.
    End {
        /// The join_ref of the channel's last join, as the client sent it. Version 1 has room for it in
        /// the ref only.
        join_ref: &'a Ref,
        /// The join_ref again, or null in a resumable session, where version 2 has a sequence number
        /// in its place.
        reference: &'a Ref,
        /// The topic.
        topic: &'a str,
        /// The event.
        event: &'a str,
        /// The payload, as JSON text.
        payload: &'a str,
    },
}
