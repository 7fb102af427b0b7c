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
//! `change`. The events up to that number follow, as if the page had never been away. So they do
//! behind the end of the session, or of the server: the new channel then replies with `recovered` and
//! `change`, and `recovered` comes behind the events.
//!
//! A `message` event carries the current state of a message, whatever has changed, so a page only has
//! to display it. Invalid requests get an error reply with a readable `reason`.

use serde::Deserialize;
use serde_json::{Value, json};
use tower_channels::channel::{Error, OrReply, Result};
use tower_channels::{
    Arrival, Channel, ConnectInfo, Joined, Payload, Presence, Rejected, Reply, Socket, Timer,
};

use crate::history::{self, CatchUp, History, Outcome, Person, Store};
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
    pub pause: Option<Timer>,
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
pub async fn connect(info: ConnectInfo, history: Store) -> Result<User, Rejected> {
    let secret = info.param("secret").unwrap_or_default().to_owned();
    if !(16..=64).contains(&secret.len()) {
        return Err(Rejected::reason("secret must be 16-64 bytes"));
    }
    let author = history.run(move |history| history.author(&secret)).await;
    Ok(User { author: author.map_err(|error| error.to_string())?, history })
}

impl Channel for Room {
    type Assigns = User;
    type Info = Paused;

    async fn join(topic: &str, payload: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        let User { author, history } = socket.assigns();
        let Join { name, last_seen_id } = payload.parse()?;
        let person = Person { author: *author, name: valid_name(&name)? };
        let room = valid_room(topic)?;
        let (seen, reply) = if is_recovered(socket) && last_seen_id.is_some() {
            let change = last_change(history, &room).await?;
            (change, json!({ "recovered": true, "change": change }))
        } else {
            let missed = catch_up(history, &room, last_seen_id).await?;
            (missed.change, welcome(*author, &missed))
        };
        let (doing, pause, history) = (Doing::default(), None, history.clone());
        Ok(Joined::new(Self { room, person, doing, pause, seen, history }).reply(reply))
    }

    /// Answers a rejoin of a page that was away while this channel lived on. All events of that
    /// time follow the reply, which says how far they go, so that the page can tell when it has
    /// caught up. Invalid payloads are rejected as in a join.
    ///
    /// A page that left and re-entered the room no longer has its messages, and gets the same reply
    /// as from a join.
    async fn resume(&mut self, payload: Payload, socket: &Socket<Self>) -> Result<Option<Payload>> {
        let Join { name, last_seen_id } = payload.parse()?;
        let name = valid_name(&name)?;
        let response = if last_seen_id.is_none() {
            welcome(self.person.author, &catch_up(&self.history, &self.room, None).await?)
        } else {
            let change = last_change(&self.history, &self.room).await?;
            json!({ "resumed": true, "change": change })
        };
        self.rename(name, socket)?;
        Ok(Some(response.into()))
    }

    /// Pushes what was broadcast between the reply to the join and the channel's subscription.
    ///
    /// A page that recovers has all events by now. It is told, since a server that is killed between
    /// storing a message and broadcasting it leaves none.
    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        self.appear(socket)?;
        if is_recovered(socket) {
            socket.push("recovered", json!({}));
            return Ok(());
        }
        // Without them the page has to join again: a crash, and not an error reply.
        let missed = catch_up(&self.history, &self.room, Some(self.seen)).await;
        let missed = missed.map_err(|error| error.to_string())?;
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
        let response = match payload.parse_event(event)? {
            In::NewMsg { body, key } => {
                self.stop_typing(socket)?;
                self.new_msg(&body, key, socket).await?
            }
            In::React { id, emoji, on } => self.react(id, emoji, on, socket).await?,
            In::Delete { id } => {
                let (room, author) = (self.room.clone(), self.person.author);
                self.change(socket, move |history| history.delete(&room, id, author)).await?
            }
            In::Older { before } => {
                let room = self.room.clone();
                json!(self.history.run(move |history| history.older(&room, before)).await?)
            }
            In::CatchUp { last_seen_id } => {
                json!(catch_up(&self.history, &self.room, Some(last_seen_id)).await?)
            }
            In::Doing(doing) => {
                self.set_doing(doing, socket)?;
                return Ok(Reply::None);
            }
        };
        Ok(Reply::ok(response))
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

/// What a page pushes: the names of the variants are the events, the rest is the payload.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum In {
    NewMsg { body: String, key: Option<String> },
    React { id: i64, emoji: String, on: bool },
    Delete { id: i64 },
    Older { before: i64 },
    CatchUp { last_seen_id: i64 },
    Doing(Doing),
}

