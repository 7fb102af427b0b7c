//! A shared document: people write in one text at the same time, in `doc:letter`.
//!
//! The text is a Yjs document, here and in the pages. Its updates may come in any order and more than once, and everybody
//! ends with the same text. So there is no queue, no version and no conflict: a page that joins gets the whole document,
//! sends what the server does not have, and is up to date.
//!
//! Cursors are presence: whoever goes takes theirs along.
//!
//! A page without Yjs sends edits of a plain text: the channel is a peer of the others in its place.

mod plain;

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tower_channels::channel::{Error, OrReply, Result};
use tower_channels::{Channel, Joined, Payload, Presence, Reply, Socket};
use yrs::updates::decoder::Decode;
use yrs::{Doc, ReadTxn, StateVector, Transact, Update};

use crate::device::Device;
use plain::Replica;

const MAX_UPDATE: usize = 64 << 10;
/// A Yjs document keeps a trace of everything that was ever written.
const MAX_DOCUMENT: usize = 512 << 10;
const MAX_CURSOR: usize = 1 << 10;

/// The document, of which there is one.
#[derive(Clone, Default)]
pub struct Letter(Arc<Mutex<Doc>>);

impl Letter {
    fn apply(&self, update: &[u8]) -> Result<(), &'static str> {
        if update.len() > MAX_UPDATE {
            return Err("too much at once");
        }
        if self.state().len() + update.len() > MAX_DOCUMENT {
            return Err("the document is full");
        }
        let update = Update::decode_v1(update).map_err(|_| "not an update")?;
        self.0.lock().transact_mut().apply_update(update).map_err(|_| "not an update")
    }

    /// Everything, as one update.
    fn state(&self) -> Vec<u8> {
        self.since(&StateVector::default())
    }

    /// What somebody does not have, as one update.
    fn since(&self, known: &StateVector) -> Vec<u8> {
        self.0.lock().transact().encode_state_as_update_v1(known)
    }
}

/// A page that shows the document.
pub struct Document {
    /// For a page without Yjs.
    replica: Option<Replica>,
}

#[derive(Deserialize)]
struct Join {
    #[serde(default)]
    plain: bool,
}

impl Channel for Document {
    type Assigns = Device;
    type Info = ();

    async fn join(topic: &str, msg: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        if topic != "doc:letter" {
            return Err(Error::reason("no such document"));
        }
        let Join { plain } = msg.parse()?;
        Ok(Self { replica: plain.then(Replica::new) }.into())
    }

    /// The page gets the updates of others from here on, and applies what it gets twice once.
    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        let Device { user, state } = socket.assigns();
        if self.replica.is_none() {
            socket.push("state", Payload::binary(state.letter.state()));
        }
        Presence::track(socket, user, json!({ "cursor": null }))?;
        Presence::push_state(socket);
        Ok(())
    }

    /// A page that returns may have written meanwhile, too.
    async fn resume(&mut self, _: Payload, socket: &Socket<Self>) -> Result<Option<Payload>> {
        if self.replica.is_none() {
            socket.push("state", Payload::binary(socket.assigns().state.letter.state()));
        }
        Ok(Some(json!({ "resumed": true }).into()))
    }

    async fn handle_in(
        &mut self,
        event: &str,
        msg: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        let Device { user, state } = socket.assigns();
        match event {
            "update" => {
                let update = msg.as_binary().or_reply("not an update")?;
                state.letter.apply(update).map_err(Error::reason)?;
                socket.broadcast_from("update", Payload::binary(update.clone()));
                Ok(Reply::ack())
            }
            // For a page without Yjs, an `update` of others says only that there is another text.
            "edit" => {
                let replica = self.replica.as_mut().or_reply("not a plain page")?;
                let made = replica.edit(&msg.parse()?, &state.letter);
                let text = replica.catch_up(&state.letter).map_err(Error::reason)?;
                let update = made.map_err(|reason| {
                    Error::reply(json!({ "reason": reason, "text": text.as_str() }))
                })?;
                if let Some(update) = update {
                    socket.broadcast_from("update", Payload::binary(update));
                }
                Ok(Reply::ok(json!({ "text": text })))
            }
            // Where the cursor is, in terms of Yjs: between two characters, whatever is written around them.
            "cursor" if msg.as_json().is_some_and(|json| json.len() <= MAX_CURSOR) => {
                Presence::update(socket, user, json!({ "cursor": msg.parse::<Value>()? }))?;
                Ok(Reply::ack())
            }
            _ => Err(Error::unmatched(event)),
        }
    }
}

#[cfg(test)]
mod tests;
