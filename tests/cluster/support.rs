//! Nodes with a small application.

use std::time::Duration;

use serde_json::{Value, json};
use tower_channels::channel::{Error, Result};
use tower_channels::cluster::ClusterConfig;
use tower_channels::test::{Bus, Client, Message, Place, connect};
use tower_channels::{
    Builder, Channel, ConnectInfo, Endpoint, Joined, Payload, Presence, Rejected, Reply, Socket,
};

/// The user's name, which is also its socket id.
#[derive(Default)]
pub(crate) struct User(String);

pub(crate) struct Room;

impl Channel for Room {
    type Assigns = User;
    type Info = ();
    const INTERCEPT: &'static [&'static str] = &["signed"];

    async fn join(_: &str, payload: Payload, it: &Socket<Self>) -> Result<Joined<Self>> {
        if payload == json!("presence") {
            Presence::track(it, &it.assigns().0, json!({}))?;
            Presence::push_state(it);
        }
        Ok(Self.into())
    }

    async fn handle_in(&mut self, event: &str, msg: Payload, it: &Socket<Self>) -> Result<Reply> {
        match event {
            "shout" => it.broadcast("shout", msg),
            "whisper" => it.broadcast_from("whisper", msg),
            "sign" => it.broadcast("signed", msg),
            _ => return Err(Error::unmatched(event)),
        }
        Ok(Reply::ack())
    }

    async fn handle_out(&mut self, event: &str, msg: Payload, it: &Socket<Self>) -> Result<()> {
        it.push(event, json!([msg.parse::<Value>()?, it.assigns().0]));
        Ok(())
    }
}

/// A room whose broadcasts reach clients directly.
pub(crate) struct Plain;

impl Channel for Plain {
    type Assigns = User;
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }
}

pub(crate) type Node = Endpoint<User>;

pub(crate) fn builder() -> Builder<User> {
    Endpoint::builder(async |info: ConnectInfo| {
        let name = info.params().get("name").and_then(Value::as_str).unwrap_or("anon");
        Ok::<_, Rejected>(User(name.to_owned()))
    })
    .id(|user| Some(user.0.clone()))
    .channel::<Room>("room:*")
    .channel::<Plain>("plain:*")
}

/// A node, and its line to the engine.
pub(crate) fn node(bus: &Bus) -> (Node, Place) {
    node_with(bus, ClusterConfig::new())
}

pub(crate) fn node_with(bus: &Bus, config: ClusterConfig) -> (Node, Place) {
    let adapter = bus.adapter();
    let place = adapter.place();
    (builder().adapter(adapter).cluster(config).build(), place)
}

/// Nodes that have heard each other.
pub(crate) async fn nodes<const N: usize>(bus: &Bus) -> [Node; N] {
    let nodes = std::array::from_fn(|_| node(bus).0);
    seconds(1).await;
    nodes
}

pub(crate) async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

pub(crate) async fn moment() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

pub(crate) async fn joined(node: &Node, name: &str, topic: &str) -> Client<User> {
    let mut client = connect(node, &[("name", name)]).await.expect("accepted");
    assert_eq!(client.join(topic, json!({})).await, Reply::ack());
    client
}

/// A client with a resumable session.
pub(crate) async fn resumable(node: &Node, name: &str, topic: &str) -> Client<User> {
    let session = format!("{name}-0123456789012345678");
    let params = [("name", name), ("session", &session), ("received", "0")];
    let mut client = connect(node, &params).await.expect("accepted");
    assert_eq!(client.join(topic, json!({})).await, Reply::ack());
    client
}

/// The events that a client has not read.
pub(crate) async fn unread(client: &mut Client<User>) -> Vec<String> {
    let mut events = Vec::new();
    let moment = Duration::from_millis(1);
    while let Ok(message) = tokio::time::timeout(moment, client.next_message()).await {
        events.push(message.event);
    }
    events
}

/// The numbers that a client has been sent as `n`, and has not read.
pub(crate) async fn numbers<A: Send + Sync>(client: &mut Client<A>) -> Vec<u64> {
    moment().await;
    let mut numbers = Vec::new();
    let soon = Duration::from_millis(1);
    while let Ok(Message { event, payload, .. }) =
        tokio::time::timeout(soon, client.next_message()).await
    {
        if event == "n" {
            numbers.push(payload.parse().expect("a number"));
        }
    }
    numbers
}
