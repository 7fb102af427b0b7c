//! The way to one client: its outbox, and the version of the protocol that it speaks.

use tower_channels_transports::{Close, Outbox};

use crate::message::{Name, Ref};
use crate::reply::Reply;
use crate::serializer::{Outgoing, Version};

/// The way to one client. A cheap clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) outbox: Outbox,
    pub(crate) version: Version,
}

impl Client {
    /// Sends a message, unless the client's version cannot say it: that is counted and logged, and
    /// hurts nobody else.
    pub(crate) fn send(&self, message: &Outgoing<'_>) {
        match self.version.encode(message) {
            Some(message) => self.outbox.push(message),
            None => Self::skipped(),
        }
    }

    /// Counts a message that this client's version cannot say.
    pub(crate) fn skipped() {
        metrics::counter!("tower_channels_messages_skipped").increment(1);
        tracing::debug!("a message was skipped that the client's protocol version cannot say");
    }

    /// Answers a message. Nothing is sent for [`Reply::None`].
    pub(crate) fn reply(&self, join_ref: &Ref, reference: &Ref, topic: &Name<'_>, reply: &Reply) {
        let (status, response) = match reply {
            Reply::None => return,
            Reply::Ok(response) => ("ok", response),
            Reply::Error(response) => ("error", response),
        };
        if reference.as_json().is_none() && response.as_binary().is_none() {
            // The ref came in a binary frame and JSON cannot repeat it; Phoenix dies of that too.
            self.outbox.close(Close::Malformed);
        } else {
            self.send(&Outgoing::Reply { join_ref, reference, topic, status, response });
        }
    }

    /// Answers a message to a topic on which nothing is joined: without a join_ref, even if one was
    /// sent.
    pub(crate) fn reply_unmatched(&self, reference: &Ref, topic: &Name<'_>) {
        self.reply(&Ref::NULL, reference, topic, &Reply::reason("unmatched topic"));
    }

    /// Says that a channel has ended, with `phx_close` or `phx_error`.
    pub(crate) fn end(&self, join_ref: &Ref, topic: &str, event: &str, payload: &str) {
        self.send(&Outgoing::End { join_ref, topic, event, payload });
    }
}
