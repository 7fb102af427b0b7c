//! The people in a room: each is listed once, under their name, with one meta per tab.
//!
//! A new member gets a `presence_state`, and everyone in the room a `presence_diff` of every
//! change. An entry lives as long as its channel, so it survives a lost connection while the
//! session waits to be resumed.
//!
//! A client only sends two booleans. The metas that others see are built here.

use std::mem;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tower_channels::{Presence, PresenceError, Socket};

use crate::room::Room;

/// The activity of a user in one tab.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Doing {
    pub typing: bool,
    pub away: bool,
}

/// Sent to the channel when a typing user has been silent for a while, or has lost the connection.
pub struct Paused;

impl Room {
    pub fn appear(&self, socket: &Socket<Self>) -> Result<(), PresenceError> {
        Presence::track(socket, &self.person.name, self.meta())?;
        Presence::push_state(socket);
        Ok(())
    }

    pub fn rename(&mut self, name: String, socket: &Socket<Self>) -> Result<(), PresenceError> {
        if name == self.person.name {
            return Ok(());
        }
        Presence::untrack(socket, &self.person.name);
        self.person.name = name;
        Presence::track(socket, &self.person.name, self.meta())
    }

    pub fn set_doing(&mut self, doing: Doing, socket: &Socket<Self>) -> Result<(), PresenceError> {
        if let Some(pause) = self.pause.take() {
            pause.cancel();
        }
        if doing.typing {
            self.pause = Some(socket.send_after(PAUSE, Paused));
        }
        if mem::replace(&mut self.doing, doing) == doing {
            return Ok(());
        }
        Presence::update(socket, &self.person.name, self.meta())
    }

    pub fn stop_typing(&mut self, socket: &Socket<Self>) -> Result<(), PresenceError> {
        self.set_doing(Doing { typing: false, ..self.doing }, socket)
    }

    fn meta(&self) -> Value {
        let Doing { typing, away } = self.doing;
        json!({ "author": self.person.author, "typing": typing, "away": away })
    }
}

/// How long a user counts as typing. Longer than the interval at which a page repeats it.
const PAUSE: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use tower_channels::test::{joins, leaves};
    use tower_channels::{Endpoint, Reply};

    use super::*;
    use crate::room::User;
    use crate::room::tests::{Client, chat, connected, enter, say};

    /// Joins as a new user, and returns the client with the presence state it received.
    async fn arrive(chat: &Endpoint<User>, secret: &str, name: &str) -> (Client, Value) {
        let mut person = enter(chat, secret, name).await;
        let state = person.expect("presence_state").await;
        (person, state.parse().unwrap())
    }

    /// Joins two users who see each other.
    async fn both(chat: &Endpoint<User>) -> (Client, Client) {
        let (mut ada, _) = arrive(chat, "the secret of Ada", "Ada").await;
        let (bob, _) = arrive(chat, "the secret of Bob", "Bob").await;
        joins_of("Bob", &mut ada).await;
        (ada, bob)
    }

    fn send_doing(person: &mut Client, doing: Value) {
        person.send("room:lobby", "doing", doing);
    }

    /// Returns the meta in the next diff in which `name` joins.
    async fn joins_of(name: &str, to: &mut Client) -> Value {
        let mut diff: Value = to.expect(joins(name)).await.parse().unwrap();
        diff["joins"][name]["metas"][0].take()
    }

    /// Returns a meta without its refs.
    fn without_refs(meta: &Value) -> Value {
        let mut meta = meta.clone();
        meta.as_object_mut().unwrap().retain(|name, _| !name.starts_with("phx_ref"));
        meta
    }

    #[tokio::test]
    async fn a_new_member_receives_the_list_of_people() {
        let chat = chat();
        let (_ada, _) = arrive(&chat, "the secret of Ada", "Ada").await;
        let (_bob, state) = arrive(&chat, "the secret of Bob", "Bob").await;
        let quiet = |author| json!({ "author": author, "typing": false, "away": false });
        assert_eq!(without_refs(&state["Ada"]["metas"][0]), quiet(1));
        assert_eq!(without_refs(&state["Bob"]["metas"][0]), quiet(2));
    }

    #[tokio::test]
    async fn members_are_notified_of_joins_and_leaves() {
        let chat = chat();
        let (mut ada, mut bob) = both(&chat).await;
        assert_eq!(ada.leave("room:lobby").await, Reply::ack());
        bob.expect(leaves("Ada")).await;
        assert_eq!(chat.presence().count("room:lobby"), 1);
    }

    #[tokio::test]
    async fn two_tabs_under_one_name_are_one_person() {
        let chat = chat();
        let (_one, _) = arrive(&chat, "one of Ada's tabs", "Ada").await;
        let (_other, state) = arrive(&chat, "the other of hers", "Ada").await;
        assert_eq!(state["Ada"]["metas"].as_array().unwrap().len(), 2);
        assert_eq!(chat.presence().count("room:lobby"), 1);
    }

    #[tokio::test]
    async fn a_user_is_typing_until_the_message_is_sent() {
        let chat = chat();
        let (mut ada, mut bob) = both(&chat).await;
        send_doing(&mut ada, json!({ "typing": true, "away": false }));
        assert_eq!(joins_of("Ada", &mut bob).await["typing"], true);
        say(&mut ada, "hello").await;
        assert_eq!(joins_of("Ada", &mut bob).await["typing"], false);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_user_stops_typing() {
        let chat = chat();
        let (mut ada, mut bob) = both(&chat).await;
        send_doing(&mut ada, json!({ "typing": true, "away": false }));
        assert_eq!(joins_of("Ada", &mut bob).await["typing"], true);
        assert_eq!(joins_of("Ada", &mut bob).await["typing"], false);
    }

    #[tokio::test]
    async fn a_client_only_sets_whether_it_is_typing_and_away() {
        let chat = chat();
        let (mut ada, mut bob) = both(&chat).await;
        for invalid in [json!({ "typing": "x", "away": true }), json!({ "away": true }), json!(5)] {
            send_doing(&mut ada, invalid);
        }
        send_doing(
            &mut ada,
            json!({ "typing": false, "away": true, "author": 9, "phx_ref": "x", "y": "z" }),
        );
        let meta = joins_of("Ada", &mut bob).await;
        assert_eq!(without_refs(&meta), json!({ "author": 1, "typing": false, "away": true }));
        assert_ne!(meta["phx_ref"], "x");
    }

    #[tokio::test]
    async fn a_repeated_state_changes_nothing() {
        let chat = chat();
        let (mut ada, state) = arrive(&chat, "the secret of Ada", "Ada").await;
        for _ in 0..3 {
            send_doing(&mut ada, json!({ "typing": false, "away": false }));
        }
        say(&mut ada, "handled after those").await;
        let now = chat.presence().get_by_key("room:lobby", "Ada").await.unwrap();
        assert_eq!(json!(now.metas()), state["Ada"]["metas"]);
    }

    #[tokio::test]
    async fn a_reserved_name_is_rejected() {
        let mut ada = connected(&chat(), "the secret of Ada").await;
        for name in ["__proto__", "toString"] {
            let reply = ada.join("room:lobby", json!({ "name": name })).await;
            assert_eq!(reply, Reply::reason("this name is reserved"));
        }
    }
}
