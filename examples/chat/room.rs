//! The channel `room:*`: what a user can do in a room, and who is notified.
//!
//! | event | payload | reply | broadcast to the room |
//! | --- | --- | --- | --- |
//! | `phx_join` | `name`, `last_seen_id` | `author`, `emoji`, and the missed messages: `reset`, `messages`, `change`, `older` | |
//! | `new_msg` | `body`, `key` | `id`, `change` | `message` |
//! | `react` | `id`, `emoji`, `on` | `id`, `change` | `message` |
//! | `delete` | `id` | `id`, `change` | `message` |
//! | `older` | `before` | `messages`, `older` | |
//! | `catch_up` | `last_seen_id` | `reset`, `messages`, `change`, `older` | |
//! | `doing` | `typing`, `away` | none | `presence_diff`: see `presence.rs` |
//!
//! A page that resumes its session joins as usual, and its live channel replies with `resumed` and
//! `change`. The events up to that number follow, as if the page had never been away.
//!
//! A `message` event carries the current state of a message, whatever has changed, so a page only has
//! to display it. Invalid requests get an error reply with a readable `reason`.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tower_channels::channel::Result;
use tower_channels::{
    Channel, ConnectInfo, JoinError, Joined, Payload, Presence, Rejected, Reply, Socket, Stop,
};

use crate::history::{CatchUp, Error, History, Outcome, Person, Store};
use crate::presence::{Doing, Paused};

/// Assigns of a socket: the identity established by `connect`, shared by all channels of the
/// socket.
pub struct User {
    author: i64,
    history: Store,
}

/// A user in a room.
pub struct Room {
    room: String,
    pub person: Person,
    pub doing: Doing,
    /// Sends `Paused` some time after the last sign of typing.
    pub pause: JoinSet<()>,
    /// The last change included in the reply to the join.
    seen: i64,
    history: Store,
}

impl User {
    /// Returns the socket id, which makes the session resumable. It is derived from the secret, so
    /// nobody without the secret can resume the session.
    pub fn id(&self) -> Option<String> {
        Some(format!("author:{}", self.author))
    }
}

/// Authenticates a page by a secret that it generated itself. Other users only see an author
/// number.
pub async fn connect(info: ConnectInfo, history: Store) -> std::result::Result<User, Rejected> {
    let secret = info.param("secret").unwrap_or_default().to_owned();
    if !(16..=64).contains(&secret.len()) {
        return Err(Rejected::reason("secret must be 16-64 bytes"));
    }
    match history.run(move |history| history.author(&secret)).await {
        Ok(author) => Ok(User { author, history }),
        Err(error) => Err(Rejected::reason(reason(&error))),
    }
}

impl Channel for Room {
    type Assigns = User;
    type Info = Paused;

    async fn join(
        topic: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> std::result::Result<Joined<Self>, JoinError> {
        let User { author, history } = socket.assigns();
        let (author, history) = (*author, history.clone());
        let accepted = async {
            let Join { name, last_seen_id } = parse(&payload)?;
            let person = Person { author, name: valid_name(&name)? };
            let room = valid_room(topic)?;
            let missed = catch_up(&history, &room, last_seen_id).await?;
            Ok((room, person, missed))
        };
        let (room, person, missed) =
            accepted.await.map_err(|error: Error| JoinError::reason(reason(&error)))?;
        let seen = missed.change;
        let reply = welcome(author, &missed);
        let (doing, pause) = (Doing::default(), JoinSet::new());
        Ok(Joined::new(Self { room, person, doing, pause, seen, history }).reply(reply))
    }

    /// Answers a rejoin of a page that was away while this channel lived on. All events of that
    /// time follow the reply, which says how far they go, so that the page can tell when it has
    /// caught up. Invalid payloads are rejected as in a join.
    ///
    /// A page that left and re-entered the room no longer has its messages, and gets the same reply
    /// as from a join.
    async fn resume(
        &mut self,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> std::result::Result<Option<Payload>, JoinError> {
        let resumed = async {
            let Join { name, last_seen_id } = parse(&payload)?;
            let name = valid_name(&name)?;
            if last_seen_id.is_none() {
                let missed = catch_up(&self.history, &self.room, None).await?;
                return Ok((name, welcome(self.person.author, &missed)));
            }
            let room = self.room.clone();
            let change = self.history.run(move |history| history.last_change(&room)).await?;
            Ok((name, json!({ "resumed": true, "change": change })))
        };
        let (name, response) =
            resumed.await.map_err(|error: Error| JoinError::reason(reason(&error)))?;
        self.rename(name, socket)?;
        Ok(Some(response.into()))
    }

    /// Pushes what was broadcast between the reply to the join and the channel's subscription.
    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        self.appear(socket)?;
        let missed = catch_up(&self.history, &self.room, Some(self.seen)).await?;
        if missed.change > self.seen {
            socket.push("missed", json!(missed));
        }
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        let result = match event {
            "new_msg" => {
                self.stop_typing(socket)?;
                self.new_msg(&payload, socket).await
            }
            "react" => self.react(&payload, socket).await,
            "delete" => self.delete(&payload, socket).await,
            "older" => self.older(&payload).await,
            "catch_up" => self.catch_up(&payload).await,
            // No reply is expected, so an invalid payload is ignored.
            "doing" => {
                if let Ok(doing) = parse(&payload) {
                    self.set_doing(doing, socket)?;
                }
                return Ok(Reply::None);
            }
            _ => return Err(Stop::unmatched(event)),
        };
        Ok(match result {
            Ok(response) => Reply::ok(response),
            Err(error) => Reply::reason(reason(&error)),
        })
    }

    async fn handle_info(&mut self, _: Paused, socket: &Socket<Self>) -> Result<()> {
        Ok(self.stop_typing(socket)?)
    }
}

#[derive(Deserialize)]
struct Join {
    name: String,
    last_seen_id: Option<i64>,
}

#[derive(Deserialize)]
struct NewMsg {
    body: String,
    key: Option<String>,
}

#[derive(Deserialize)]
struct React {
    id: i64,
    emoji: String,
    on: bool,
}

#[derive(Deserialize)]
struct Delete {
    id: i64,
}

#[derive(Deserialize)]
struct Older {
    before: i64,
}

#[derive(Deserialize)]
struct LastSeen {
    last_seen_id: i64,
}

impl Room {
    async fn new_msg(&self, payload: &Payload, socket: &Socket<Self>) -> Response {
        let NewMsg { body, key } = parse(payload)?;
        let body = valid_body(&body)?;
        if key.as_ref().is_some_and(|key| key.len() > 64) {
            return Err(Error::Rejected("key must be at most 64 bytes"));
        }
        let (room, Person { author, name }) = (self.room.clone(), self.person.clone());
        self.change(socket, move |history| history.add(&room, author, &name, &body, key.as_deref()))
            .await
    }

