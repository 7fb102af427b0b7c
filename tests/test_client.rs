//! The in-memory client of the feature `test-util`: what a test of an application can ask it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tower_channels::channel::{Error, Result};
use tower_channels::test::{self, Message};
use tower_channels::{
    Channel, Close, ConnectInfo, Endpoint, Joined, Payload, Presence, Rejected, Reply, Socket,
};

#[derive(Clone, Debug, PartialEq)]
struct User {
    name: String,
}

struct Room;

async fn connect(info: ConnectInfo) -> Result<User, Rejected> {
    let name = info.param("name").ok_or(Rejected::reason("name is missing"))?;
    Ok(User { name: name.into() })
}

impl Channel for Room {
    type Assigns = User;
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        if socket.topic() == "room:crowd" {
            Presence::track(socket, &socket.assigns().name, json!({}))?;
            Presence::push_state(socket);
        }
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        msg: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        match event {
            "who" => Ok(Reply::ok(json!(socket.assigns().name))),
            "stop" => Err(Error::stop()),
            "silent" => Ok(Reply::None),
            _ => {
                socket.broadcast(event, msg);
                Ok(Reply::ack())
            }
        }
    }
}

fn endpoint() -> Endpoint<User> {
    let builder = Endpoint::builder(connect).id(|user| Some(format!("user:{}", user.name)));
    builder.channel::<Room>("room:*").build()
}

#[tokio::test(start_paused = true)]
async fn an_expected_push_is_found_behind_others_which_stay_unread() {
    let mut ann = test::connect(&endpoint(), &[("name", "ann")]).await.unwrap();
    for topic in ["room:1", "room:2"] {
        ann.join(topic, json!({})).await;
        for (event, payload) in [("one", json!(1)), ("two", json!(2))] {
            ann.push(topic, event, payload).await;
        }
    }
    assert_eq!(ann.expect("two").await, json!(2));
    assert_eq!(ann.expect_on("room:2", "one").await, json!(1));
    let on_one = |message: &Message| message.topic == "room:1";
    assert_eq!(ann.expect(on_one).await, json!(1));
    assert_eq!(ann.next_push().await, ("two".into(), json!(2).into()));
}

#[tokio::test(start_paused = true)]
async fn what_is_refuted_neither_waits_nor_arrives() {
    let mut ann = test::connect(&endpoint(), &[("name", "ann")]).await.unwrap();
    ann.join("room:1", json!({})).await;
    ann.push("room:1", "other", json!(1)).await;
    let start = tokio::time::Instant::now();
    ann.refute("new_msg", Duration::from_secs(60)).await;
    assert_eq!(start.elapsed(), Duration::from_secs(60));
    assert_eq!(ann.expect("other").await, json!(1));
}

#[tokio::test(start_paused = true)]
#[should_panic = r#"expected not to receive the event "new_msg": Message"#]
async fn a_refuted_push_that_is_unread_panics() {
    let mut ann = test::connect(&endpoint(), &[("name", "ann")]).await.unwrap();
    ann.join("room:1", json!({})).await;
    ann.push("room:1", "new_msg", json!("hi")).await;
    ann.refute("new_msg", Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
#[should_panic = r#"expected the event "new_msg" on "room:1"; unread: [Message { join_ref"#]
async fn a_failed_expectation_names_what_came_instead() {
    let mut ann = test::connect(&endpoint(), &[("name", "ann")]).await.unwrap();
    ann.join("room:1", json!({})).await;
    ann.send("room:1", "other", json!("hi"));
    ann.expect_on("room:1", "new_msg").await;
}

#[tokio::test(start_paused = true)]
#[should_panic = r#"expected the reply to "2""#]
async fn a_missing_reply_panics_after_the_timeout_of_the_client() {
    let mut ann = test::connect(&endpoint(), &[("name", "ann")]).await.unwrap();
    ann.timeout(Duration::from_millis(1)).join("room:1", json!({})).await;
    let start = tokio::time::Instant::now();
    let reference = ann.send("room:1", "silent", json!({}));
    let reply = tokio::time::timeout(Duration::from_millis(2), ann.expect_reply(&reference)).await;
    panic!("{:?} after {:?}", reply, start.elapsed());
}

#[tokio::test]
async fn the_end_of_a_channel_and_of_a_connection_can_be_expected() {
    let endpoint = endpoint();
    let mut ann = test::connect(&endpoint, &[("name", "ann")]).await.unwrap();
    ann.join("room:1", json!({})).await;
    ann.send("room:1", "stop", json!({}));
    ann.expect_on("room:1", "phx_close").await;
    endpoint.disconnect("user:ann");
    assert_eq!(ann.expect_closed().await, Close::GoingAway);
}

#[tokio::test]
async fn a_refusal_is_the_one_that_connect_returned() {
    let refused = test::connect(&endpoint(), &[]).await.unwrap_err();
    assert_eq!(refused, Rejected::reason("name is missing"));
    assert_ne!(refused, Rejected::reason("another"));
}

#[tokio::test]
async fn assigns_can_be_given_without_connect() {
    let mut ann = test::connect_as(&endpoint(), User { name: "ann".into() }).await;
    ann.join("room:1", json!({})).await;
    assert_eq!(ann.push("room:1", "who", json!({})).await, Reply::ok(json!("ann")));
    ann.reconnect().await.unwrap();
    ann.join("room:1", json!({})).await;
    assert_eq!(ann.push("room:1", "who", json!({})).await, Reply::ok(json!("ann")));
}

#[tokio::test]
async fn a_client_carries_what_a_request_would_carry() {
    #[derive(Clone)]
    struct Tenant(u32);

    let peer = SocketAddr::from(([127, 0, 0, 1], 9));
    let endpoint = Endpoint::builder(move |info: ConnectInfo| async move {
        assert_eq!(info.auth_token(), Some("secret"));
        assert_eq!(info.params()["filter"], json!({ "tags": ["a"] }));
        assert_eq!(info.user_agent(), Some("a test"));
        assert_eq!(info.peer_addr(), Some(peer));
        assert_eq!(info.extensions().get::<Tenant>().map(|tenant| tenant.0), Some(7));
        Ok(User { name: "ann".into() })
    });
    let client = test::client(&endpoint.channel::<Room>("room:*").build())
        .param("filter", json!({ "tags": ["a"] }))
        .auth_token("secret")
        .header("user-agent", "a test")
        .extension(Tenant(7))
        .peer(peer);
    client.connect().await.unwrap();
}

#[tokio::test]
async fn messages_of_presence_can_be_passed_over_or_awaited() {
    let endpoint = endpoint();
    let mut ann = test::connect_as(&endpoint, User { name: "ann".into() }).await;
    ann.skip_presence().join("room:crowd", json!({})).await;
    let mut bob = test::connect_as(&endpoint, User { name: "bob".into() }).await;
    bob.join("room:crowd", json!({})).await;
    let of_bob = |message: &Message| {
        message.event == "presence_diff" && format!("{:?}", message.payload).contains("bob")
    };
    ann.expect(of_bob).await;
    bob.push("room:crowd", "new_msg", json!("hi")).await;
    assert_eq!(ann.next_push().await, ("new_msg".into(), json!("hi").into()));
    assert!(ann.discard() > 0, "the state is still unread");
}
