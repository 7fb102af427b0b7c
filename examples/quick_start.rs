//! A room whose messages reach everyone in it and are counted, and its test.

use axum::{Router, routing::get};
use serde_json::json;
use tower_channels::channel::Result;
use tower_channels::{
    Channel, ConnectInfo, Endpoint, JoinError, Joined, Payload, Rejected, Reply, Socket, Stop,
};

/// The assigns of a socket, shared by all of its channels.
struct User {
    name: String,
}

/// The state of one channel.
struct Room {
    sent: u32,
}

async fn connect(info: ConnectInfo) -> Result<User, Rejected> {
    let name = info.param("name").ok_or(Rejected::reason("name is missing"))?;
    Ok(User { name: name.into() })
}

impl Channel for Room {
    type Assigns = User;
    type Info = ();

    async fn join(topic: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>, JoinError> {
        if topic == "room:secret" {
            return Err(JoinError::reason("unauthorized"));
        }
        Ok(Self { sent: 0 }.into())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        msg: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        match event {
            "new_msg" => {
                self.sent += 1;
                let (from, body) = (&socket.assigns().name, msg.parse::<String>()?);
                socket.broadcast("new_msg", json!({ "from": from, "body": body }));
                Ok(Reply::ok(json!({ "sent": self.sent })))
            }
            _ => Err(Stop::unmatched(event)),
        }
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let endpoint = Endpoint::builder(connect).channel::<Room>("room:*").build();
    let app = Router::new()
        .route("/", get(|| async { "hello" }))
        .nest_service("/socket", endpoint.service());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:4000").await?;
    axum::serve(listener, app).await
}

#[tokio::test]
async fn messages_reach_everyone_and_are_counted() {
    let endpoint = Endpoint::builder(connect).channel::<Room>("room:*").build();
    let mut ann = tower_channels::test::connect(&endpoint, &[("name", "ann")]).await.unwrap();
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ack());
    assert_eq!(ann.push("room:1", "new_msg", json!("hi")).await, Reply::ok(json!({ "sent": 1 })));
    let hi = json!({ "from": "ann", "body": "hi" });
    assert_eq!(ann.next_push().await, ("new_msg".into(), hi.into()));
}
