//! The small application of a node.

use std::time::Duration;

use serde_json::{Value, json};

use crate::channel::error::{Error, Result};
use crate::{
    Arrival, Channel, ConnectInfo, Endpoint, Joined, Payload, Rejected, Reply, ResumeConfig, Socket,
};

/// An endpoint that is no node yet.
pub(super) fn builder() -> crate::Builder<u64> {
    let connect = |info: ConnectInfo| async move {
        let key = info.params().get("key").and_then(Value::as_str).and_then(|key| key.parse().ok());
        Ok::<_, Rejected>(key.unwrap_or(0))
    };
    let resume = ResumeConfig::new().session_ttl(Duration::from_secs(3600)).flapping_limit(0);
    Endpoint::builder(connect)
        .id(|key| Some(format!("user-{key}")))
        .channel::<Room>("log:*")
        .resume(resume)
}

/// Says why it was joined, and which of the client's joins that was.
struct Room([Value; 2]);

impl Channel for Room {
    type Assigns = u64;
    type Info = ();
    const LOG_JOIN: Option<tracing::Level> = None;
    const LOG_HANDLE_IN: Option<tracing::Level> = None;

    async fn join(_: &str, join: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        let join: Value = join.parse()?;
        let arrival = match socket.arrival() {
            Arrival::New => "new",
            Arrival::Moved { has_gap: false, .. } => "moved",
            Arrival::Moved { has_gap: true, .. } => "moved with a gap",
            Arrival::Recovered { has_gap: false } => "recovered",
            Arrival::Recovered { has_gap: true } => "gap",
        };
        let reply = json!([arrival, join["k"]]);
        Ok(Joined::new(Self([arrival.into(), join["k"].clone()])).reply(reply))
    }

    async fn resume(&mut self, _: Payload, _: &Socket<Self>) -> Result<Option<Payload>> {
        let Self([arrival, join]) = self;
        Ok(Some(json!(["resumed", join, arrival]).into()))
    }

    async fn handle_in(
        &mut self,
        event: &str,
        it: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        match event {
            "say" => socket.broadcast_from("n", it),
            _ => return Err(Error::unmatched(event)),
        }
        Ok(Reply::ack())
    }
}
