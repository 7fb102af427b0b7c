//! The channels `room:*` and `log:*`, which has a history: one event for each thing that a channel can do.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use tokio::task::JoinSet;
use tower_channels::channel::{Error, Result};
use tower_channels::{Arrival, Channel, Joined, Payload, Reply, Socket};

use super::User;

/// A member of a room. Stores values set by `assign` under the JSON text of their keys; they go along when its session
/// moves to another node.
#[derive(Default)]
pub struct Room {
    assigned: BTreeMap<String, Box<RawValue>>,
    /// The replies that are yet to come. They end with the channel.
    delayed: JoinSet<()>,
}

impl Channel for Room {
    type Assigns = User;
    type Info = ();

    const INTERCEPT: &'static [&'static str] = &["shout"];

    async fn join(topic: &str, payload: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        if topic.starts_with("room:closed") {
            return Err(Error::reason("unauthorized"));
        }
        let mut payload: Object = payload.parse().unwrap_or_default();
        if payload.get("crash").is_some_and(|crash| crash.get() == "true") {
            panic!("crash requested by the client");
        }
        let assigned = match socket.arrival() {
            Arrival::Moved { packed: Some(packed), .. } => packed.parse()?,
            _ => BTreeMap::new(),
        };
        let mut response = BTreeMap::new();
        if let Some(echo) = payload.remove("echo") {
            response.insert("echo", echo);
        }
        if topic.starts_with("log:") {
            response.insert("arrival", to_raw_value(name(socket.arrival()))?);
        }
        let joined = Joined::new(Self { assigned, ..Self::default() });
        Ok(if response.is_empty() { joined } else { joined.reply(Payload::json(&response)?) })
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        socket.push("joined", json!({ "user_id": socket.assigns().id }));
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        Ok(match event {
            "ping" => Reply::Ok(payload),
            "fail" => Reply::Error(payload),
            "ack" => Reply::ack(),
            "silent" => Reply::None,
            "new_msg" => {
                socket.broadcast("new_msg", payload);
                Reply::None
            }
            "publish" if socket.topic().starts_with("log:") => {
                match socket.publish("new_msg", payload).await {
                    Ok(_) => Reply::ack(),
                    Err(_) => Reply::reason("unavailable"),
                }
            }
            "typing" => {
                socket.broadcast_from("typing", payload);
                Reply::None
            }
            "push_me" => {
                socket.push("pushed", payload);
                Reply::None
            }
            "slow" => {
                let ms = serde_json::from_str::<u64>(field(&payload, "ms")?.get())?;
                let reply_ref = socket.reply_ref();
                while self.delayed.try_join_next().is_some() {}
                self.delayed.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    reply_ref.reply(Reply::ok(json!({ "ms": ms })));
                });
                Reply::None
            }
            "shout" => {
                socket.broadcast("shout", payload);
                Reply::None
            }
            "assign" => {
                let (key, value) = (field(&payload, "k")?, field(&payload, "v")?);
                self.assigned.insert(key.get().to_owned(), value);
                Reply::ack()
            }
            "fetch" => {
                let value = self.assigned.get(field(&payload, "k")?.get());
                Reply::Ok(Payload::json(&BTreeMap::from([("v", value)]))?)
            }
            "boom" => panic!("crash requested by the client"),
            "stop" => return Err(Error::stop()),
            "stop_reply" => return Err(Error::stop_with(Reply::Ok(payload))),
            _ => return Err(Error::unmatched(event)),
        })
    }

    async fn pack(&mut self, _: &Socket<Self>) -> Option<Payload> {
        Payload::json(&self.assigned).ok()
    }

    async fn handle_out(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<()> {
        let mut payload = object(&payload)?;
        let own = socket.assigns().id.as_deref();
        let skip =
            payload.get("skip").and_then(|skip| serde_json::from_str::<String>(skip.get()).ok());
        if own.is_none() || skip.as_deref() != own {
            payload.insert("to".into(), to_raw_value(&own)?);
            socket.push(event, Payload::json(&payload)?);
        }
        Ok(())
    }
}

/// How the join of a `log:*` topic is answered.
fn name(arrival: &Arrival) -> &'static str {
    match arrival {
        Arrival::Moved { has_gap: true, .. } => "moved_gap",
        Arrival::Moved { .. } => "moved",
        Arrival::Recovered { has_gap: true } => "gap",
        Arrival::Recovered { .. } => "recovered",
        _ => "new",
    }
}

/// A JSON object whose values keep their original text.
pub type Object = BTreeMap<String, Box<RawValue>>;

/// Parses an object. Any other payload crashes the channel, as a clause that does not match does.
fn object(payload: &Payload) -> Result<Object> {
    Ok(serde_json::from_str(payload.as_json().ok_or("the payload is binary")?)?)
}

/// Returns the member `name` of an object, or crashes the channel.
pub fn field(payload: &Payload, name: &str) -> Result<Box<RawValue>> {
    let value = object(payload)?.remove(name);
    value.ok_or_else(|| Error::from(format!("no `{name}` in the payload")))
}