    async fn react(&self, payload: &Payload, socket: &Socket<Self>) -> Response {
        let React { id, emoji, on } = parse(payload)?;
        if !EMOJI.contains(&emoji.as_str()) {
            return Err(Error::Rejected("unknown reaction"));
        }
        let (room, person) = (self.room.clone(), self.person.clone());
        self.change(socket, move |history| history.react(&room, id, &person, &emoji, on)).await
    }

    async fn delete(&self, payload: &Payload, socket: &Socket<Self>) -> Response {
        let Delete { id } = parse(payload)?;
        let (room, author) = (self.room.clone(), self.person.author);
        self.change(socket, move |history| history.delete(&room, id, author)).await
    }

    /// Applies a change and broadcasts it. Both happen under the lock of the history, so that the
    /// room receives changes in order; and both happen even if the user is gone by then, so that it
    /// receives all of them.
    async fn change(
        &self,
        socket: &Socket<Self>,
        write: impl FnOnce(&mut History) -> std::result::Result<Outcome, Error> + Send + 'static,
    ) -> Response {
        let socket = socket.clone();
        let written = self.history.run(move |history| {
            let Outcome { message, changed } = write(history)?;
            if changed {
                socket.broadcast("message", json!(message));
            }
            Ok(message)
        });
        let message = written.await?;
        Ok(json!({ "id": message.id, "change": message.change }))
    }

    async fn older(&self, payload: &Payload) -> Response {
        let Older { before } = parse(payload)?;
        let room = self.room.clone();
        Ok(json!(self.history.run(move |history| history.older(&room, before)).await?))
    }

    async fn catch_up(&self, payload: &Payload) -> Response {
        let LastSeen { last_seen_id } = parse(payload)?;
        Ok(json!(catch_up(&self.history, &self.room, Some(last_seen_id)).await?))
    }
}

/// Response of a join: the user's author number, the available reactions, and the missed messages.
fn welcome(author: i64, missed: &CatchUp) -> Value {
    let mut reply = json!(missed);
    reply["author"] = json!(author);
    reply["emoji"] = json!(EMOJI);
    reply
}

type Response = std::result::Result<Value, Error>;

async fn catch_up(
    history: &Store,
    room: &str,
    last_seen_id: Option<i64>,
) -> std::result::Result<CatchUp, Error> {
    let room = room.to_owned();
    history.run(move |history| history.catch_up(&room, last_seen_id)).await
}

fn parse<T: DeserializeOwned>(payload: &Payload) -> std::result::Result<T, Error> {
    payload.parse().map_err(|_| Error::Rejected("invalid payload"))
}

fn valid_name(name: &str) -> std::result::Result<String, Error> {
    let name = name.trim();
    if !(1..=32).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(Error::Rejected("name must be 1-32 characters"));
    }
    // Names are the keys of the presence list.
    if Presence::validate_key(name).is_err() {
        return Err(Error::Rejected("this name is reserved"));
    }
    Ok(name.to_owned())
}

fn valid_room(topic: &str) -> std::result::Result<String, Error> {
    let room = topic.strip_prefix("room:").unwrap_or_default();
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=32).contains(&room.len()) || !room.bytes().all(allowed) {
        return Err(Error::Rejected("room must be 1-32 characters of a-z, 0-9 and -"));
    }
    Ok(room.to_owned())
}

fn valid_body(body: &str) -> std::result::Result<String, Error> {
    let body = body.trim();
    let allowed = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if !(1..=2000).contains(&body.chars().count()) || !body.chars().all(allowed) {
        return Err(Error::Rejected("message must be 1-2000 characters"));
    }
    Ok(body.to_owned())
}

/// Returns the reason shown to the user. Database errors are logged instead.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::Rejected(why) => why,
        Error::Database(_) => {
            eprintln!("{error}");
            "the history is not available"
        }
    }
}

const EMOJI: [&str; 6] = ["👍", "🎉", "😂", "😮", "👀", "💜"];

#[cfg(test)]
pub mod tests;
