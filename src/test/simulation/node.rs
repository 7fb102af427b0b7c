//! [`Node`]: a node with a small application.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::MAX_FRAME;
use crate::adapter::NodeId;
use crate::channel::error::{Error, Result};
use crate::cluster::{ClusterConfig, Listen, OnGap, Versions};
use crate::test::{BusAdapter, Place};
use crate::{
    Arrival, Channel, ConnectInfo, Endpoint, Joined, Payload, Presence, PresenceConfig, Rejected,
    Reply, ResumeConfig, Socket,
};
use std::time::Duration;

pub(super) struct Node {
    /// Which of the nodes it is.
    pub(super) slot: usize,
    /// Names it among all that were ever started.
    pub(super) number: u64,
    pub(super) id: NodeId,
    pub(super) endpoint: Endpoint<User>,
    pub(super) place: Place,
    /// The highest version that it reads.
    pub(super) max_version: u8,
    pub(super) listens_to_topics: bool,
    pub(super) ends_channels: bool,
    pub(super) is_line_whole: bool,
    /// Since when it hears the engine.
    pub(super) calm_since: Option<Instant>,
}

/// Which node it is: its slot, and its number among all that were ever started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) slot: usize,
    pub(super) number: u64,
}

impl Node {
    /// Starts one. The bits of `value` say how it is configured.
    pub(super) fn start(
        slot: usize,
        number: u64,
        value: usize,
        forgets: bool,
        adapter: BusAdapter,
    ) -> Self {
        let place = adapter.place();
        let is_set = |bit: usize| value >> bit & 1 == 1;
        let (listens_to_topics, ends_channels) = (is_set(0), !(is_set(2) && is_set(3)));
        let max_version = if is_set(1) { 2 } else { 1 };
        let id = NodeId(number);
        let mut config = ClusterConfig::new()
            .listen(if listens_to_topics { Listen::Topics } else { Listen::All })
            .on_gap(if ends_channels { OnGap::Rejoin } else { OnGap::Ignore })
            // All at once: their order is that of a hash map.
            .gap_pace(Duration::ZERO);
        if forgets {
            config = config.gone_after(Duration::from_secs(7));
        }
        config.linger = Duration::from_secs(2);
        config.versions = Versions { min: 1, max: max_version };
        config.node = Some(id);
        let resume = ResumeConfig::new().session_ttl(Duration::from_secs(3600)).flapping_limit(0);
        let endpoint = Endpoint::builder(connect)
            .id(|user: &User| Some(user.name.clone()))
            .channel::<Room>("room:*")
            .resume(resume)
            .presence(PresenceConfig::default().leave_grace(LEAVE_GRACE))
            .adapter(adapter.max_frame(MAX_FRAME))
            .cluster(config)
            .build();
        Self {
            slot,
            number,
            id,
            endpoint,
            place,
            max_version,
            listens_to_topics,
            ends_channels,
            is_line_whole: true,
            calm_since: None,
        }
    }

    pub(super) fn origin(&self) -> Origin {
        Origin { slot: self.slot, number: self.number }
    }
}

/// How long the presences stay of a client that has closed its connection.
pub(super) const LEAVE_GRACE: Duration = Duration::from_secs(2);

/// A user's name, which is its socket id, and the key of its presence.
pub(super) struct User {
    name: String,
    key: String,
}

/// An endpoint that is no node.
pub(super) fn nowhere() -> Endpoint<User> {
    Endpoint::builder(connect).channel::<Room>("room:*").build()
}

async fn connect(info: ConnectInfo) -> Result<User, Rejected> {
    let text =
        |name| info.params().get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(User { name: text("name"), key: text("key") })
}

/// What the client tracks here, if it does; and which of its joins this was, and why.
struct Room(Option<Value>, [Value; 2]);

impl Channel for Room {
    type Assigns = User;
    type Info = ();
    const LOG_JOIN: Option<tracing::Level> = None;
    const LOG_HANDLE_IN: Option<tracing::Level> = None;

    async fn join(_: &str, join: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        Presence::push_state(socket);
        let (arrival, tracked) = match socket.arrival() {
            Arrival::Moved { packed, has_gap } => {
                let tracked = packed.as_ref().map(|it| it.parse::<Value>()).transpose()?;
                (if *has_gap { "moved with a gap" } else { "moved" }, tracked)
            }
            _ => ("joined", None),
        };
        if let Some(meta) = &tracked {
            Presence::track(socket, &socket.assigns().key, meta)?;
        }
        let join = [join.parse::<Value>()?, arrival.into()];
        let [number, arrival] = &join;
        let response = json!([arrival, tracked, number]);
        Ok(Joined::new(Self(tracked, join)).reply(response))
    }

    async fn pack(&mut self, _: &Socket<Self>) -> Option<Payload> {
        self.0.clone().map(Payload::from)
    }

    async fn resume(&mut self, _: Payload, _: &Socket<Self>) -> Result<Option<Payload>> {
        let Self(tracked, [number, arrival]) = self;
        Ok(Some(json!(["resumed", tracked, number, arrival]).into()))
    }

    async fn handle_in(
        &mut self,
        event: &str,
        it: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        let key = &socket.assigns().key;
        match event {
            "say" => socket.broadcast("n", it),
            "say_from" => socket.broadcast_from("n", it),
            "track" => {
                let meta = self.0.insert(it.parse()?);
                Presence::track(socket, key, meta)?;
            }
            "update" => {
                let meta = self.0.insert(it.parse()?).clone();
                Presence::update(socket, key, meta)?;
            }
            "untrack" => {
                self.0 = None;
                Presence::untrack(socket, key);
            }
            _ => return Err(Error::unmatched(event)),
        }
        Ok(Reply::ack())
    }
}
