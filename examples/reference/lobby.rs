//! The channel `lobby:*`: presence.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use tower_channels::channel::{Error, Result};
use tower_channels::{Channel, Joined, Payload, Presence, PresenceError, Reply, Socket};

use super::User;
use super::room::{Object, field};

/// A member of a lobby, who is tracked with a name.
pub struct Lobby {
    name: Option<Box<RawValue>>,
}

impl Lobby {
    fn key(socket: &Socket<Self>) -> &str {
        socket.assigns().id.as_deref().unwrap_or("anon")
    }
}

impl Channel for Lobby {
    type Assigns = User;
    type Info = ();

    async fn join(_: &str, payload: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        let mut payload: Object = payload.parse().unwrap_or_default();
        Ok(Self { name: payload.remove("name") }.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        let meta = BTreeMap::from([("name", self.name.take())]);
        Presence::track(socket, Self::key(socket), meta)?;
        Presence::push_state(socket);
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        match event {
            "rename" => {
                let name: Value = serde_json::from_str(field(&payload, "name")?.get())?;
                match Presence::update(socket, Self::key(socket), json!({ "name": name })) {
                    Ok(()) | Err(PresenceError::NotTracked) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            "leave_presence" => Presence::untrack(socket, Self::key(socket)),
            _ => return Err(Error::unmatched(event)),
        }
        Ok(Reply::ack())
    }
}
