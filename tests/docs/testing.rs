//! The code of docs/testing.md.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tower_channels::channel::{Error, Result};
use tower_channels::test::{self, Message};
use tower_channels::{
    Builder, Channel, Close, ConnectInfo, Endpoint, Joined, Payload, Presence, Rejected, Reply,
    Socket,
};

/// The assigns of a socket.
struct User {
    name: String,
}

/// A room in which people talk and play.
struct Room;

/// What a client may push.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum In {
    NewMsg { body: String },
    StartGame,
    Quit,
}

/// The game is over.
struct GameOver;

async fn connect(info: ConnectInfo) -> Result<User, Rejected> {
    let name = info.auth_token().ok_or(Rejected::reason("no token"))?;
    Ok(User { name: name.into() })
}

impl Channel for Room {
    type Assigns = User;
    type Info = GameOver;

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        Presence::track(socket, &socket.assigns().name, json!({}))?;
        Presence::push_state(socket);
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        match payload.parse_event(event)? {
            In::NewMsg { body } => {
                let from = &socket.assigns().name;
                socket.broadcast("new_msg", json!({ "from": from, "body": body }));
                Ok(Reply::ack())
            }
            In::StartGame => {
                socket.send_after(Duration::from_secs(60), GameOver);
                Ok(Reply::None)
            }
            In::Quit => Err(Error::stop()),
        }
    }

    async fn handle_info(&mut self, _: GameOver, socket: &Socket<Self>) -> Result<()> {
        socket.broadcast("game_over", json!({}));
        Ok(())
    }
}

fn builder() -> Builder<User> {
    Endpoint::builder(connect)
        .id(|user: &User| Some(format!("user:{}", user.name)))
        .channel::<Room>("room:*")
}

fn endpoint() -> Endpoint<User> {
    builder().build()
}

/// Connects a user and joins a room.
async fn member(endpoint: &Endpoint<User>, name: &str) -> test::Client<User> {
    let mut client = test::connect_as(endpoint, User { name: name.into() }).await;
    assert_eq!(client.join("room:1", json!({})).await, Reply::ack());
    client
}

#[tokio::test]
async fn a_client_without_a_token_is_rejected() {
    let rejected = test::client(&endpoint()).connect().await.unwrap_err();
    assert_eq!(rejected, Rejected::reason("no token"));

    let ann = test::client(&endpoint()).auth_token("ann").param("locale", "en");
    ann.connect().await.unwrap();
}

#[tokio::test]
async fn a_message_reaches_everyone_in_the_room() {
    let endpoint = endpoint();
    let (mut ann, mut bob) = (member(&endpoint, "ann").await, member(&endpoint, "bob").await);

    assert_eq!(ann.push("room:1", "new_msg", json!({ "body": "hi" })).await, Reply::ack());
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.expect("new_msg").await, json!({ "from": "ann", "body": "hi" }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_body_is_answered_and_not_sent() {
    let endpoint = endpoint();
    let (mut ann, mut bob) = (member(&endpoint, "ann").await, member(&endpoint, "bob").await);

    let Reply::Error(error) = ann.push("room:1", "new_msg", json!({})).await else {
        panic!("an error");
    };
    assert!(error.as_json().unwrap().contains("missing field `body`"), "{error:?}");
    bob.refute("new_msg", Duration::from_secs(1)).await;
}

#[tokio::test]
async fn what_the_program_broadcasts_is_seen_without_a_join() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, "ann").await;

    ann.subscribe("metrics");
    endpoint.broadcast("metrics", "load", json!(0.5));
    assert_eq!(ann.expect_broadcast("metrics", "load").await, json!(0.5));
}

#[tokio::test]
async fn others_see_who_comes() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, "ann").await;
    let _bob = member(&endpoint, "bob").await;

    let with_bob = |message: &Message| {
        message.event == "presence_diff" && message.payload.as_json().unwrap().contains("bob")
    };
    ann.expect(with_bob).await;
}

#[tokio::test(start_paused = true)]
async fn a_game_takes_a_minute() {
    let mut ann = member(&endpoint(), "ann").await;
    ann.skip_presence().timeout(Duration::from_secs(90));

    ann.send("room:1", "start_game", json!({}));
    ann.refute("game_over", Duration::from_secs(59)).await;
    assert_eq!(ann.next_push().await, ("game_over".into(), json!({}).into()));
}

#[tokio::test]
async fn a_client_that_lost_its_connection_misses_nothing() {
    let endpoint = endpoint();
    let ann = test::client(&endpoint).auth_token("ann");
    let mut ann = ann.param("session", "0123456789abcdefghijkl").connect().await.unwrap();
    ann.join("room:1", json!({})).await;

    ann.drop_connection();
    endpoint.broadcast("room:1", "new_msg", json!("while ann was away"));
    ann.reconnect().await.unwrap();
    ann.join("room:1", json!({})).await;
    assert_eq!(ann.expect("new_msg").await, json!("while ann was away"));
}

#[tokio::test]
async fn a_channel_that_was_quit_is_closed_and_an_unknown_event_crashes_it() {
    let mut ann = member(&endpoint(), "ann").await;
    ann.send("room:1", "quit", json!({}));
    ann.expect_on("room:1", "phx_close").await;

    ann.join("room:1", json!({})).await;
    ann.send("room:1", "no_such_event", json!({}));
    ann.expect_on("room:1", "phx_error").await;
}

#[tokio::test]
async fn a_user_can_be_disconnected() {
    let endpoint = endpoint();
    let mut ann = member(&endpoint, "ann").await;

    endpoint.disconnect("user:ann");
    assert_eq!(ann.expect_closed().await, Close::GoingAway);
}

#[tokio::test(start_paused = true)]
async fn a_message_reaches_a_room_on_another_node() {
    let bus = test::Bus::new();
    let node = || builder().adapter(bus.adapter()).build();
    let (one, two) = (node(), node());
    let (mut ann, mut bob) = (member(&one, "ann").await, member(&two, "bob").await);

    ann.push("room:1", "new_msg", json!({ "body": "hi" })).await;
    assert_eq!(bob.expect("new_msg").await, json!({ "from": "ann", "body": "hi" }));
    ann.expect(test::joins("bob")).await;
    assert_eq!(one.nodes().len(), 2);
}
