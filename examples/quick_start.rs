//! A room whose messages reach everyone in it and are counted, and its test.

use axum::{Router, routing::get};
use serde::Deserialize;
use serde_json::json;
use tower_channels::channel::{Error, Result};
use tower_channels::{Channel, ConnectInfo, Endpoint, Joined, Payload, Rejected, Reply, Socket};

/// The assigns of a socket, shared by all of its channels.
struct User {
    name: String,
}

/// The state of one channel.
struct Room {
    sent: u32,
}

/// The events that clients push, with their payloads.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum In {
    NewMsg { body: String },
}

async fn connect(info: ConnectInfo) -> Result<User, Rejected> {
    let name = info.param("name").ok_or(Rejected::reason("name is missing"))?;
    Ok(User { name: name.into() })
}

impl Channel for Room {
    type Assigns = User;
    type Info = ();

    async fn join(topic: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        if topic == "room:secret" {
            return Err(Error::reason("unauthorized"));
        }
        Ok(Self { sent: 0 }.into())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        // Another payload is answered with an error; an unknown event crashes this channel.
        match payload.parse_event(event)? {
            In::NewMsg { body } if body.is_empty() => Err(Error::reason("say something")),
            In::NewMsg { body } => {
                self.sent += 1;
                let from = &socket.assigns().name;
                socket.broadcast("new_msg", json!({ "from": from, "body": body }));
                Ok(Reply::ok(json!({ "sent": self.sent })))
            }
        }
    }
}

fn endpoint() -> Endpoint<User> {
    Endpoint::builder(connect).channel::<Room>("room:*").build()
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .nest_service("/socket", endpoint().service());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:4000").await?;
    axum::serve(listener, app).await
}

#[tokio::test]
async fn messages_reach_everyone_and_are_counted() {
    let mut ann = tower_channels::test::connect(&endpoint(), &[("name", "ann")]).await.unwrap();
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ack());
    let reply = ann.push("room:1", "new_msg", json!({ "body": "hi" })).await;
    assert_eq!(reply, Reply::ok(json!({ "sent": 1 })));
    assert_eq!(ann.expect("new_msg").await, json!({ "from": "ann", "body": "hi" }));
    let reply = ann.push("room:1", "new_msg", json!({ "body": "" })).await;
    assert_eq!(reply, Reply::reason("say something"));
}
