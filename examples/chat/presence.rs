//! Who is in a room: each person once, under their name, with a meta for each tab in which they are there.
//!
//! Who joins gets a `presence_state`, and everybody in the room a `presence_diff` of whatever changes. A person is
//! there as long as the channel lives: also while their connection is lost and the session kept.
//!
//! A client says no more than two times yes or no. What the others read of it is written here.

use std::mem;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower_channels::{Presence, PresenceError, Socket};

use crate::room::Room;

/// What a person does in one tab.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Doing {
    pub typing: bool,
    pub away: bool,
}

/// Who typed has said nothing more of it for a while, or is cut off.
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

    pub fn does(&mut self, doing: Doing, socket: &Socket<Self>) -> Result<(), PresenceError> {
        self.pause = JoinSet::new(); // what was in the old one is over
        if doing.typing {
            let channel = socket.handle();
            self.pause.spawn(async move {
                tokio::time::sleep(PAUSE).await;
                let _ = channel.send(Paused); // unless it has ended
            });
        }
        if mem::replace(&mut self.doing, doing) == doing {
            return Ok(());
        }
        Presence::update(socket, &self.person.name, self.meta())
    }

    pub fn pauses(&mut self, socket: &Socket<Self>) -> Result<(), PresenceError> {
        self.does(Doing { typing: false, ..self.doing }, socket)
    }

    fn meta(&self) -> Value {
        let Doing { typing, away } = self.doing;
        json!({ "author": self.person.author, "typing": typing, "away": away })
    }
}

/// Names that cannot be keys: every object of JavaScript has something under them.
pub const RESERVED: [&str; 3] = ["__proto__", "constructor", "prototype"];

/// Longer than a page waits before it says again that somebody types.
const PAUSE: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use tower_channels::{Endpoint, Reply};

    use super::*;
    use crate::room::User;
    use crate::room::tests::{Client, chat, enter, say, stranger};

    /// Somebody who is there, and whom they found.
    async fn arrive(chat: &Endpoint<User>, secret: &str, name: &str) -> (Client, Value) {
        let mut person = enter(chat, secret, name).await;
        let state = next(&mut person, "presence_state").await;
        (person, state)
    }

    /// Two people who know of each other.
    async fn both(chat: &Endpoint<User>) -> (Client, Client) {
        let (mut ada, _) = arrive(chat, "the secret of Ada", "Ada").await;
        let (bob, _) = arrive(chat, "the secret of Bob", "Bob").await;
        joins_of("Bob", &mut ada).await;
        (ada, bob)
    }

    fn does(person: &mut Client, doing: Value) {
        person.send("room:lobby", "doing", doing);
    }

    /// The next event of that name. Others are passed over.
    async fn next(person: &mut Client, event: &str) -> Value {
        loop {
            let (next, payload) = person.next_push().await;
            if next == event {
                return payload.parse().unwrap();
            }
        }
    }

    /// The meta that comes with the next diff in which `name` joins.
    async fn joins_of(name: &str, to: &mut Client) -> Value {
        loop {
            let mut diff = next(to, "presence_diff").await;
            if let Some(meta) = diff["joins"].get_mut(name) {
                return meta["metas"][0].take();
            }
        }
    }

    /// A meta without its refs.
    fn said(meta: &Value) -> Value {
        let mut meta = meta.clone();
        meta.as_object_mut().unwrap().retain(|name, _| !name.starts_with("phx_ref"));
        meta
    }

    #[tokio::test]
    async fn who_joins_learns_who_is_there() {
        let chat = chat();
        let (_ada, _) = arrive(&chat, "the secret of Ada", "Ada").await;
        let (_bob, state) = arrive(&chat, "the secret of Bob", "Bob").await;
        let quiet = |author| json!({ "author": author, "typing": false, "away": false });
        assert_eq!(said(&state["Ada"]["metas"][0]), quiet(1));
        assert_eq!(said(&state["Bob"]["metas"][0]), quiet(2));
    }

    #[tokio::test]
    async fn the_others_learn_of_who_joins_and_of_who_leaves() {
        let chat = chat();
        let (mut ada, mut bob) = both(&chat).await;
        assert_eq!(ada.leave("room:lobby").await, Reply::ack());
        while next(&mut bob, "presence_diff").await["leaves"].get("Ada").is_none() {}
        assert_eq!(chat.presence().count("room:lobby"), 1);
    }

    #[tokio::test]
    async fn two_tabs_of_one_name_are_one_person() {
        let chat = chat();
        let (_one, _) = arrive(&chat, "one of Ada's tabs", "Ada").await;
        let (_other, state) = arrive(&chat, "the other of hers", "Ada").await;
        assert_eq!(state["Ada"]["metas"].as_array().unwrap().len(), 2);
        assert_eq!(chat.presence().count("room:lobby"), 1);
    }

    #[tokio::test]
    async fn somebody_types_until_the_message_comes() {
        let chat = chat();
        let (mut ada, mut bob) = both(&chat).await;
        does(&mut ada, json!({ "typing": true, "away": false }));
        assert_eq!(joins_of("Ada", &mut bob).await["typing"], true);
        say(&mut ada, "hello").await;
        assert_eq!(joins_of("Ada", &mut bob).await["typing"], false);
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_more_has_paused() {
        let chat = chat();
        let (mut ada, mut bob) = both(&chat).await;
        does(&mut ada, json!({ "typing": true, "away": false }));
        assert_eq!(joins_of("Ada", &mut bob).await["typing"], true);
        assert_eq!(joins_of("Ada", &mut bob).await["typing"], false);
    }

    #[tokio::test]
    async fn a_client_says_only_whether_it_types_and_is_away() {
        let chat = chat();
        let (mut ada, mut bob) = both(&chat).await;
        for nonsense in [json!({ "typing": "x", "away": true }), json!({ "away": true }), json!(5)]
        {
            does(&mut ada, nonsense);
        }
        does(
            &mut ada,
            json!({ "typing": false, "away": true, "author": 9, "phx_ref": "x", "y": "z" }),
        );
        let meta = joins_of("Ada", &mut bob).await;
        assert_eq!(said(&meta), json!({ "author": 1, "typing": false, "away": true }));
        assert_ne!(meta["phx_ref"], "x");
    }

    #[tokio::test]
    async fn what_is_said_again_is_no_news() {
        let chat = chat();
        let (mut ada, state) = arrive(&chat, "the secret of Ada", "Ada").await;
        for _ in 0..3 {
            does(&mut ada, json!({ "typing": false, "away": false }));
        }
        say(&mut ada, "handled after those").await;
        let now = chat.presence().get_by_key("room:lobby", "Ada").await.unwrap();
        assert_eq!(json!(now.metas()), state["Ada"]["metas"]);
    }

    #[tokio::test]
    async fn nobody_enters_under_a_name_that_cannot_be_a_key() {
        let mut ada = stranger(&chat(), "the secret of Ada").await;
        for name in RESERVED {
            let reply = ada.join("room:lobby", json!({ "name": name })).await;
            assert_eq!(reply, Reply::reason("this name is reserved"));
        }
    }
}
