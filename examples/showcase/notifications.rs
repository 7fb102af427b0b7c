//! Notifications: `user:ada` is private, and all devices of Ada have joined it. Any code that has the endpoint's
//! `PubSub` notifies her: a channel, an HTTP handler, a task.
//!
//! What devices get is the whole inbox with a version, not a change to it: they agree, whatever a device has missed.

mod senders;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tower_channels::channel::{Error, Result};
use tower_channels::{Channel, Joined, Payload, PubSub, Reply, Socket};

use crate::device::Device;
pub use senders::{Shop, notify_by_http};

const KEPT: usize = 20;
const MAX_TEXT: usize = 200;

#[derive(Clone, Copy, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Orders,
    Reports,
}

#[derive(Serialize)]
struct Note {
    id: u64,
    kind: Kind,
    text: String,
}

#[derive(Default, Serialize)]
struct Notes {
    version: u64,
    last_id: u64,
    read_id: u64,
    unread: usize,
    notes: VecDeque<Note>,
    muted: BTreeSet<Kind>,
}

/// The inboxes of all people.
#[derive(Clone, Default)]
pub struct Inboxes(Arc<Mutex<HashMap<String, Notes>>>);

impl Inboxes {
    /// Notifies a person, unless they want nothing of this kind.
    pub fn notify(&self, pubsub: &PubSub, user: &str, kind: Kind, text: &str) {
        self.change(pubsub, user, |inbox| {
            if inbox.muted.contains(&kind) {
                return;
            }
            inbox.last_id += 1;
            let text = text.chars().take(MAX_TEXT).collect();
            inbox.notes.push_front(Note { id: inbox.last_id, kind, text });
            inbox.notes.truncate(KEPT);
        });
    }

    /// Broadcasts under the lock, so that devices get the versions in their order.
    fn change(&self, pubsub: &PubSub, user: &str, change: impl FnOnce(&mut Notes)) {
        let mut inboxes = self.0.lock();
        let inbox = inboxes.entry(user.to_owned()).or_default();
        change(inbox);
        inbox.version += 1;
        inbox.unread = inbox.notes.iter().filter(|note| note.id > inbox.read_id).count();
        pubsub.broadcast(&format!("user:{user}"), "inbox", json!(inbox));
    }
}

/// A device that shows the inbox of its user.
pub struct Inbox;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum In {
    Read { id: u64 },
    Mute { kind: Kind, on: bool },
}

impl Channel for Inbox {
    type Assigns = Device;
    type Info = ();

    async fn join(topic: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        if topic.strip_prefix("user:") != Some(&socket.assigns().user) {
            return Err(Error::reason("not yours"));
        }
        Ok(Self.into())
    }

    /// From here on the device gets what is broadcast.
    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        let Device { user, state } = socket.assigns();
        let mut inboxes = state.inboxes.0.lock();
        socket.push("inbox", json!(inboxes.entry(user.clone()).or_default()));
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        msg: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        let Device { user, state } = socket.assigns();
        match msg.parse_event(event)? {
            In::Read { id } => state.inboxes.change(socket.pubsub(), user, |inbox| {
                inbox.read_id = inbox.read_id.max(id.min(inbox.last_id));
            }),
            In::Mute { kind, on } => state.inboxes.change(socket.pubsub(), user, |inbox| {
                if on {
                    inbox.muted.insert(kind)
                } else {
                    inbox.muted.remove(&kind)
                };
            }),
        }
        Ok(Reply::ack())
    }
}

#[cfg(test)]
mod tests;