impl Room {
    async fn new_msg(
        &self,
        body: &str,
        key: Option<String>,
        socket: &Socket<Self>,
    ) -> Result<Value> {
        let body = valid_body(body)?;
        if key.as_ref().is_some_and(|key| key.len() > 64) {
            return Err(Error::reason("key must be at most 64 bytes"));
        }
        let (room, Person { author, name }) = (self.room.clone(), self.person.clone());
        self.change(socket, move |history| history.add(&room, author, &name, &body, key.as_deref()))
            .await
    }

    async fn react(
        &self,
        id: i64,
        emoji: String,
        on: bool,
        socket: &Socket<Self>,
    ) -> Result<Value> {
        if !EMOJI.contains(&emoji.as_str()) {
            return Err(Error::reason("unknown reaction"));
        }
        let (room, person) = (self.room.clone(), self.person.clone());
        self.change(socket, move |history| history.react(&room, id, &person, &emoji, on)).await
    }

    /// Applies a change and broadcasts it. Both happen under the lock of the history, so that the
    /// room receives changes in order; and both happen even if the user is gone by then, so that it
    /// receives all of them.
    async fn change(
        &self,
        socket: &Socket<Self>,
        write: impl FnOnce(&mut History) -> Result<Outcome, history::Error> + Send + 'static,
    ) -> Result<Value> {
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
}

/// Response of a join: the user's author number, the available reactions, and the missed messages.
fn welcome(author: i64, missed: &CatchUp) -> Value {
    let mut reply = json!(missed);
    reply["author"] = json!(author);
    reply["emoji"] = json!(EMOJI);
    reply
}

/// Whether the events that the page has missed follow the reply to its join: after the death of its server, or if that has
/// left the session to this one.
fn is_recovered(socket: &Socket<Room>) -> bool {
    matches!(
        socket.arrival(),
        Arrival::Recovered { has_gap: false } | Arrival::Moved { has_gap: false, .. }
    )
}

async fn last_change(history: &Store, room: &str) -> Result<i64, history::Error> {
    let room = room.to_owned();
    history.run(move |history| history.last_change(&room)).await
}

async fn catch_up(
    history: &Store,
    room: &str,
    last_seen_id: Option<i64>,
) -> Result<CatchUp, history::Error> {
    let room = room.to_owned();
    history.run(move |history| history.catch_up(&room, last_seen_id)).await
}

fn valid_name(name: &str) -> Result<String> {
    let name = name.trim();
    if !(1..=32).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err(Error::reason("name must be 1-32 characters"));
    }
    // Names are the keys of the presence list.
    Presence::validate_key(name).or_reply("this name is reserved")?;
    Ok(name.to_owned())
}

fn valid_room(topic: &str) -> Result<String> {
    let room = topic.strip_prefix("room:").unwrap_or_default();
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=32).contains(&room.len()) || !room.bytes().all(allowed) {
        return Err(Error::reason("room must be 1-32 characters of a-z, 0-9 and -"));
    }
    Ok(room.to_owned())
}

fn valid_body(body: &str) -> Result<String> {
    let body = body.trim();
    let allowed = |c: char| !c.is_control() || c == '\n' || c == '\t';
    if !(1..=2000).contains(&body.chars().count()) || !body.chars().all(allowed) {
        return Err(Error::reason("message must be 1-2000 characters"));
    }
    Ok(body.to_owned())
}

/// Users see why a request was refused. Database errors are logged instead.
impl From<history::Error> for Error {
    fn from(error: history::Error) -> Self {
        match error {
            history::Error::Rejected(why) => Self::reason(why),
            history::Error::Database(_) => {
                eprintln!("{error}");
                Self::reason("the history is not available")
            }
        }
    }
}

const EMOJI: [&str; 6] = ["👍", "🎉", "😂", "😮", "👀", "💜"];

#[cfg(test)]
pub mod tests;
