//! The code of docs/getting_started.md.

use axum::Router;
use serde::Deserialize;
use serde_json::json;
use tower_channels::channel::{Error, Result};
use tower_channels::{Channel, ConnectInfo, Endpoint, Joined, Payload, Rejected, Reply, Socket};
use tower_http::services::ServeDir;

/// The assigns of a socket: what all channels of a client share.
struct User {
    name: String,
}

/// The state of a channel: one client in one room.
struct Room {
    sent: u32,
}

/// The payload of a message.
#[derive(Deserialize)]
struct NewMsg {
    body: String,
}

/// Decides who may connect.
async fn connect(info: ConnectInfo) -> Result<User, Rejected> {
    let name = info.param("name").ok_or(Rejected::reason("name is missing"))?;
    Ok(User { name: name.into() })
}

impl Channel for Room {
    type Assigns = User;
    type Info = ();

    /// Decides who may join a topic, and creates the state.
    async fn join(topic: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        if topic == "room:secret" {
            return Err(Error::reason("unauthorized"));
        }
        Ok(Self { sent: 0 }.into())
    }

    /// Handles what the client pushes.
    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        match event {
            "new_msg" => {
                let NewMsg { body } = payload.parse()?;
                self.sent += 1;
                socket.broadcast("new_msg", json!({ "from": socket.assigns().name, "body": body }));
                Ok(Reply::ok(json!({ "sent": self.sent })))
            }
            _ => Err(Error::unmatched(event)),
        }
    }
}

fn endpoint() -> Endpoint<User> {
    Endpoint::builder(connect).channel::<Room>("room:*").build()
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let app = Router::new()
        .nest_service("/socket", endpoint().service())
        .fallback_service(ServeDir::new("static"));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:4000").await?;
    axum::serve(listener, app).await
}

fn log() {
    tracing_subscriber::fmt().init();
}

#[tokio::test]
async fn messages_reach_everyone() {
    let endpoint = endpoint();
    let mut ann = tower_channels::test::connect(&endpoint, &[("name", "ann")]).await.unwrap();
    let mut bob = tower_channels::test::connect(&endpoint, &[("name", "bob")]).await.unwrap();
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ack());
    assert_eq!(bob.join("room:1", json!({})).await, Reply::ack());

    let reply = ann.push("room:1", "new_msg", json!({ "body": "hi" })).await;
    assert_eq!(reply, Reply::ok(json!({ "sent": 1 })));
    assert_eq!(bob.expect("new_msg").await, json!({ "from": "ann", "body": "hi" }));
}

#[tokio::test]
async fn a_message_without_a_body_is_refused_and_the_room_lives() {
    let endpoint = endpoint();
    let mut ann = tower_channels::test::connect(&endpoint, &[("name", "ann")]).await.unwrap();
    ann.join("room:1", json!({})).await;

    let reply = ann.push("room:1", "new_msg", json!({})).await;
    assert!(matches!(reply, Reply::Error(reason) if format!("{reason:?}").contains("body")));
    let reply = ann.push("room:1", "new_msg", json!({ "body": "hi" })).await;
    assert_eq!(reply, Reply::ok(json!({ "sent": 1 })));
}
